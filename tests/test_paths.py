"""A name that no file can have is one that is not there, for each function that takes a path."""

from __future__ import annotations

import json

import pytest

import gracl
from conftest import save_image
from faulty import without_permission
from gracl.errors import DataError, GraclError
from gracl.paths import is_file, is_folder, is_there
from gracl.tracking import read_travel

LONG = "x" * 300
READERS = {
    "load_dataset": gracl.load_dataset,
    "a named layout": lambda name: gracl.load_dataset("market1501", root=name),
    "from_huggingface": gracl.from_huggingface,
    "read_coco": gracl.read_coco,
    "read_tracks": lambda name: gracl.read_tracks(f"{name}.txt"),
    "read_features": lambda name: gracl.read_features(f"{name}.npz"),
    "read_calibration": gracl.read_calibration,
    "read_links": lambda name: gracl.read_links(name, []),
    "read_travel": read_travel,
    "load_model": gracl.load_model,
    "a gallery": gracl.Gallery.open,
    "a run": lambda name: gracl.Run(name).config,
    "settings": gracl.Config.load,
    "embed": lambda name: list(gracl.embed(None, name)),
}


@pytest.mark.parametrize("name", [LONG, "a/" * 3000, "a\0b"], ids=["long", "deep", "nul"])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_name_that_no_file_can_have_is_refused_in_words(read, name):
    with pytest.raises(GraclError):
        read(name)


def test_what_lies_in_a_folder_that_may_not_be_entered_is_not_there(tmp_path):
    (tmp_path / "a").touch()

    def looked():
        return [look(tmp_path / "a") for look in (is_there, is_file, is_folder)]

    assert looked() == [True, True, False]
    assert without_permission(tmp_path, looked, mode=0) == [False] * 3


# -- names that lead out --------------------------------------------------------------------------


@pytest.fixture
def given(tmp_path):
    """A folder that somebody gave, beside a picture that is nobody's business."""
    save_image(tmp_path / "private.png", 1)
    save_image(tmp_path / "given" / "ours" / "a.png", 2)
    return tmp_path / "given"


def lead_out(given):
    """Names of the private picture, from the folder that was given."""
    return (
        "../private.png",
        "ours/../../private.png",
        r"..\private.png",
        str(given.parent / "private.png"),
    )


@pytest.mark.parametrize("way", range(4))
def test_a_table_of_a_folder_reaches_no_file_outside_of_it(given, way):
    name = lead_out(given)[way]
    table = given / "metadata.csv"
    table.write_text(f"path,identity\nours/../ours/a.png,1\n{name},2\n")
    found = gracl.load_dataset(given)
    assert [record.path.name for record in found.train] == ["a.png"]
    (problem,) = found.problems
    assert problem.reason == f"line 3 leads out of {given}. If that is meant, give the table: {table}"
    asked = gracl.load_dataset(table)
    assert sorted(record.path.name for record in asked.train) == ["a.png", "private.png"]


@pytest.mark.parametrize("way", range(4))
def test_annotations_reach_no_file_outside_of_their_images(given, way):
    name = lead_out(given)[way]
    coco = {"images": [{"id": 1, "file_name": name}], "annotations": [], "categories": []}
    (given / "coco.json").write_text(json.dumps(coco))
    with pytest.raises(DataError, match=r"leads out of .*given. If that is meant, say images=FOLDER"):
        gracl.read_coco(given / "coco.json")
    detected = {"images": [{"file": name, "detections": []}], "detection_categories": {"1": "animal"}}
    (given / "detected.json").write_text(json.dumps(detected))
    with pytest.raises(DataError, match=r"leads out of .*given. If that is meant, say images=FOLDER"):
        gracl.read_megadetector(given / "detected.json")


def test_metadata_of_a_hub_folder_reaches_no_file_outside_of_it(given):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = ["ours/a.png", "../private.png", str(given.parent / "private.png")]
    parquet.write_table(pyarrow.table({"image": names, "label": [1, 2, 3]}), given / "train.parquet")
    found = gracl.from_huggingface(given)
    assert [record.path.name for record in found.train] == ["a.png"]
    assert [problem.reason.split("; ")[0] for problem in found.problems] == [
        f"train.parquet, row {row}: '{names[row]}' leads out of {given}" for row in (1, 2)
    ]
