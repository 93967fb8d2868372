"""Who is who, as tables: written for other programs, and read back from them.

    .csv     path, identity, confirmed_by, confirmed_at, and x y w h where there are boxes; `gracl
             train` and `gracl evaluate` read it as data of known identities
    .csv     image_id, cluster, as AnimalCLEF takes it; the id is the file's name without its ending
    .json    COCO: each image's box with `identity`, `confirmed_by` and `confirmed_at`

A cluster without a name is called `cluster-12`. Images of no cluster have no identity.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from gracl.clustering import outliers_as_singletons
from gracl.data.records import Box, Record
from gracl.errors import DataError, ReviewError
from gracl.files import write as write_file
from gracl.links import OUTLIER, number_by_first
from gracl.review.carrying import image_of
from gracl.review.ledger import Decision

if TYPE_CHECKING:
    from gracl.review.review import Form, Review

HEAD = ("path", "identity", "confirmed_by", "confirmed_at")
SIDES = ("x", "y", "w", "h")
EXIF_ORIENTATION = 0x0112
SIDEWAYS = {5, 6, 7, 8}
"""Orientations whose upright picture is as wide as the stored one is high."""
Key = tuple[str, Box | None]


def write(review: Review, path: str | Path, *, form: Form = "auto") -> Path:
    """Writes who is who, in one step; gives the path.

    Args:
        review: as it stands.
        path: a file; one that gracl did not write so is not overwritten.
        form: "table", "animalclef" or "coco"; "auto" is COCO for .json and else the table.

    Raises:
        ReviewError: the file is something else, or images share the name that AnimalCLEF knows them by.
    """
    path = Path(path).expanduser()
    if form == "auto":
        form = "coco" if path.suffix.lower() == ".json" else "table"
    content = {"table": _table, "animalclef": _animalclef, "coco": _coco}[form](review)
    if path.exists() and not _is_own(path):
        raise ReviewError(f"{path} exists and is no table of a review, so it stays. Give another name")
    write_file(path, content.encode())
    return path


def read(review: Review, path: str | Path, *, overrule: bool = False) -> Decision:
    """Takes over who is who from a file of any of these forms; one decision, which `undo` takes back.

    Images that the file leaves without identity, or does not name, stay as they are.

    Args:
        review: to be changed.
        path: the file.
        overrule: also where what was said before speaks against it.

    Raises:
        ReviewError: it is none of these forms, names no image of the run, or contradicts what was said.
    """
    path = Path(path).expanduser()
    place = _Places(review)
    try:
        text = path.read_text(encoding="utf-8-sig")
        pairs = list(_from_coco(text) if path.suffix.lower() == ".json" else _from_table(text, place))
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, csv.Error) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ReviewError(
            f"{path} cannot be read as who is who: {words}. Expected a CSV with path and identity, or "
            "with image_id and cluster, or COCO with an identity in each annotation"
        ) from error
    found: dict[int, str] = {}
    elsewhere = 0
    for key, identity in pairs:
        row = place.find(key)
        if row is None:
            elsewhere += 1
        elif identity and found.setdefault(row, identity) != identity:
            raise ReviewError(
                f"{path} calls {key[0]} both {found[row]} and {identity}; an image is of one individual"
            )
    if not found:
        raise ReviewError(
            f"{path} names no image of this run with an identity ({elsewhere} of other images). Paths "
            "are looked for as they are and below the folder of the data"
        )
    text = f"read {len(found)} images from {path.name}"
    if elsewhere:
        text += f" ({elsewhere} of other images left out)"
    return review.assign(found, text=text, overrule=overrule)


# -- written --------------------------------------------------------------------------------------


def _identities(review: Review) -> list[str]:
    names = review.names
    return [
        "" if number == OUTLIER else names.get(number, f"cluster-{number}")
        for number in review.labels.tolist()
    ]


def _rows(review: Review) -> Iterator[tuple[Record, str, str, str]]:
    """Record, identity, confirmed by and at of each image."""
    confirmed = review.confirmed()
    for row, (record, identity) in enumerate(
        zip(review.study.records, _identities(review), strict=True)
    ):
        said = confirmed.get(row)
        yield record, identity, said.by if said else "", said.time if said else ""


def _table(review: Review) -> str:
    boxes = any(record.box is not None for record in review.study.records)
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow([*HEAD, *(SIDES if boxes else ())])
    for record, *said in _rows(review):
        sides = (record.box or [""] * 4) if boxes else ()
        table.writerow([record.path.absolute(), *said, *sides])
    return text.getvalue()


def _animalclef(review: Review) -> str:
    names = [record.path.stem for record in review.study.records]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ReviewError(
            f"AnimalCLEF names images by their files, and {count} are called '{name}'. Write a table "
            "(--export-as table)"
        )
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["image_id", "cluster"])
    labels = number_by_first(outliers_as_singletons(review.labels))
    table.writerows((name, f"cluster_{label}") for name, label in zip(names, labels, strict=True))
    return text.getvalue()


def _coco(review: Review) -> str:
    pictures: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for record, identity, by, time in _rows(review):
        name, box = image_of(record, review.study.dataset.root)
        if name not in pictures:
            width, height = _size(record.path)
            pictures[name] = {
                "id": len(pictures) + 1,
                "file_name": name,
                "width": width,
                "height": height,
            }
        picture = pictures[name]
        whole = Box(0, 0, picture["width"], picture["height"])
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": picture["id"],
                "category_id": 1,
                "bbox": list(box or whole),
                "iscrowd": 0,
                "identity": identity or None,
                "confirmed_by": by or None,
                "confirmed_at": time or None,
            }
        )
    content = {
        "info": {"description": f"gracl review of {review.study.run.folder.name}"},
        "images": list(pictures.values()),
        "categories": [{"id": 1, "name": "individual"}],
        "annotations": annotations,
    }
    return json.dumps(content, indent=1) + "\n"


def _size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright picture."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            sideways = picture.getexif().get(EXIF_ORIENTATION) in SIDEWAYS
    except OSError as error:
        raise DataError(
            f"{path} cannot be read any more: {error}. Put it back, or write a .csv"
        ) from error
    return (height, width) if sideways else (width, height)


def _is_own(path: Path) -> bool:
    try:
        if path.suffix.lower() == ".json":
            return "gracl review" in json.loads(path.read_text("utf-8"))["info"]["description"]
        with path.open(encoding="utf-8") as lines:
            head = lines.readline()
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return head.startswith((",".join(HEAD), "image_id,cluster"))


# -- read -----------------------------------------------------------------------------------------


class _Places:
    """Finds the run's image that a file names."""

    def __init__(self, review: Review) -> None:
        records, self.root = review.study.records, review.study.dataset.root
        self.rows = {(r.path.absolute(), r.box): row for row, r in enumerate(records)}
        paths = Counter(r.path.absolute() for r in records)
        self.alone = {
            r.path.absolute(): row for row, r in enumerate(records) if paths[r.path.absolute()] == 1
        }
        stems = Counter(r.path.stem for r in records)
        self.stems = {r.path.stem: r for r in records if stems[r.path.stem] == 1}

    def find(self, key: Key) -> int | None:
        """Its row; a picture with one crop is meant by its path alone."""
        path = (self.root / key[0]).absolute()
        if (path, key[1]) in self.rows:
            return self.rows[path, key[1]]
        return self.alone.get(path)


def _from_table(text: str, place: _Places) -> Iterable[tuple[Key, str]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    names = set(rows.fieldnames or ())
    if names >= {"image_id", "cluster"}:
        for row in rows:
            record = place.stems.get(row["image_id"])
            yield (str(record.path), record.box) if record else (row["image_id"], None), row["cluster"]
        return
    if not names >= {"path", "identity"}:
        raise ValueError(f"it has the columns {', '.join(sorted(names)) or 'none'}")
    for row in rows:
        sides = [row.get(side) for side in SIDES]
        box = Box(*(int(side or 0) for side in sides)) if all(sides) else None
        yield (row["path"], box), row["identity"] or ""


def _from_coco(text: str) -> Iterable[tuple[Key, str]]:
    content = json.loads(text)
    pictures = {picture["id"]: picture["file_name"] for picture in content["images"]}
    for annotation in content["annotations"]:
        x, y, width, height = (round(float(side)) for side in annotation["bbox"])
        identity = annotation.get("identity")
        yield (pictures[annotation["image_id"]], Box(x, y, width, height)), str(identity or "")
