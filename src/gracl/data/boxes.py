"""Boxes in JSON files, as annotation tools, trackers and detectors write them: each becomes a crop.

What is no crop by intent (another category, a low confidence, a crowd, a label of a whole image) is
counted in the notes; what should be one and cannot (a missing file, a box without area) is a problem.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from gracl.data.parts import Parts, existing
from gracl.data.records import Box, Dataset, Problem, Record
from gracl.data.tables import Tally, as_day, as_identity, as_text, four_numbers, pixel_box
from gracl.errors import DataError, did_you_mean
from gracl.paths import is_folder, leads_out, named

IDENTITY_FIELDS = ("identity", "individual_id", "individual")
"""Where the identity is looked for, in an annotation or in its `attributes`; the first found counts."""
UNREAD = {"segmentation", "keypoints", "classifications", "caption"}
"""Fields that are dropped while a file is parsed: they are most of it."""
RELATIVE = (1, 1)
"""The size that boxes are drawn on where they are relative to it."""

Entry = dict[str, Any]


class Header(NamedTuple):
    """What an image's header says: its size as stored, and how EXIF turns it (1 to 8)."""

    width: int
    height: int
    orientation: int


@dataclass(slots=True)
class _Picture:
    """An image file, what is known of it, and the boxes that are wanted of it."""

    path: Path
    camera: str | None
    date: str | None
    sequence: str | None
    size: tuple[float, float] | None
    """(width, height) that the boxes were drawn on; None is the file's own."""
    boxes: list[_Wanted] = field(default_factory=list)


class _Wanted(NamedTuple):
    place: str
    bbox: object
    identity: str | None = None
    track: str | None = None


def read_boxes(file: str | Path) -> Dataset:
    """Reads a JSON file as COCO or as MegaDetector's, whichever it is.

    Raises:
        DataError: it is neither; see `read_coco` and `read_megadetector` for the rest.
    """
    path, data = _load(file)
    if "annotations" in data:
        return _coco(path, data)
    if "detection_categories" in data:
        return _megadetector(path, data)
    raise DataError(
        f"{path} has the fields {sorted(data)}; expected those of COCO (images, annotations, "
        "categories) or of MegaDetector (images, detection_categories)"
    )


def read_coco(
    file: str | Path,
    images: str | Path | None = None,
    category: str | int | None = None,
    *,
    identity: str | None = None,
) -> Dataset:
    """Annotated boxes in COCO's format, or in COCO Camera Traps': each becomes a crop for training.

    Boxes are x, y, width, height in pixels of the image that was annotated. Images that were resized
    since are recognised by the size that the file gives, and so are boxes drawn on an image that EXIF
    turns; boxes are cut at the border.

    An identity is an annotation's `identity`, `individual_id` or `individual`, there or in its
    `attributes`. A `track_id` is no identity but a sequence: trackers lose and rename. The category
    only filters, unless `identity="category"` says that each category is an individual. Of the
    image come the camera (`location`), the date (`datetime` or `date_captured`) and the sequence
    (`seq_id` or `video_id`, joined with the track).

    Args:
        file: the JSON file.
        images: the folder that its file names are relative to; None is the file's own folder.
        category: only boxes of this one, by name or number; None is all.
        identity: the field of an annotation that is the identity, "category" for its category.

    Raises:
        DataError: not a COCO file, no such category or field, or no crop at all.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (40, 30)).save(f"{folder}/a.png")
    ...     file = Path(folder, "boxes.json")
    ...     annotation = {"id": 1, "image_id": 7, "category_id": 2, "bbox": [10, 5, 20, 30]}
    ...     _ = file.write_text(json.dumps({
    ...         "images": [{"id": 7, "file_name": "a.png", "location": "ridge"}],
    ...         "categories": [{"id": 2, "name": "lynx"}],
    ...         "annotations": [annotation | {"attributes": {"individual_id": "Tara"}}],
    ...     }))
    ...     (record,) = read_coco(file, category="lynx").train
    >>> record.identity, record.camera, record.box
    ('Tara', 'ridge', Box(x=10, y=5, width=20, height=25))
    """
    return _coco(*_load(file), images, category, identity)


def read_megadetector(
    file: str | Path,
    images: str | Path | None = None,
    category: str | int | None = "animal",
    confidence: float = 0.2,
) -> Dataset:
    """Boxes that MegaDetector found, format version 1: each becomes a crop for training.

    Its boxes are relative to the upright image, so each image's header is read for its size. Nothing
    is known of identities. `location`, `datetime` and `seq_id` of an image are read where a tool
    has added them.

    Args:
        file: the JSON file.
        images: the folder that its file names are relative to; None is the file's own folder.
        category: only boxes of this one, by name or number; None is all.
        confidence: the lowest that is taken, in [0, 1].

    Raises:
        DataError: not such a file or version, no such category, or no crop at all.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (40, 30)).save(f"{folder}/a.png")
    ...     file = Path(folder, "found.json")
    ...     found = {"category": "1", "conf": 0.93, "bbox": [0.25, 0.5, 0.5, 0.5]}
    ...     _ = file.write_text(json.dumps({
    ...         "info": {"format_version": "1.4"},
    ...         "detection_categories": {"1": "animal", "2": "person"},
    ...         "images": [{"file": "a.png", "detections": [found]}],
    ...     }))
    ...     (record,) = read_megadetector(file).train
    >>> record.box
    Box(x=10, y=15, width=20, height=15)
    """
    return _megadetector(*_load(file), images, category, confidence)


# -- COCO -----------------------------------------------------------------------------------------


def _coco(
    file: Path,
    data: Entry,
    images: str | Path | None = None,
    category: str | int | None = None,
    identity: str | None = None,
) -> Dataset:
    if "detection_categories" in data:
        raise DataError(f"{file} is of MegaDetector, not COCO; read it with read_megadetector")
    parts, tally = Parts(), Tally()
    folder = _folder(file, images)
    pictures: dict[str | None, _Picture] = {}
    for entry in _entries(file, data, "images"):
        key = as_text(entry.get("id"))
        if key is None or key in pictures:
            raise DataError(f"{file}: the image id {key} is missing or there twice")
        size = entry.get("width"), entry.get("height")
        known = all(isinstance(side, int | float) and side > 0 for side in size)
        picture = _picture(entry, "file_name", folder, size if known else None, tally)
        if picture is None:
            parts.problems.append(Problem(file, f"image {key} has no file_name"))
        else:
            pictures[key] = picture
    names = {as_text(c.get("id")): as_text(c.get("name")) for c in _entries(file, data, "categories")}
    wanted = _wanted(file, names, category)
    annotations = _entries(file, data, "annotations")
    if identity is not None and identity != "category":
        fields = {name for a in annotations for name in (*a, *_attributes(a))}
        if identity not in fields:
            raise DataError(f"{file}: no annotation has '{identity}'; {did_you_mean(identity, fields)}")
    for number, entry in enumerate(annotations):
        place = f"annotation {entry.get('id', number)}"
        picture = pictures.get(as_text(entry.get("image_id")))
        kind = as_text(entry.get("category_id"))
        if picture is None:
            reason = f"{place} is of image {entry.get('image_id')}, which the file does not list"
            parts.problems.append(Problem(file, reason))
        elif category is not None and kind not in wanted:
            tally.add("boxes of other categories are left out", str(names.get(kind, kind)))
        elif entry.get("iscrowd"):
            tally.add("crowds are left out", place)
        elif not entry.get("bbox"):
            tally.add("annotations without a box, of whole images, are left out", place)
        else:
            who = names.get(kind) if identity == "category" else _identity(entry, identity, tally)
            track = as_text(_attributes(entry).get("track_id", entry.get("track_id")))
            picture.boxes.append(_Wanted(place, entry["bbox"], as_identity(who, tally), track))
    annotations.clear()  # what is needed of them is kept; the rest is most of the memory
    return _dataset(file, folder, "coco", pictures.values(), parts, tally)


def _identity(entry: Entry, given: str | None, tally: Tally) -> str | None:
    for name in (given,) if given is not None else IDENTITY_FIELDS:
        for place in (entry, _attributes(entry)):
            text = as_text(place.get(name))
            if text is not None:
                tally.add(f"the identity is an annotation's '{name}'", text)
                return text
    return None


def _attributes(entry: Entry) -> Entry:
    found = entry.get("attributes")
    return found if isinstance(found, dict) else {}


# -- MegaDetector ---------------------------------------------------------------------------------


def _megadetector(
    file: Path,
    data: Entry,
    images: str | Path | None = None,
    category: str | int | None = "animal",
    confidence: float = 0.2,
) -> Dataset:
    if not 0 <= confidence <= 1:
        raise DataError(f"the confidence is {confidence}; expected a number in [0, 1]")
    if "annotations" in data:
        raise DataError(f"{file} is COCO, not of MegaDetector; read it with read_coco")
    parts, tally = Parts(), Tally()
    _check_version(file, data, parts)
    names = data.get("detection_categories")
    if not isinstance(names, dict):
        raise DataError(f"{file} has the fields {sorted(data)}; 'detection_categories' is missing")
    wanted = _wanted(file, names, category)
    folder = _folder(file, images)
    pictures = []
    for number, entry in enumerate(_entries(file, data, "images")):
        picture = _picture(entry, "file", folder, RELATIVE, tally)
        if picture is None:
            parts.problems.append(Problem(file, f"image {number} has no 'file'"))
        elif entry.get("failure") or entry.get("detections") is None:
            reason = f"the detector failed: {entry.get('failure') or 'no reason is given'}"
            parts.problems.append(Problem(picture.path, reason))
        elif entry.get("frame_rate"):
            reason = "a video; save its frames as images and run the detector on them"
            parts.problems.append(Problem(picture.path, reason))
        else:
            pictures.append(picture)
            for place, found in enumerate(_entries(file, entry, "detections")):
                sure = found.get("conf")
                if not isinstance(sure, int | float):
                    reason = f"detection {place} has the confidence {sure}; expected a number"
                    parts.problems.append(Problem(picture.path, reason))
                elif (kind := as_text(found.get("category"))) not in wanted:
                    tally.add("boxes of other categories are left out", str(names.get(kind, kind)))
                elif not sure >= confidence:
                    tally.add(f"boxes below the confidence {confidence} are left out", str(sure))
                else:
                    picture.boxes.append(_Wanted(f"detection {place}", found.get("bbox")))
    data.clear()  # what is needed of it is kept; the rest is most of the memory
    return _dataset(file, folder, "megadetector", pictures, parts, tally)


def _check_version(file: Path, data: Entry, parts: Parts) -> None:
    info = data.get("info")
    version = as_text(info.get("format_version")) if isinstance(info, dict) else None
    if version is None:
        parts.notes.append("the file gives no format_version; read as version 1")
    elif version.split(".")[0] != "1":
        raise DataError(
            f"{file} has the format_version {version}; versions 1.x are read. Write it again by a "
            "MegaDetector that writes them, or convert it to COCO"
        )


# -- what both share ------------------------------------------------------------------------------


def _load(file: str | Path) -> tuple[Path, Entry]:
    path = existing(Path(file).expanduser())
    if is_folder(path):
        raise DataError(f"{path} is a folder; expected a JSON file. Give the file within it")
    try:
        with path.open(encoding="utf-8-sig") as text:
            data = json.load(text, object_pairs_hook=_slim)
    except (OSError, ValueError, RecursionError) as error:  # ValueError: also numbers of 5,000 digits
        raise DataError(f"{path} cannot be read as JSON in UTF-8: {error}") from error
    if not isinstance(data, dict):
        raise DataError(
            f"{path} holds a {type(data).__name__} at its top; expected an object with 'images'. "
            "A bare list is results without the images' names or sizes; save it as COCO"
        )
    return path, data


def _slim(pairs: list[tuple[str, Any]]) -> Entry:
    return {name: value for name, value in pairs if name not in UNREAD}


def _entries(file: Path, data: Entry, name: str) -> list[Entry]:
    """A list of objects; one that is missing is an error, one that is null is empty."""
    if name not in data:
        raise DataError(f"{file}: '{name}' is missing; found {sorted(data)}")
    found = data[name] or []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise DataError(f"{file}: '{name}' is a {type(found).__name__}; expected a list of objects")
    return found


def _folder(file: Path, images: str | Path | None) -> Path:
    return file.parent if images is None else existing(Path(images).expanduser())


def _wanted(file: Path, names: Mapping[Any, Any], category: str | int | None) -> set[str | None]:
    """The numbers of all categories that are called so, or the one that has the number."""
    if category is None:
        return set(names)
    asked = str(category)
    found = {number for number, name in names.items() if name == asked}
    if not found and asked in names:
        found = {asked}
    if not found:
        known = did_you_mean(asked, (str(name) for name in names.values()))
        raise DataError(f"{file} has no category '{asked}'; {known}. Or give its number, or None")
    return found


def _picture(entry: Entry, key: str, folder: Path, size: Any, tally: Tally) -> _Picture | None:
    name = as_text(entry.get(key))
    if name is None:
        return None
    path = named(folder, name)
    if leads_out(folder, path):  # a file that came with the images could name any of yours
        raise DataError(f"'{name}' leads out of {folder}. If that is meant, say images=FOLDER above it")
    return _Picture(
        path,
        camera=as_text(entry.get("location")),
        date=as_day(entry.get("datetime") or entry.get("date_captured"), tally),
        sequence=as_text(entry.get("seq_id")) or as_text(entry.get("video_id")),
        size=size,
    )


def _dataset(
    file: Path,
    folder: Path,
    layout: str,
    pictures: Iterable[_Picture],
    parts: Parts,
    tally: Tally,
) -> Dataset:
    """Cuts all boxes; headers are read several at once, as disks answer late."""
    needed = [picture for picture in pictures if picture.boxes]
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(needed), 1024):  # in slices, as each that waits takes memory
            some = needed[start : start + 1024]
            headers = pool.map(read_header, (picture.path for picture in some))
            for picture, header in zip(some, headers, strict=True):
                _cut(picture, header, parts, tally)
    parts.notes += tally.notes()
    if not parts.train:
        why = [f"First problem: {p.path}: {p.reason}." for p in parts.problems[:1]] + parts.notes
        raise DataError(f"{file} (read as {layout}) gives no crop. {'; '.join(why)}".rstrip())
    return parts.dataset(file.stem, folder, layout)


def _cut(picture: _Picture, header: Header | str, parts: Parts, tally: Tally) -> None:
    """Adds a record for each box of an image."""
    if isinstance(header, str):
        reason = f"{header}; {len(picture.boxes)} of its boxes are lost"
        parts.problems.append(Problem(picture.path, reason))
        return
    for wanted in picture.boxes:
        try:
            box = _crop(wanted.bbox, picture.size, header, tally, picture.path.name)
        except (ValueError, TypeError, OverflowError) as error:
            parts.problems.append(Problem(picture.path, f"{wanted.place}: {error}"))
            continue
        sequence = "/".join(s for s in (picture.sequence, wanted.track) if s is not None) or None
        facts = wanted.identity, picture.camera, picture.date, sequence
        parts.add("train", Record(picture.path, *facts, box))


def read_header(path: Path) -> Header | str:
    """Size and orientation of an image file, or in words why there is none.

    Nothing is decoded but a PNG without EXIF in its header: there it may follow the pixels.
    """
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(0x0112, 1)
            turned = orientation if orientation in range(2, 9) else 1
            return Header(image.width, image.height, turned)
    except FileNotFoundError:
        return "a file that does not exist; say where the images lie: images=FOLDER"
    except Exception as error:  # for broken headers, Pillow's readers raise what they like
        return f"{type(error).__name__}: {error}"


def _crop(
    bbox: object, size: tuple[float, float] | None, header: Header, tally: Tally, name: str
) -> Box:
    """A box as whole pixels of the upright image, cut at its border.

    Raises:
        ValueError, TypeError, OverflowError: what is wrong with it, in words.
    """
    numbers = four_numbers(bbox)
    if numbers is None or not all(map(math.isfinite, numbers)):
        raise ValueError(f"a bbox is four numbers x, y, w, h; found {bbox}")
    x, y, w, h = numbers
    if w <= 0 or h <= 0:
        raise ValueError(f"a box of {w:g} x {h:g} has no area")
    if size != RELATIVE and max(numbers) <= 1:
        raise ValueError(f"the box {bbox} looks relative to the image's size; expected pixels")
    stored = (header.width, header.height)
    upright = stored[::-1] if header.orientation >= 5 else stored
    turned = False
    if size is not None and size != RELATIVE and not _same_picture(size, upright):
        turned = header.orientation >= 5 and _same_picture(size, stored)
        if not turned:
            raise ValueError(
                f"drawn on an image of {size[0]:g} x {size[1]:g} pixels, but the file has "
                f"{upright[0]} x {upright[1]}: another image, or turned since"
            )
    if size is not None:
        drawn_on = stored if turned else upright
        if size not in (drawn_on, RELATIVE):
            tally.add("boxes were drawn on images of another size and are scaled", name)
        across, down = drawn_on[0] / size[0], drawn_on[1] / size[1]
        x, y, w, h = x * across, y * down, w * across, h * down
    if turned:
        tally.add("boxes were drawn on images as stored and are turned as EXIF says", name)
        x, y, w, h = _turn((x, y, w, h), header)
    left, top, right, bottom = max(0.0, x), max(0.0, y), min(upright[0], x + w), min(upright[1], y + h)
    if left >= right or top >= bottom:
        raise ValueError(f"the box {bbox} lies outside the image of {upright[0]} x {upright[1]}")
    if max(left - x, top - y, x + w - right, y + h - bottom) > 1:
        tally.add("boxes reach beyond the border and are cut there", name)
    left, top, right, bottom = map(round, (left, top, right, bottom))
    return pixel_box((left, top, right - left, bottom - top))


def _same_picture(a: tuple[float, float], b: tuple[int, int]) -> bool:
    """Whether one size is the other, resized: the factors agree but for rounding to whole pixels."""
    return abs(b[0] / a[0] - b[1] / a[1]) <= 1 / a[0] + 1 / a[1]


def _turn(box: tuple[float, float, float, float], header: Header) -> tuple[float, float, float, float]:
    """A box on the image as stored, on the image that EXIF turns by a quarter (5 to 8)."""
    x, y, w, h = box
    far_x, far_y = header.width - x - w, header.height - y - h
    return {5: (y, x), 6: (far_y, x), 7: (far_y, far_x), 8: (y, far_x)}[header.orientation] + (h, w)
