"""Who is who, as tables: written for other programs, and read back from them.

    .csv     path, identity, confirmed_by, confirmed_at; camera, date, sequence and a box's x y w h
             where any image has them; all of gracl reads it as data of known identities
    .csv     image_id, cluster, as AnimalCLEF takes it; the id is the file's name without its ending
    .json    COCO: each image's box with `identity`, `confirmed_by`, `confirmed_at` and `track_id`,
             each image with `location` and `date_captured`, as COCO Camera Traps calls them

A cluster without a name is called `cluster-12`. Images of no cluster have no identity.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from gracl.clustering import outliers_as_singletons
from gracl.data.records import Box, Record
from gracl.errors import DataError, ReviewError
from gracl.files import write as write_file
from gracl.links import OUTLIER, Labels, number_by_first
from gracl.review.carrying import image_of
from gracl.review.ledger import Confirmed
from gracl.study import Study

Form = Literal["auto", "table", "animalclef", "coco"]
HEAD = ("path", "identity", "confirmed_by", "confirmed_at")
FACTS = ("camera", "date", "sequence")
SIDES = ("x", "y", "w", "h")
EXIF_ORIENTATION = 0x0112
SIDEWAYS = {5, 6, 7, 8}
"""Orientations whose upright picture is as wide as the stored one is high."""
Key = tuple[str, Box | None]
DAMAGE = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, csv.Error)
"""What readers raise at a file that is broken, or that is another's."""


@dataclass(frozen=True)
class Found:
    """Who is who in a file."""

    identities: dict[int, str]
    """By row of the run's images."""
    text: str
    """What was read, in words."""


@dataclass(frozen=True)
class _Row:
    record: Record
    identity: str
    by: str
    time: str


def write(
    study: Study,
    path: str | Path,
    *,
    labels: Labels,
    names: Mapping[int, str],
    confirmed: Mapping[int, Confirmed],
    form: Form = "auto",
    only_confirmed: bool = False,
) -> Path:
    """Writes who is who, in one step; gives the path.

    Args:
        study: the run.
        labels: (N,) clusters of its images.
        names: of clusters.
        confirmed: by row, of images that a person spoke of.
        path: a file; one that gracl did not write so is not overwritten.
        form: "table", "animalclef" or "coco"; "auto" is COCO for .json and else the table.
        only_confirmed: leave out images that nobody spoke of; AnimalCLEF takes them all.

    Raises:
        ReviewError: the file is something else, images share the name that AnimalCLEF knows them by,
            or no image is left.
    """
    path = Path(path).expanduser()
    if form == "auto":
        form = "coco" if path.suffix.lower() == ".json" else "table"
    rows = list(_rows(study, labels, names, confirmed))
    if only_confirmed:
        if form == "animalclef":
            raise ReviewError("AnimalCLEF takes all images, confirmed or not; leave --confirmed out")
        rows = [row for row in rows if row.by]
        if not rows:
            raise ReviewError(
                "nobody has confirmed an image yet; review some, or leave --confirmed out"
            )
    if form == "animalclef":
        content = _animalclef(rows, labels)
    else:
        content = _table(rows) if form == "table" else _coco(rows, study)
    if path.exists() and not _is_own(path):
        raise ReviewError(f"{path} exists and is no table of a review, so it stays. Give another name")
    write_file(path, content.encode())
    return path


def read(study: Study, path: str | Path) -> Found:
    """Reads who is who from a file of any of these forms.

    Args:
        study: the run whose images it names.
        path: the file.

    Raises:
        ReviewError: it is none of these forms, names no image of the run, or one twice.
    """
    path = Path(path).expanduser()
    place = _Places(study)
    try:
        text = path.read_text(encoding="utf-8-sig")
        pairs = list(_from_coco(text) if path.suffix.lower() == ".json" else _from_table(text, place))
    except DAMAGE as error:
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
    return Found(found, text)


# -- written --------------------------------------------------------------------------------------


def _rows(
    study: Study, labels: Labels, names: Mapping[int, str], confirmed: Mapping[int, Confirmed]
) -> Iterator[_Row]:
    for row, (record, number) in enumerate(zip(study.records, labels.tolist(), strict=True)):
        identity = "" if number == OUTLIER else names.get(number, f"cluster-{number}")
        said = confirmed.get(row, Confirmed("", ""))
        yield _Row(record, identity, said.by, said.time)


def _table(rows: Sequence[_Row]) -> str:
    facts = [fact for fact in FACTS if any(getattr(row.record, fact) is not None for row in rows)]
    boxes = any(row.record.box is not None for row in rows)
    lines: list[Sequence[object]] = [[*HEAD, *facts, *(SIDES if boxes else ())]]
    for row in rows:
        told = (getattr(row.record, fact) or "" for fact in facts)
        sides = (row.record.box or [""] * 4) if boxes else ()
        lines.append([row.record.path.absolute(), row.identity, row.by, row.time, *told, *sides])
    return _as_csv(lines)


def _animalclef(rows: Sequence[_Row], labels: Labels) -> str:
    ids = [row.record.path.stem for row in rows]
    name, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise ReviewError(
            f"AnimalCLEF names images by their files, and {count} are called '{name}'. Write a table "
            "(--export-as table)"
        )
    clusters = number_by_first(outliers_as_singletons(labels))
    named = ((id, f"cluster_{cluster}") for id, cluster in zip(ids, clusters, strict=True))
    return _as_csv([("image_id", "cluster"), *named])


def _coco(rows: Sequence[_Row], study: Study) -> str:
    pictures: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for row in rows:
        name, box = image_of(row.record, study.dataset.root)
        if name not in pictures:
            width, height = _size(row.record.path)
            number = len(pictures) + 1
            facts = {"location": row.record.camera, "date_captured": row.record.date}
            known = {fact: told for fact, told in facts.items() if told is not None}
            size = {"width": width, "height": height}
            pictures[name] = {"id": number, "file_name": name, **size, **known}
        picture = pictures[name]
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": picture["id"],
                "category_id": 1,
                "bbox": list(box or (0, 0, picture["width"], picture["height"])),
                "iscrowd": 0,
                "identity": row.identity or None,
                "confirmed_by": row.by or None,
                "confirmed_at": row.time or None,
                **({"track_id": row.record.sequence} if row.record.sequence is not None else {}),
            }
        )
    content = {
        "info": {"description": f"gracl review of {study.run.folder.name}"},
        "images": list(pictures.values()),
        "categories": [{"id": 1, "name": "individual"}],
        "annotations": annotations,
    }
    return json.dumps(content, indent=1) + "\n"


def _as_csv(lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(lines)
    return text.getvalue()


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

    def __init__(self, study: Study) -> None:
        records, self.root = study.records, study.dataset.root
        self.rows = {(r.path.absolute(), r.box): row for row, r in enumerate(records)}
        paths = Counter(r.path.absolute() for r in records)
        self.alone = {
            r.path.absolute(): row for row, r in enumerate(records) if paths[r.path.absolute()] == 1
        }
        stems = Counter(r.path.stem for r in records)
        self.stems = {r.path.stem: r for r in records if stems[r.path.stem] == 1}

    def find(self, key: Key) -> int | None:
        """Its row; a picture with one crop is meant by its path alone."""
        for path in ((self.root / key[0]).absolute(), Path(key[0]).absolute()):
            row = self.rows.get((path, key[1]), self.alone.get(path))
            if row is not None:
                return row
        return None


def _from_table(text: str, place: _Places) -> Iterable[tuple[Key, str]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    names = set(rows.fieldnames or ())
    if names >= {"image_id", "cluster"}:
        for row in rows:
            record = place.stems.get(_whole(row["image_id"], rows.line_num))
            yield (str(record.path), record.box) if record else (row["image_id"], None), row["cluster"]
        return
    if not names >= {"path", "identity"}:
        raise ValueError(f"it has the columns {', '.join(sorted(names)) or 'none'}")
    for row in rows:
        sides = [row.get(side) for side in SIDES]
        box = Box(*(int(side or 0) for side in sides)) if all(sides) else None
        yield (_whole(row["path"], rows.line_num), box), row["identity"] or ""


def _whole(cell: str | None, line: int) -> str:
    """A cell that a short line may lack."""
    if cell is None:
        raise ValueError(f"line {line} has too few cells")
    return cell


def _from_coco(text: str) -> Iterable[tuple[Key, str]]:
    content = json.loads(text)
    pictures = {picture["id"]: picture["file_name"] for picture in content["images"]}
    strange = next((name for name in pictures.values() if not isinstance(name, str)), None)
    if strange is not None:
        raise ValueError(f"a file_name is {strange!r}")
    for annotation in content["annotations"]:
        x, y, width, height = (round(float(side)) for side in annotation["bbox"])
        identity = annotation.get("identity")
        yield (pictures[annotation["image_id"]], Box(x, y, width, height)), str(identity or "")
