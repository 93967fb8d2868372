"""Tables of images: a row an image, columns for what is known of it."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Iterable
from pathlib import Path

from gracl.data.parts import SPLITS, Parts, existing
from gracl.data.records import Box, Dataset, Problem, Record
from gracl.errors import DataError, did_you_mean

TABLE = "metadata.csv"
COLUMNS = ("path", "identity", "camera", "split", "date", "sequence", "x", "y", "w", "h")


def read_csv(path: Path) -> Dataset:
    """A table of images; see `gracl.load_dataset` for its columns."""
    table = path / TABLE if path.is_dir() else path
    parts = Parts()
    try:
        with existing(table).open(newline="", encoding="utf-8-sig") as lines:
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


def _read_row(table: Path, line: int, row: dict[str, str | None], parts: Parts) -> None:
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
