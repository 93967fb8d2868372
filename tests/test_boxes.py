"""Boxes of COCO and MegaDetector on drawn images, and all that such files get wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from gracl.data.boxes import Header, read_boxes, read_coco, read_header, read_megadetector
from gracl.data.records import Box, Dataset, Record
from gracl.data.store import decode
from gracl.errors import DataError

ORIENTATION = 0x0112
W, H = 60, 40
"""Of the images as stored."""
RED = (220, 20, 20)
SPOT = (10, 5, 20, 12)
"""x, y, w, h of the red rectangle on the image as stored."""


def draw(path: Path, orientation: int = 1, size: tuple[int, int] = (W, H)) -> Path:
    """A grey image with a red rectangle, and EXIF that turns it."""
    image = Image.new("RGB", (W, H), (90, 90, 90))
    image.paste(RED, (SPOT[0], SPOT[1], SPOT[0] + SPOT[2], SPOT[1] + SPOT[3]))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize(size).save(path, quality=95, exif=exif)
    return path


def spot_upright(path: Path) -> tuple[int, int, int, int]:
    """Where the red rectangle is seen on the upright image, found by its pixels."""
    with Image.open(path) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    rows, columns = np.nonzero(pixels[..., 0] - pixels[..., 1] > 100)
    x, y = int(columns.min()), int(rows.min())
    return x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y


def is_red(record: Record) -> bool:
    pixels = decode(record, (8, 8)).astype(int)
    return bool((pixels[0] - pixels[1] > 80).all())


def write(root: Path, data: object, name: str = "boxes.json") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / name
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def coco(root: Path, *annotations: dict[str, Any], **image: Any) -> Path:
    """A COCO file with the image a.jpg and these annotations of it."""
    base = {"image_id": 1, "category_id": 1, "bbox": list(SPOT)}
    return write(
        root,
        {
            "images": [{"id": 1, "file_name": "a.jpg"} | image],
            "categories": [
                {"id": 0, "name": "empty"},
                {"id": 1, "name": "lynx"},
                {"id": 2, "name": "fox"},
            ],
            "annotations": [{"id": i} | base | a for i, a in enumerate(annotations)],
        },
    )


def detector(root: Path, *detections: dict[str, Any], version: object = "1.4", **image: Any) -> Path:
    """A file of MegaDetector with the image a.jpg and these detections."""
    base = {"category": "1", "conf": 0.9, "bbox": [0.25, 0.25, 0.5, 0.5]}
    return write(
        root,
        {
            "info": {"format_version": version},
            "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"},
            "images": [{"file": "a.jpg", "detections": [base | d for d in detections]} | image],
        },
    )


def reasons(dataset: Dataset) -> list[str]:
    return [problem.reason for problem in dataset.problems]


# -- sizes and turns ------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_relative_boxes_lie_on_the_upright_image(tmp_path: Path, orientation: int) -> None:
    path = draw(tmp_path / "a.jpg", orientation)
    width, height = (H, W) if orientation >= 5 else (W, H)
    x, y, w, h = spot_upright(path)
    bbox = [x / width, y / height, w / width, h / height]
    (record,) = read_megadetector(detector(tmp_path, {"bbox": bbox})).train
    assert record.box == Box(x, y, w, h)
    assert is_red(record)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("sized", [True, False])
def test_pixel_boxes_drawn_on_the_upright_image(tmp_path: Path, orientation: int, sized: bool) -> None:
    path = draw(tmp_path / "a.jpg", orientation)
    width, height = (H, W) if orientation >= 5 else (W, H)
    size = {"width": width, "height": height} if sized else {}
    dataset = read_coco(coco(tmp_path, {"bbox": list(spot_upright(path))}, **size))
    assert is_red(dataset.train[0])
    assert dataset.notes == ()


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_pixel_boxes_drawn_on_the_image_as_stored_are_turned(tmp_path: Path, orientation: int) -> None:
    path = draw(tmp_path / "a.jpg", orientation)
    dataset = read_coco(coco(tmp_path, {}, width=W, height=H))
    assert dataset.train[0].box == Box(*spot_upright(path))
    assert dataset.notes == (
        "boxes were drawn on images as stored and are turned as EXIF says: once, 'a.jpg'",
    )


@pytest.mark.parametrize("orientation", [1, 6])
def test_boxes_are_scaled_with_images_that_were_resized(tmp_path: Path, orientation: int) -> None:
    path = draw(tmp_path / "a.jpg", orientation, size=(W * 2 + 1, H * 2))
    dataset = read_coco(coco(tmp_path, {}, width=W, height=H))
    assert dataset.train[0].box is not None
    assert np.allclose(dataset.train[0].box, spot_upright(path), atol=2)
    assert any("of another size and are scaled: once, 'a.jpg'" in note for note in dataset.notes)


def test_boxes_of_another_image_are_a_problem(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    with pytest.raises(
        DataError, match="drawn on an image of 40 x 60 pixels, but the file has 60 x 40"
    ):
        read_coco(coco(tmp_path, {}, width=H, height=W))


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_orientation_that_does_not_exist_is_upright(tmp_path: Path, orientation: int) -> None:
    assert read_header(draw(tmp_path / "a.jpg", orientation)) == Header(W, H, 1)


def test_headers_are_read_without_decoding(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.jpg", 6)
    path.write_bytes(path.read_bytes()[:-200])  # decoding it would fail
    assert read_header(path) == Header(W, H, 6)


# -- boxes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bbox", "box"),
    [
        ([-5, -5, 20, 20], Box(0, 0, 15, 15)),
        ([50, 30, 100, 100], Box(50, 30, 10, 10)),
        ([-1, -1, 1000, 1000], Box(0, 0, W, H)),
        ([0.4, 0.4, 9.8, 9.8], Box(0, 0, 10, 10)),
    ],
)
def test_boxes_are_cut_at_the_border(tmp_path: Path, bbox: list[float], box: Box) -> None:
    draw(tmp_path / "a.jpg")
    dataset = read_coco(coco(tmp_path, {"bbox": bbox}))
    assert dataset.train[0].box == box
    assert ("boxes reach beyond the border" in "".join(dataset.notes)) == (
        min(bbox) < 0 or bbox[0] == 50
    )


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        ([1, 2, 0, 4], "a box of 0 x 4 has no area"),
        ([1, 2, 5, -4], "a box of 5 x -4 has no area"),
        ([1, 2, 0.2, 5], "a crop box of 0 x 5 pixels is empty"),
        ([100, 2, 5, 5], "lies outside the image of 60 x 40"),
        ([-9, 2, 5, 5], "lies outside the image of 60 x 40"),
        ([1, 2, 3], "a bbox is four numbers x, y, w, h; found [1, 2, 3]"),
        ([1, 2, 3, float("nan")], "a bbox is four numbers"),
        ([1, 2, 3, None], "float() argument"),
        ({"x": 1}, "could not convert string"),
        ([0.1, 0.1, 0.5, 0.5], "looks relative to the image's size; expected pixels"),
    ],
)
def test_box_that_is_none_is_a_problem(tmp_path: Path, bbox: object, reason: str) -> None:
    draw(tmp_path / "a.jpg")
    dataset = read_coco(coco(tmp_path, {"bbox": bbox}, {}))
    assert len(dataset.train) == 1
    assert [p.path for p in dataset.problems] == [tmp_path / "a.jpg"]
    assert reason in dataset.problems[0].reason
    assert dataset.problems[0].reason.startswith("annotation 0: ")


def test_missing_and_broken_images_are_one_problem_each(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    data = json.loads(coco(tmp_path, {}).read_text("utf-8"))
    data["images"] += [
        {"id": 2, "file_name": "gone.jpg"},
        {"id": 3, "file_name": "broken.jpg"},
        {"id": 4},
    ]
    bbox = {"category_id": 1, "bbox": [1, 2, 3, 4]}
    data["annotations"] += [{"image_id": i} | bbox for i in (2, 2, 3, 4, 99)]
    dataset = read_coco(write(tmp_path, data))
    assert len(dataset.train) == 1
    assert [p.path.name for p in dataset.problems] == [
        *["boxes.json"] * 3,
        "gone.jpg",
        "broken.jpg",
    ]
    found = reasons(dataset)
    assert found[0] == "image 4 has no file_name"
    assert found[2] == "annotation 5 is of image 99, which the file does not list"
    assert "does not exist; say where the images lie: images=FOLDER; 2 of its boxes" in found[3]
    assert found[4].startswith("UnidentifiedImageError")


@pytest.mark.parametrize("name", ["x\\" + "y" * 300, "y" * 300, "a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_is_a_problem_of_its_image(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"gives no crop\. First problem: .*1 of its boxes are lost"):
        read_coco(coco(tmp_path, {}, file_name=name))


def test_images_may_lie_elsewhere_and_names_may_be_of_windows(tmp_path: Path) -> None:
    draw(tmp_path / "photos" / "day 1" / "a.jpg")
    file = coco(tmp_path / "notes", {}, file_name="day 1\\a.jpg")
    dataset = read_coco(file, images=tmp_path / "photos")
    assert dataset.train[0].path == tmp_path / "photos/day 1/a.jpg"
    assert dataset.root == tmp_path / "photos"
    with pytest.raises(DataError, match=r"gives no crop. First problem: .*images=FOLDER"):
        read_coco(file)
    with pytest.raises(DataError, match=r"did you mean 'photos'"):
        read_coco(file, images=tmp_path / "photo")


# -- COCO -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["identity", "individual_id", "individual"])
@pytest.mark.parametrize("nested", [True, False])
def test_identity_is_found_in_an_annotation_or_its_attributes(
    tmp_path: Path, field: str, nested: bool
) -> None:
    draw(tmp_path / "a.jpg")
    annotation = {field: 7.0}
    dataset = read_coco(coco(tmp_path, {"attributes": annotation} if nested else annotation))
    assert dataset.train.values("identity") == ["7"]
    assert dataset.notes == (f"the identity is an annotation's '{field}': once, '7'",)


def test_track_is_a_sequence_and_no_identity(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    tracks = {"track_id": 4}, {"attributes": {"track_id": 5}}, {}
    dataset = read_coco(coco(tmp_path, *tracks, video_id="v2"))
    assert dataset.train.values("identity") == [None] * 3
    assert dataset.train.values("sequence") == ["v2/4", "v2/5", "v2"]
    assert read_coco(coco(tmp_path, *tracks)).train.values("sequence") == ["4", "5", None]


def test_identity_can_be_any_field_or_the_category(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    file = coco(tmp_path, {"track_id": 4, "identity": "unknown"}, {"category_id": 2})
    assert read_coco(file).train.values("identity") == [None, None]
    assert read_coco(file, identity="track_id").train.values("identity") == ["4", None]
    assert read_coco(file, identity="category").train.values("identity") == ["lynx", "fox"]
    with pytest.raises(DataError, match="no annotation has 'track'; did you mean 'track_id'"):
        read_coco(file, identity="track")


def test_facts_of_camera_traps(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    facts = {"location": 12, "seq_id": "s1", "datetime": "2024-05-01 10:15:00"}
    (record,) = read_coco(coco(tmp_path, {}, **facts)).train
    assert (record.camera, record.sequence, record.date) == ("12", "s1", "2024-05-01")
    (record,) = read_coco(coco(tmp_path, {}, date_captured="2013-11-14 17:02:52")).train
    assert record.date == "2013-11-14"


def test_what_is_no_crop_by_intent_is_counted(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    without = {"category_id": 0, "bbox": None}, {"bbox": []}
    file = coco(tmp_path, {}, {"iscrowd": 1}, *without, {"category_id": 2})
    dataset = read_coco(file, category="lynx")
    assert len(dataset.train) == 1
    assert dataset.problems == ()
    assert dataset.notes == (
        "crowds are left out: once, 'annotation 1'",
        "boxes of other categories are left out: 2 times, first 'empty'",
        "annotations without a box, of whole images, are left out: once, 'annotation 3'",
    )
    assert len(read_coco(file).train) == 2


@pytest.mark.parametrize("category", ["fox", 2, "2"])
def test_category_by_name_or_number(tmp_path: Path, category: str | int) -> None:
    draw(tmp_path / "a.jpg")
    assert len(read_coco(coco(tmp_path, {}, {"category_id": 2}), category=category).train) == 1


def test_unknown_category_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no category 'linx'; did you mean 'lynx'"):
        read_coco(coco(tmp_path, {}), category="linx")
    with pytest.raises(DataError, match=r"no category 'animals'; did you mean 'animal'.*or None"):
        read_megadetector(detector(tmp_path, {}), category="animals")


def test_numbers_of_images_agree_as_text(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    assert len(read_coco(coco(tmp_path, {"image_id": "1"}, {"image_id": 1.0})).train) == 2


def test_image_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]
    with pytest.raises(DataError, match="the image id 1 is missing or there twice"):
        read_coco(write(tmp_path, {"images": images, "categories": [], "annotations": []}))


# -- MegaDetector ---------------------------------------------------------------------------------


def test_confidence_and_category_are_chosen(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    found = {"conf": 0.9}, {"conf": 0.2}, {"conf": 0.19}, {"category": "2"}, {"category": "8"}
    file = detector(tmp_path, *found)
    assert len(read_megadetector(file).train) == 2
    assert len(read_megadetector(file, confidence=0).train) == 3
    assert len(read_megadetector(file, category=2).train) == 1
    assert len(read_megadetector(file, category=None).train) == 3
    assert read_megadetector(file).notes == (
        "boxes below the confidence 0.2 are left out: once, '0.19'",
        "boxes of other categories are left out: 2 times, first 'person'",
    )
    with pytest.raises(DataError, match=r"the confidence is 20; expected a number in \[0, 1\]"):
        read_megadetector(file, confidence=20)


def test_nothing_found_says_what_was_left_out(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    with pytest.raises(
        DataError, match=r"no crop\. boxes below the confidence 0\.2 are left out: once"
    ):
        read_megadetector(detector(tmp_path, {"conf": 0.1}))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"failure": "Failure image access", "detections": None}, "the detector failed: Failure image"),
        ({"detections": None}, "the detector failed: no reason is given"),
        ({"frame_rate": 20}, "a video; save its frames as images"),
        ({"detections": [{"category": "1", "conf": None}]}, "detection 0 has the confidence None"),
        ({"detections": [{"category": "1", "conf": 1}]}, "detection 0: a bbox is four numbers"),
    ],
)
def test_images_that_the_detector_failed_on(tmp_path: Path, image: dict[str, Any], reason: str) -> None:
    draw(tmp_path / "b.jpg")
    data = json.loads(detector(tmp_path, {}, file="b.jpg").read_text("utf-8"))
    data["images"].append({"file": draw(tmp_path / "a.jpg").name, "detections": []} | image)
    data["images"].append({"detections": []})
    dataset = read_megadetector(write(tmp_path, data))
    assert len(dataset.train) == 1
    assert any(reason in found for found in reasons(dataset))
    assert "image 2 has no 'file'" in reasons(dataset)


@pytest.mark.parametrize("version", ["2.0", 3, "0.9"])
def test_other_versions_are_refused(tmp_path: Path, version: object) -> None:
    with pytest.raises(DataError, match=rf"format_version {version}; versions 1\.x are read"):
        read_megadetector(detector(tmp_path, {}, version=version))


def test_version_that_is_missing_is_said(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    dataset = read_megadetector(detector(tmp_path, {}, version=None))
    assert dataset.notes == ("the file gives no format_version; read as version 1",)


# -- files ----------------------------------------------------------------------------------------


def test_file_is_known_by_its_fields(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    assert read_boxes(coco(tmp_path, {})).layout == "coco"
    assert read_boxes(detector(tmp_path, {})).layout == "megadetector"
    with pytest.raises(DataError, match=r"has the fields \['photos'\]; expected those of COCO"):
        read_boxes(write(tmp_path, {"photos": []}))


def test_reader_of_the_other_format_says_which_to_use(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="read it with read_megadetector"):
        read_coco(detector(tmp_path, {}))
    with pytest.raises(DataError, match="read it with read_coco"):
        read_megadetector(coco(tmp_path, {}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot be read as JSON in UTF-8"),
        (b"\xff\xfe{}", "cannot be read as JSON in UTF-8"),
        (b"[" * 200_000, "cannot be read as JSON in UTF-8"),
        (b"[]", "holds a list at its top; expected an object with 'images'"),
        (b'{"images": [], "categories": []}', "'annotations' is missing; found"),
        (b'{"images": {}, "annotations": [], "categories": []}', "gives no crop"),
        (b'{"images": {"a": 1}, "annotations": []}', "'images' is a dict; expected a list of objects"),
        (b'{"images": [1], "annotations": []}', "'images' is a list; expected a list of objects"),
    ],
)
def test_file_that_is_no_coco_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_coco(tmp_path / "a.json")


def test_megadetector_without_categories_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'detection_categories' is missing"):
        read_megadetector(write(tmp_path, {"images": []}))


def test_folder_and_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; expected a JSON file"):
        read_coco(tmp_path)
    coco(tmp_path, {})
    with pytest.raises(DataError, match=r"did you mean 'boxes.json'"):
        read_coco(tmp_path / "box.json")


def test_polygons_are_not_kept_and_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    file = coco(tmp_path, {"segmentation": [[1, 2] * 50]})
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read_coco(file).train) == 1
    with pytest.raises(DataError, match="no annotation has 'segmentation'"):
        read_coco(file, identity="segmentation")


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000])
def test_json_that_python_cannot_hold_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "a.json").write_text(f'{{"images": {value}}}')
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_boxes(tmp_path / "a.json")


def test_a_category_that_is_a_list_is_one_that_is_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    found = [{"category": kind, "conf": 0.9, "bbox": [0, 0, 1, 1]} for kind in ("1", [1], {"a": 1})]
    file = tmp_path / "found.json"
    images = [{"file": "a.png", "detections": found}]
    file.write_text(json.dumps({"detection_categories": {"1": "animal"}, "images": images}))
    dataset = read_megadetector(file)
    assert len(dataset.train) == 1
    assert any("other categories are left out: 2 times" in note for note in dataset.notes)
