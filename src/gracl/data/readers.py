"""From what lies on disk to a `Dataset`: Market-1501's layout, a CSV, or any folder of images.

Nothing is ever written into a user's folder, and identities are always text.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gracl.data.records import Box, Dataset, Problem, Record, Records
from gracl.errors import DataError, did_you_mean

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"}
TABLE = "metadata.csv"
COLUMNS = ("path", "identity", "camera", "split", "date", "sequence", "x", "y", "w", "h")
SPLITS = ("train", "query", "gallery", "test")
MARKET_FOLDERS = {
    "train": "bounding_box_train",
    "query": "query",
    "gallery": "bounding_box_test",
}
MARKET_NAME = re.compile(r"^(-?\d+)_c(\d+)")
"""Identity and camera, matched at the start of the file *name*: a parent folder such as run3_c2
must not become an identity."""


def load_dataset(name: str | Path, root: str | Path | None = None) -> Dataset:
    """Reads a data set.

    Args:
        name: a folder, a CSV file, or the name of a layout ("market1501", "csv", "folder").
        root: where a named layout lies; any wrapper folder around it is looked through.

    Three layouts are recognised, in this order:

    * **market1501**: `bounding_box_train`, `query` and `bounding_box_test`; identity and camera
      from names such as `0002_c1s1_000451_03.jpg`. Identity -1 is left out, 0 is a distractor.
    * **csv**: a file (or a folder with `metadata.csv`) with the column `path`, relative to the
      file, and optionally identity, camera, split (train, query, gallery or test), date, sequence,
      and a crop box x, y, w, h in pixels. Further columns are left alone.
    * **folder**: any tree of images. Folders named train, query, gallery or test at its top are
      splits; within, images that lie in folders take the nearest folder's name as identity.

    Images of the split `test` are query and gallery at once: each searches all others.

    Raises:
        DataError: nothing there, no image, an unknown column or split.
    """
    if root is None and (str(name) not in READERS or Path(name).exists()):
        return _recognise(Path(name).expanduser())
    if str(name) not in READERS:
        raise DataError(f"no layout is called '{name}': {did_you_mean(str(name), READERS)}")
    if root is None:
        raise DataError(f"layout '{name}' needs to know where it lies: give root=FOLDER")
    return READERS[str(name)](_existing(Path(root).expanduser()))


def _recognise(path: Path) -> Dataset:
    path = _existing(path)
    if path.is_file():
        if path.suffix.lower() == ".csv":
            return read_csv(path)
        raise DataError(f"{path} is a file; expected a folder of images or a .csv table")
    if _market_root(path) is not None:
        return read_market(path)
    if (path / TABLE).is_file():
        return read_csv(path)
    return read_folder(path)


def read_market(root: Path) -> Dataset:
    """Market-1501's three folders, in `root` or in a folder within it."""
    found = _market_root(root)
    if found is None:
        raise DataError(
            f"no folder below {root} holds {', '.join(MARKET_FOLDERS.values())}. Give the folder "
            "that holds them, or use the layout 'folder'"
        )
    parts = _Parts()
    for split, folder in MARKET_FOLDERS.items():
        for path in _images(found / folder, parts.problems):
            match = MARKET_NAME.match(path.name)
            if match is None:
                parts.problems.append(Problem(path, "name is not <identity>_c<camera>..."))
            elif match[1] != "-1":  # -1 marks the detector's junk, which every protocol leaves out
                parts.add(split, Record(path, identity=match[1], camera=match[2]))
    return parts.dataset(found.name, found, "market1501")


def read_csv(path: Path) -> Dataset:
    """A table of images; see `load_dataset` for its columns."""
    table = path / TABLE if path.is_dir() else path
    parts = _Parts()
    try:
        with _existing(table).open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            columns = _check_columns(table, rows.fieldnames or ())
            unknown = [name for name in columns if name not in COLUMNS]
            if unknown:
                parts.notes.append(f"columns left alone: {', '.join(unknown)}")
            for row in rows:
                _read_row(table, rows.line_num, row, parts)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{table} cannot be read as a CSV in UTF-8: {error}") from error
    return parts.dataset(table.parent.name or table.stem, table.parent, "csv")


def read_folder(root: Path) -> Dataset:
    """Any tree of images; see `load_dataset` for what its folders mean."""
    if not root.is_dir():
        raise DataError(f"{root} is a file; expected a folder of images")
    tops = {p.name.lower(): p for p in root.iterdir() if p.is_dir() and p.name.lower() in SPLITS}
    parts = _Parts()
    for split, top in sorted(tops.items()) or [("train", root)]:
        for path in _images(top, parts.problems):
            identity = path.parent.name if path.parent != top else None
            parts.add(split, Record(path, identity=identity))
    if parts.train and any(r.identity is not None for r in parts.train):
        parts.notes.append("identities are the names of the folders that images lie in")
    return parts.dataset(root.name, root, "folder")


READERS: dict[str, Callable[[Path], Dataset]] = {
    "market1501": read_market,
    "csv": read_csv,
    "folder": read_folder,
}


@dataclass
class _Parts:
    """A data set while it is being read."""

    train: list[Record] = field(default_factory=list)
    query: list[Record] = field(default_factory=list)
    gallery: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, split: str, record: Record) -> None:
        if split == "train":
            self.train.append(record)
        if split in ("query", "test"):
            self.query.append(record)
        if split in ("gallery", "test"):
            self.gallery.append(record)

    def dataset(self, name: str, root: Path, layout: str) -> Dataset:
        if not (self.train or self.query or self.gallery):
            first = f" First problem: {self.problems[0].reason}." if self.problems else ""
            raise DataError(
                f"{root} (read as {layout}) holds no image; {len(self.problems)} "
                f"files or rows could not be used.{first} Images end in "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}; see `gracl data check`"
            )
        return Dataset(
            name=name or root.resolve().name or layout,  # "." has no name
            root=root,
            layout=layout,
            train=Records(tuple(self.train)),
            query=Records(tuple(self.query)),
            gallery=Records(tuple(self.gallery)),
            problems=tuple(self.problems),
            notes=tuple(self.notes),
        )


def _existing(path: Path) -> Path:
    if not path.exists():
        here = path.parent
        siblings = [p.name for p in here.iterdir()] if here.is_dir() else []
        near = did_you_mean(path.name, siblings).split("?")[0] + "?" if siblings else ""
        near = near if near.startswith("did you mean") else ""
        raise DataError(f"{path} does not exist. {near}".rstrip())
    return path


def _market_root(root: Path) -> Path | None:
    """The folder with Market's three folders: this one, or one at most two levels below it."""
    for depth in ("", "*", "*/*"):
        for folder in sorted(root.glob(depth)) if depth else [root]:
            if "__MACOSX" in folder.parts:
                continue
            if all((folder / name).is_dir() for name in MARKET_FOLDERS.values()):
                return folder
    return None


def _images(folder: Path, problems: list[Problem]) -> Iterable[Path]:
    """All image files below, sorted; debris of operating systems is passed over."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        hidden = "__MACOSX" in inner or any(part.startswith(".") for part in inner)
        if hidden or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if path.is_file():
            yield path
        elif not path.is_dir():
            problems.append(Problem(path, "a link that leads nowhere"))


def _check_columns(table: Path, found: Iterable[str]) -> list[str]:
    names = list(found)
    if "path" in names:
        return names
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches("path", by_lower, n=1, cutoff=0.5)
    if len(names) == 1 and ";" in names[0]:
        near = []
    hint = f"Did you mean '{by_lower[near[0]]}'? Rename it. " if near else ""
    raise DataError(
        f"{table} has the columns {names}; the column 'path' is missing. {hint}Columns are separated "
        f"by commas. Known: {', '.join(COLUMNS)}"
    )


def _read_row(table: Path, line: int, row: dict[str, str | None], parts: _Parts) -> None:
    def text(column: str) -> str | None:
        value = (row.get(column) or "").strip()
        return value or None

    given = text("path")
    if given is None:
        parts.problems.append(Problem(table, f"line {line} has no path"))
        return
    split = (text("split") or "train").lower()
    if split not in SPLITS:
        raise DataError(f"{table}, line {line}: split '{split}'; {did_you_mean(split, SPLITS)}")
    path = table.parent / given
    if not path.is_file():
        parts.problems.append(Problem(path, f"line {line} names a file that does not exist"))
        return
    try:
        box = _box(text)
    except (ValueError, OverflowError) as error:
        parts.problems.append(Problem(path, f"line {line}: {error}"))
        return
    parts.add(
        split,
        Record(path, text("identity"), text("camera"), text("date"), text("sequence"), box),
    )


def _box(text: Callable[[str], str | None]) -> Box | None:
    given = {column: text(column) for column in ("x", "y", "w", "h")}
    numbers = [float(value) for value in given.values() if value is not None]
    if not numbers:
        return None
    if len(numbers) < 4:
        raise ValueError(f"a crop box needs x, y, w and h; found {given}")
    x, y, w, h = (round(number) for number in numbers)
    if w < 1 or h < 1:
        raise ValueError(f"a crop box of {w} x {h} pixels is empty")
    return Box(x, y, w, h)
