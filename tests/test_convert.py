"""A converted data set reads back as the same, or it is not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import gracl
from conftest import random_image, save_image
from gracl.data import convert
from gracl.data.convert import Format, convert_dataset
from gracl.data.records import FIELDS, Box, Dataset, Record, Records
from gracl.data.store import decode
from gracl.errors import DataError

SIDES = ("train", "query", "gallery")


def mixed(root: Path) -> Dataset:
    """Boxes, a turned picture, names that no file system of all takes, an image on both sides."""
    save_image(root / "frames/höhle 東.png", seed=1, size=(40, 60))
    save_image(root / "frames/con.png", seed=2, size=(30, 20))
    save_image(root / "frames/a/same.png", seed=3)
    save_image(root / "frames/b/same.png", seed=4)
    exif = Image.Exif()
    exif[0x0112] = 8
    random_image(5, (16, 32)).save(root / "frames/turned.jpg", exif=exif)
    lines = [
        "path,identity,camera,split,date,sequence,x,y,w,h",
        "frames/höhle 東.png,Ünal,c1,train,2025-01-01,s1,2,3,10,20",
        "frames/höhle 東.png,東,c1,train,2025-01-01,,30,3,90,20",
        "frames/turned.jpg,,c2,train,,,,,,",
        'frames/con.png,"a, b",c2,query,,,,,,',
        "frames/a/same.png,x/y,c1,gallery,,,,,,",
        "frames/b/same.png,x/y,c2,test,,,,,,",
    ]
    (root / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return gracl.load_dataset(root)


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def check_same_facts(first: Dataset, second: Dataset) -> None:
    for side in SIDES:
        before, after = getattr(first, side), getattr(second, side)
        for field in FIELDS:
            assert before.values(field) == after.values(field)
        assert [record.box for record in after] == [None] * len(before)


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_converted_set_reads_back_as_the_same(tmp_path: Path, image_format: Format) -> None:
    dataset = mixed(tmp_path / "in")
    done = convert_dataset(dataset, tmp_path / "out", image_format=image_format)
    back = gracl.load_dataset(tmp_path / "out")
    assert (done.images, done.problems, back.problems) == (6, (), ())
    check_same_facts(dataset, back)
    for side in SIDES:
        for before, after in zip(getattr(dataset, side), getattr(back, side), strict=True):
            with Image.open(after.path) as image:
                assert image.getexif() == {}
                size = image.height, image.width
            difference = decode(before, size).astype(int) - decode(after, size)
            assert np.abs(difference).mean() <= (0 if image_format == "png" else 8)


def test_boxes_are_cut_out_and_pictures_are_upright(tmp_path: Path) -> None:
    convert_dataset(mixed(tmp_path / "in"), tmp_path / "out")
    train = gracl.load_dataset(tmp_path / "out").train
    sizes = [pixels(record.path).shape[:2] for record in train]
    assert sizes == [(20, 10), (20, 30), (32, 16)]  # the second box ended outside of its frame


def test_images_are_resized_as_the_store_resizes_them(tmp_path: Path) -> None:
    dataset = mixed(tmp_path / "in")
    convert_dataset(dataset, tmp_path / "out", size=(24, 12), image_format="png")
    back = gracl.load_dataset(tmp_path / "out")
    for before, after in zip(dataset.train, back.train, strict=True):
        assert np.array_equal(decode(before, (24, 12)), pixels(after.path).transpose(2, 0, 1))


def test_image_in_several_splits_is_one_file(tmp_path: Path) -> None:
    for n in range(3):
        save_image(tmp_path / f"in/test/1/{n}.png", seed=n)
    save_image(tmp_path / "in/train/a.png")
    done = convert_dataset(gracl.load_dataset(tmp_path / "in"), tmp_path / "out")
    assert done.images == 4
    back = gracl.load_dataset(tmp_path / "out")
    assert back.query == back.gallery
    assert len(list((tmp_path / "out/images").iterdir())) == 4


def test_names_are_safe_unique_and_the_same_each_time(tmp_path: Path) -> None:
    dataset = mixed(tmp_path / "in")
    for out in ("one", "two"):
        convert_dataset(dataset, tmp_path / out)
    names = [sorted(p.name for p in (tmp_path / out / "images").iterdir()) for out in ("one", "two")]
    assert names[0] == names[1]
    assert all(name.isascii() and " " not in name for name in names[0])
    assert len({name.lower() for name in names[0]}) == 6
    stems = ["con", "hohle", "hohle", "same", "same", "turned"]
    assert [name.split("-")[0] for name in names[0]] == stems


def test_names_do_not_depend_on_where_the_set_lies_or_what_else_is_in_it(tmp_path: Path) -> None:
    for root, extra in (("one", ()), ("two/deeper", ("b.png", "0.png"))):
        for name in ("a/x.png", *extra):
            save_image(tmp_path / root / name)
        dataset = gracl.load_dataset(tmp_path / root)
        convert_dataset(dataset, tmp_path / "out" / root)
    names = [
        {p.name for p in (tmp_path / "out" / r / "images").iterdir()} for r in ("one", "two/deeper")
    ]
    assert names[0] < names[1]


@pytest.mark.parametrize("stem", ["東", "...", "-", "x" * 200, "a" + "é" * 99, "NUL", "a:b*c?"])
def test_any_name_becomes_one_that_every_system_takes(tmp_path: Path, stem: str) -> None:
    dataset = Dataset("x", tmp_path, "csv", Records())
    name = convert._name(dataset, Record(tmp_path / f"{stem}.png"))
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
    assert 16 <= len(name) <= 70
    assert name != convert._name(dataset, Record(tmp_path / f"{stem}.jpg"))
    assert name != convert._name(dataset, Record(tmp_path / f"{stem}.png", box=Box(0, 0, 1, 1)))


# -- what cannot be read --------------------------------------------------------------------------


def test_unreadable_images_are_listed_and_left_out(tmp_path: Path) -> None:
    save_image(tmp_path / "in/a/1.png")
    (tmp_path / "in/a/2.png").write_bytes(b"no image")
    (tmp_path / "in/a/3.png").symlink_to(tmp_path / "gone.png")
    done = convert_dataset(gracl.load_dataset(tmp_path / "in"), tmp_path / "out")
    assert sorted(p.path.name for p in done.problems) == ["2.png", "3.png"]
    about = json.loads((tmp_path / "out/conversion.json").read_text(encoding="utf-8"))
    assert sorted(Path(p["path"]).name for p in about["problems"]) == ["2.png", "3.png"]
    assert (about["layout"], about["images"], about["size"]) == ("folder", 1, None)
    assert str(done) == f"1 images in {tmp_path / 'out'}; 2 left out, listed in conversion.json"
    assert len(gracl.load_dataset(tmp_path / "out").train) == 1


def test_set_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none of 1 images of in can be read; the first, .*a.png"):
        convert_dataset(gracl.load_dataset(tmp_path / "in"), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


# -- guards ---------------------------------------------------------------------------------------


def test_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    dataset = mixed(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").touch()
    with pytest.raises(DataError, match="out is not empty; expected a new folder"):
        convert_dataset(dataset, tmp_path / "out")
    with pytest.raises(DataError, match=r"mine.txt is a file; expected a new folder"):
        convert_dataset(dataset, tmp_path / "out/mine.txt")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    convert_dataset(mixed(tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out/metadata.csv").is_file()


def test_folder_within_a_tree_that_is_all_read_is_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "in/a.png")
    with pytest.raises(DataError, match="Give a folder outside of it"):
        convert_dataset(gracl.load_dataset(tmp_path / "in"), tmp_path / "in/out")


def test_unknown_format_and_empty_size_are_refused(tmp_path: Path) -> None:
    dataset = mixed(tmp_path / "in")
    with pytest.raises(DataError, match="no image format 'jpg'; did you mean 'jpeg'"):
        convert_dataset(dataset, tmp_path / "out", image_format="jpg")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="images of 0 x 8 pixels are empty"):
        convert_dataset(dataset, tmp_path / "out", size=(0, 8))


def test_fact_that_would_change_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    dataset = Dataset("x", tmp_path, "csv", Records((Record(tmp_path / "gone.png", identity=" a"),)))
    with pytest.raises(DataError, match="the identity ' a' would not be read back"):
        convert_dataset(dataset, tmp_path / "out")


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write .*Make it, or give another folder"):
        convert_dataset(mixed(tmp_path / "in"), tmp_path / "file/out")


def test_full_disk_is_an_error_and_not_an_unreadable_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    dataset = mixed(tmp_path / "in")
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match="No space left on device"):
        convert_dataset(dataset, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_source_is_not_written_to(tmp_path: Path) -> None:
    dataset = mixed(tmp_path / "in")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "in").rglob("*")}
    convert_dataset(dataset, tmp_path / "out")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "in").rglob("*")} == before


def test_progress_counts_images(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    convert_dataset(
        mixed(tmp_path / "in"),
        tmp_path / "out",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(n, 6) for n in range(1, 7)]


# -- killed ---------------------------------------------------------------------------------------

SLOW = """
import sys, time
from pathlib import Path
import gracl
from gracl.data.convert import convert_dataset
def slow(done, total):
    print(done, flush=True)
    time.sleep(60)
convert_dataset(gracl.load_dataset(sys.argv[1]), sys.argv[2], progress=slow)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_killed_conversion_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    mixed(tmp_path / "in")
    words = [sys.executable, "-c", SLOW, str(tmp_path / "in"), str(tmp_path / "out")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    (left,) = [path for path in tmp_path.iterdir() if path.name != "in"]
    assert left.name.endswith(".unfinished")
    assert not (left / "metadata.csv").exists()
    convert_dataset(gracl.load_dataset(tmp_path / "in"), tmp_path / "out")
    assert len(gracl.load_dataset(tmp_path / "out").train) == 3


def test_a_hugging_face_folder_is_no_place_for_its_own_conversion(tmp_path: Path) -> None:
    """The next reading would take the conversion for the metadata of all."""
    for n in range(2):
        save_image(tmp_path / "hub" / f"{n}.png", n)
    rows = [json.dumps({"file_name": f"{n}.png", "identity": str(n)}) for n in range(2)]
    (tmp_path / "hub" / "metadata.jsonl").write_text("\n".join(rows))
    dataset = gracl.load_dataset(tmp_path / "hub")
    assert dataset.layout == "huggingface"
    with pytest.raises(DataError, match="Give a folder outside of it"):
        convert_dataset(dataset, tmp_path / "hub" / "plain")
