"""Drawn people: the same arguments give the same bytes, and nothing is lost or overwritten."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gracl.data.readers import load_dataset
from gracl.data.synthetic import draw_people, draw_person

SMALL = {"identities": 2, "test_identities": 2, "cameras": 2, "images_per_camera": 2, "size": (32, 16)}


def draw(person: int = 3, camera: int = 1, shot: int = 2, **settings: object) -> np.ndarray:
    return draw_person(person, camera=camera, shot=shot, size=(32, 16), **settings)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def test_picture_follows_from_its_arguments_alone() -> None:
    first = draw()
    for other in ({"person": 9}, {"camera": 5}, {"shot": 7}, {"seed": 4}):
        draw(**other)  # drawn in between
    assert np.array_equal(draw(), first)


@pytest.mark.parametrize(
    "changed", [{"person": 4}, {"camera": 2}, {"shot": 3}, {"seed": 1}, {"nuisance": 0.5}]
)
def test_each_argument_changes_the_picture(changed: dict[str, int]) -> None:
    assert not np.array_equal(draw(**changed), draw())


def test_without_nuisance_every_camera_and_shot_gives_the_same_view() -> None:
    views = [draw(camera=c, shot=s, nuisance=0.0) for c in range(3) for s in range(3)]
    assert all(np.array_equal(view, views[0]) for view in views)
    assert not np.array_equal(draw(person=4, nuisance=0.0), views[0])


def test_picture_is_rgb_of_the_size_asked_for() -> None:
    picture = draw_person(0, camera=0, shot=0, size=(48, 40))
    assert (picture.shape, picture.dtype) == ((48, 40, 3), np.uint8)
    assert picture.std() > 10


def test_same_arguments_give_the_same_files(tmp_path: Path) -> None:
    first = files(draw_people(tmp_path / "a", **SMALL))
    assert files(draw_people(tmp_path / "b", **SMALL)) == first
    other = files(draw_people(tmp_path / "c", **SMALL, seed=1))
    assert other.keys() == first.keys()
    assert all(other[name] != first[name] for name in first if name.endswith(".jpg"))


def test_table_has_its_columns_and_a_row_for_every_image(tmp_path: Path) -> None:
    folder = draw_people(tmp_path / "people", **SMALL)
    table = rows(folder)
    assert list(table[0]) == ["path", "identity", "camera", "split"]
    assert len(table) == 4 * 2 * 2
    assert sorted(row["path"] for row in table) == [n for n in files(folder) if n.endswith(".jpg")]
    assert {row["identity"] for row in table} == {"p0000", "p0001", "p0002", "p0003"}
    assert {row["camera"] for row in table} == {"c0", "c1"}


def test_no_identity_is_in_training_and_test(tmp_path: Path) -> None:
    table = rows(draw_people(tmp_path, **SMALL))
    by_split = {
        s: {r["identity"] for r in table if r["split"] == s} for s in ("train", "query", "gallery")
    }
    assert by_split["train"] == {"p0000", "p0001"}
    assert by_split["query"] == by_split["gallery"] == {"p0002", "p0003"}


def test_every_person_and_camera_has_one_query(tmp_path: Path) -> None:
    table = rows(draw_people(tmp_path, **SMALL))
    queries = [(row["identity"], row["camera"]) for row in table if row["split"] == "query"]
    assert sorted(queries) == [(p, c) for p in ("p0002", "p0003") for c in ("c0", "c1")]


def test_names_of_files_say_nothing_about_who_is_in_them(tmp_path: Path) -> None:
    by_name = sorted(rows(draw_people(tmp_path, **SMALL)), key=lambda row: row["path"])
    identities = [row["identity"] for row in by_name]
    assert identities != sorted(identities)


def test_drawn_set_is_read_back_as_it_was_drawn(tmp_path: Path) -> None:
    folder = draw_people(tmp_path / "people", **SMALL)
    dataset = load_dataset(folder)
    assert [len(part) for part in (dataset.train, dataset.query, dataset.gallery)] == [8, 4, 4]
    assert dataset.problems == ()
    with Image.open(dataset.train[0].path) as image:
        assert image.size == (16, 32)


def test_set_without_a_test_part_has_training_images_only(tmp_path: Path) -> None:
    small = {**SMALL, "test_identities": 0, "images_per_camera": 1}
    assert {row["split"] for row in rows(draw_people(tmp_path, **small))} == {"train"}


def test_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"holds 1 entries \(no finished data set\)"):
        draw_people(tmp_path, **SMALL)
    assert files(tmp_path) == {"mine.txt": b"keep"}


def test_finished_set_is_not_drawn_over(tmp_path: Path) -> None:
    draw_people(tmp_path, **SMALL)
    with pytest.raises(ValueError, match="a finished data set"):
        draw_people(tmp_path, **SMALL)


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; expected a folder"):
        draw_people(tmp_path / "file", **SMALL)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"identities": 0}, "identities is 0; expected 1 or more"),
        ({"test_identities": -1}, "test_identities is -1; expected 0 or more"),
        ({"cameras": 0}, "cameras is 0; expected 1 or more"),
        ({"images_per_camera": 1}, "images_per_camera is 1; expected 2 or more"),
        ({"size": (31, 16)}, "size is "),
        ({"nuisance": -0.1}, "nuisance is -0.1"),
        ({"nuisance": float("nan")}, "nuisance is nan"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        draw_people(tmp_path / "people", **{**SMALL, **wrong})
    assert not (tmp_path / "people").exists()


@pytest.mark.parametrize("wrong", [{"person": -1}, {"camera": -1}, {"shot": -1}])
def test_negative_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="is -1; expected 0 or more"):
        draw(**wrong)
