"""What `gracl data check` finds, says and exits with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import random_image, save_image
from gracl.cli import main
from gracl.data.check import ImageSize, Report, check_dataset
from gracl.data.readers import load_dataset
from gracl.data.splits import IDENTITIES_SHARED


def write_set(root: Path) -> Path:
    """Training images of two identities and one unknown; a query with a match and one without."""
    rows = [
        ("t0.png", "a", "c1", "train"),
        ("t1.png", "a", "c2", "train"),
        ("t2.png", "a", "c2", "train"),
        ("t3.png", "b", "c1", "train"),
        ("t4.png", "", "c1", "train"),
        ("q0.png", "x", "c1", "query"),
        ("q1.png", "y", "c1", "query"),
        ("g0.png", "x", "c2", "gallery"),
        ("g1.png", "y", "c1", "gallery"),
    ]
    for seed, row in enumerate(rows):
        save_image(root / row[0], seed=seed)
    lines = ["path,identity,camera,split", *(",".join(row) for row in rows)]
    (root / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_counts_of_each_split(tmp_path: Path) -> None:
    report = check_dataset(load_dataset(write_set(tmp_path)))
    train = report.splits["train"]
    assert (train.images, train.identities, train.without_identity, train.cameras) == (5, 2, 1, 2)
    assert train.images_per_identity == (1, 2.0, 3)
    assert [report.splits[name].images for name in ("query", "gallery")] == [2, 2]
    assert train.cameras_per_identity == (1, 1.5, 2)
    assert train.images_per_camera == {"c1": 3, "c2": 2}
    assert (train.dates, train.sequences) == (0, 0)
    assert (report.layout, report.problems, report.usable) == ("csv", (), True)
    assert report.doubts == report.faults == report.same_pictures == ()


def test_dates_and_sequences_are_counted(tmp_path: Path) -> None:
    for n in range(3):
        save_image(tmp_path / f"{n}.png", seed=n)
    lines = ["path,date,sequence", "0.png,2025-01-01,s", "1.png,2025-01-02,s", "2.png,2025-01-02,"]
    (tmp_path / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    train = check_dataset(load_dataset(tmp_path)).splits["train"]
    assert (train.dates, train.sequences, train.identities, train.cameras) == (2, 1, 0, 0)
    assert train.images_per_identity == train.cameras_per_identity == (0, 0.0, 0)


def test_queries_with_a_match_are_counted_for_each_protocol(tmp_path: Path) -> None:
    report = check_dataset(load_dataset(write_set(tmp_path)))
    expected = {"cross-camera": 1, "date": 0, "sequence": 0, "any": 2}
    assert report.queries_by_protocol == expected


def test_unreadable_images_are_problems_and_are_not_counted(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "t1.png").write_bytes(b"not an image")
    (tmp_path / "g0.png").write_bytes(b"")
    report = check_dataset(load_dataset(tmp_path))
    assert sorted(problem.path.name for problem in report.problems) == ["g0.png", "t1.png"]
    assert all("UnidentifiedImageError" in problem.reason for problem in report.problems)
    assert report.splits["train"].images == 4
    assert report.queries_by_protocol["cross-camera"] == 0
    assert report.usable


def test_bad_crop_does_not_discredit_the_other_crops_of_its_image(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", size=(12, 8))
    lines = ["path,identity,x,y,w,h", "a.png,1,0,0,4,4", "a.png,1,4,4,4,4", "a.png,1,90,90,4,4"]
    (tmp_path / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    report = check_dataset(load_dataset(tmp_path))
    assert report.splits["train"].images == 2
    assert len(report.problems) == 1
    assert report.queries_by_protocol["any"] == 2


def test_problems_of_the_reader_are_kept(tmp_path: Path) -> None:
    write_set(tmp_path)
    with (tmp_path / "metadata.csv").open("a", encoding="utf-8") as table:
        table.write("\ngone.png,a,c1,train\n")
    (problem,) = check_dataset(load_dataset(tmp_path)).problems
    assert problem.path == tmp_path / "gone.png"


def test_image_on_both_sides_is_read_once(tmp_path: Path) -> None:
    for n in range(3):
        save_image(tmp_path / "test/1" / f"{n}.png", seed=n)
    save_image(tmp_path / "train/a.png")
    seen: list[tuple[int, int]] = []
    check_dataset(load_dataset(tmp_path), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_unlabelled_images_are_usable_and_cannot_be_scored(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    report = check_dataset(load_dataset(tmp_path))
    assert report.usable
    assert report.doubts == ("one image alone has nothing to be told apart from",)
    assert set(report.queries_by_protocol.values()) == {0}
    assert report.splits["train"].images_per_identity == (0, 0.0, 0)


# -- sizes ----------------------------------------------------------------------------------------


def test_smallest_and_largest_are_those_of_the_boxes(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", size=(30, 40))
    lines = ["path,x,y,w,h", "a.png,,,,", "a.png,0,0,2,5", "a.png,30,20,90,90"]
    (tmp_path / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    report = check_dataset(load_dataset(tmp_path))
    assert report.smallest == ImageSize(tmp_path / "a.png", 5, 2)
    assert report.largest == ImageSize(tmp_path / "a.png", 30, 40)


def test_turned_image_is_measured_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    random_image(size=(10, 30)).save(tmp_path / "a.jpg", exif=exif)
    report = check_dataset(load_dataset(tmp_path))
    assert report.largest == ImageSize(tmp_path / "a.jpg", 30, 10)


# -- the same picture twice -----------------------------------------------------------------------


def check_table(root: Path, *rows: str) -> Report:
    """Rows of name, seed of the pixels, identity, split."""
    lines = ["path,identity,split"]
    for row in rows:
        name, seed, identity, split = row.split()
        save_image(root / name, seed=int(seed))
        lines.append(f"{name},{identity.strip('-')},{split}")
    (root / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return check_dataset(load_dataset(root))


def test_copies_within_a_split_are_listed_and_no_doubt(tmp_path: Path) -> None:
    report = check_table(tmp_path, "a.png 1 x train", "b.png 2 x train", "c.png 1 x train")
    (same,) = report.same_pictures
    assert [path.name for path in same.paths] == ["a.png", "c.png"]
    assert (same.splits, same.identities) == (("train", "train"), ("x",))
    assert not same.leaks
    assert not same.finds_itself
    assert report.doubts == ()
    assert "more than once: 1 in train; 1 images too many" in str(report)


def test_the_same_pixels_in_another_file_format_are_the_same_picture(tmp_path: Path) -> None:
    report = check_table(tmp_path, "a.png 1 x train", "b.bmp 1 x train", "c.jpg 1 x train")
    (same,) = report.same_pictures
    assert [path.name for path in same.paths] == ["a.png", "b.bmp"]  # JPEG changes pixels


@pytest.mark.parametrize("split", ["query", "gallery", "test"])
def test_training_picture_in_the_test_is_a_leak(tmp_path: Path, split: str) -> None:
    report = check_table(tmp_path, "a.png 1 x train", "b.png 1 y " + split, "c.png 2 y gallery")
    (same,) = report.same_pictures
    assert same.leaks
    assert same.splits == ("train", split)
    assert report.doubts[0].startswith("1 picture is in training and in the test: ")
    assert f"the same picture: {tmp_path / 'a.png'} = {tmp_path / 'b.png'}" in str(report)
    assert report.doubts[1].startswith("1 picture is under several identities: ")
    assert report.usable


def test_file_that_is_listed_in_training_and_test_is_a_leak(tmp_path: Path) -> None:
    report = check_table(tmp_path, "a.png 1 x train", "a.png 1 x test")
    assert [same.leaks for same in report.same_pictures] == [True]


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ("query gallery", True),
        ("test test", True),
        ("query query", False),
        ("gallery gallery", False),
        ("train test", False),
        ("train train", False),
    ],
)
def test_copy_of_a_query_in_the_gallery_is_a_doubt(tmp_path: Path, splits: str, expected: bool) -> None:
    first, second = splits.split()
    report = check_table(tmp_path, f"a.png 1 x {first}", f"b.png 1 x {second}", "c.png 3 z train")
    assert [same.finds_itself for same in report.same_pictures] == [expected]
    assert any("a query and, copied, its match" in doubt for doubt in report.doubts) is expected


def test_image_that_searches_and_is_searched_is_no_copy_of_itself(tmp_path: Path) -> None:
    report = check_table(tmp_path, "a.png 1 x test", "b.png 2 x test", "c.png 3 z train")
    assert report.same_pictures == ()


def test_training_images_that_are_all_the_same_picture_are_a_doubt(tmp_path: Path) -> None:
    report = check_table(tmp_path, *(f"{n}.png 1 - train" for n in range(5)))
    assert "all 5 training images are the same picture: there is nothing to tell apart" in report.doubts


def test_same_pictures_agree_with_comparing_all_pixels(tmp_path: Path) -> None:
    seeds = np.random.default_rng(0).integers(0, 12, 30).tolist()
    report = check_table(tmp_path, *(f"{n}.png {seed} - train" for n, seed in enumerate(seeds)))
    pixels = {tmp_path / f"{n}.png": np.asarray(random_image(s)) for n, s in enumerate(seeds)}
    naive = {frozenset(b for b in pixels if (pixels[b] == pixels[a]).all()) for a in pixels}
    expected = {group for group in naive if len(group) > 1}
    assert {frozenset(same.paths) for same in report.same_pictures} == expected


# -- identities on both sides ---------------------------------------------------------------------


def test_identity_in_training_and_test_is_a_doubt_unless_the_data_set_says_so(tmp_path: Path) -> None:
    rows = [f"{n}.png {n} {n % 5} train" for n in range(5)]
    rows += [f"{n}.png {n} {n % 5} test" for n in range(5, 9)]
    report = check_table(tmp_path, *rows)
    assert report.identities_on_both_sides == ("0", "1", "2", "3")
    (doubt,) = report.doubts
    assert doubt.startswith("4 identities are in training and in the test")
    assert doubt.endswith(": 0, 1, 2, and 1 more")
    dataset = load_dataset(tmp_path)
    on_purpose = replace(dataset, notes=(*dataset.notes, IDENTITIES_SHARED))
    assert check_dataset(on_purpose).doubts == ()


# -- the text -------------------------------------------------------------------------------------


def test_text_says_all_of_it(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "t4.png").write_bytes(b"")
    assert str(check_dataset(load_dataset(tmp_path))).splitlines() == [
        "read as csv",
        "split    images  identities  cameras  images per identity  cameras per identity",
        "train         4           2        2            1 - 2 - 3           1 - 1.5 - 2",
        "query         2           2        1            1 - 1 - 1             1 - 1 - 1",
        "gallery       2           2        2            1 - 1 - 1             1 - 1 - 1",
        "images per camera in train, fewest first: c1: 2, c2: 2",
        "images per camera in query, fewest first: c1: 2",
        "images per camera in gallery, fewest first: c1: 1, c2: 1",
        f"smallest image: 8 wide, 12 high, {tmp_path / 't0.png'}",
        f"largest image: 8 wide, 12 high, {tmp_path / 'g1.png'}",
        "can be scored under: cross-camera (1 queries), any (2 queries)",
        f"problem: {tmp_path / 't4.png'}: UnidentifiedImageError: cannot identify image file "
        f"{str(tmp_path / 't4.png')!r}",
        "1 problems; usable",
    ]


def test_text_of_nothing_readable(tmp_path: Path) -> None:
    for n in range(60):
        (tmp_path / f"{n}.jpg").write_text("not an image")
    report = check_dataset(load_dataset(tmp_path))
    assert report.smallest is report.largest is None
    text = str(report)
    assert text.count("problem: ") == 50
    assert "... and 10 more; --json lists all" in text
    assert text.endswith("60 problems; not usable: nothing to train on")


# -- the command ----------------------------------------------------------------------------------


def test_command_prints_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path)
    (tmp_path / "t4.png").write_bytes(b"")
    assert run("data", "check", tmp_path) == 0
    out = capsys.readouterr().out
    assert "read as csv" in out
    assert "cross-camera (1 queries), any (2 queries)" in out
    assert f"problem: {tmp_path / 't4.png'}: UnidentifiedImageError" in out
    assert "1 problems; usable" in out


def test_command_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path)
    (tmp_path / "t4.png").write_bytes(b"")
    assert run("data", "check", tmp_path, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["usable"] is True
    assert report["splits"]["train"]["images"] == 4
    assert report["queries_by_protocol"]["any"] == 2
    assert report["problems"][0]["path"] == str(tmp_path / "t4.png")


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_command_exits_with_1_where_nothing_can_be_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    (tmp_path / "a.jpg").write_text("not an image")
    assert run("data", "check", tmp_path, *flags) == 1
    out = capsys.readouterr().out
    assert json.loads(out)["usable"] is False if flags else "not usable" in out


def test_command_exits_with_2_where_there_is_no_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "check", tmp_path) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
