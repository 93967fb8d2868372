"""What `gracl data check` finds, says and exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import save_image
from gracl.cli import main
from gracl.data.check import check_dataset
from gracl.data.readers import load_dataset


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
    assert (report.layout, report.problems, report.usable) == ("csv", (), True)


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
    assert set(report.queries_by_protocol.values()) == {0}
    assert report.splits["train"].images_per_identity == (0, 0.0, 0)


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
