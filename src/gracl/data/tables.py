"""Tables of images: a row an image, columns for what is known of it.

CSV files, DataFrames and the tables of Hugging Face all go through `records_of`, so that a column
means the same in each. What a reader changes or leaves out on the way is counted in a `Tally`.
"""

from __future__ import annotations

import csv
import datetime
import difflib
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gracl.data.parts import SPLITS, Parts, existing
from gracl.data.records import Box, Dataset, Problem, Record
from gracl.errors import DataError, did_you_mean
from gracl.paths import is_file, is_folder, leads_out, named

TABLE = "metadata.csv"
COLUMNS = ("path", "identity", "camera", "split", "date", "sequence", "x", "y", "w", "h", "bbox")
CONFIRMED = "confirmed_by"
"""The column of a review's table that is empty where nobody looked at what was grouped."""
ALSO_CALLED = {
    "path": ("image_path", "file_name", "filename", "file"),
    "identity": ("individual_id", "label", "name"),
    "camera": ("camera_id", "cam", "location"),
    "date": ("datetime", "timestamp", "date_captured"),
    "sequence": ("sequence_id", "seq_id", "tracklet"),
}
"""Names that others give to a column. One is read where it is the only one, and a note says so."""


def read_csv(path: Path) -> Dataset:
    """A table of images in a file; see `gracl.load_dataset` and `from_dataframe` for its columns."""
    table = path / TABLE if is_folder(path) else path
    parts = Parts()
    try:
        with existing(table).open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            numbered = ((f"line {rows.line_num}", row) for row in rows)
            for split, record in records_of(
                numbered,
                rows.fieldnames or (),
                source=table,
                root=table.parent,
                parts=parts,
                within=table.parent if is_folder(path) else None,
            ):
                parts.add(split, record)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{table} cannot be read as a CSV in UTF-8: {error}") from error
    return parts.dataset(table.parent.name or table.stem, table.parent, "csv")


def from_dataframe(table: object, root: str | Path | None = None, name: str = "dataframe") -> Dataset:
    """A data set from a DataFrame of pandas or polars, or from a list of dicts.

    Columns are those of a CSV: `path`, and optionally identity, camera, split, date, sequence, and
    a crop box in pixels as x, y, w, h or as one column `bbox` of these four numbers (a list, or its
    text). Other usual names (`ALSO_CALLED`) are read where only one fits, and a note says which;
    further columns are left alone. So the metadata of wildlife-datasets can be given as they are.

    None, NaN, NaT and NA are unknown, and so is an identity `unknown`. A number without a fraction
    is written without one: 3.0 is the identity "3". A date is cut to its day, as written, without
    a look at time zones.

    Args:
        table: a DataFrame of pandas or polars, or a list of dicts with the same keys.
        root: the folder that paths are relative to; None is the working folder.
        name: what the data set is called.

    Raises:
        DataError: no table, no column of paths, an unknown split, or no image that exists.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "a.jpg").touch()
    ...     rows = [{"path": "a.jpg", "identity": 3.0, "date": "2024-05-01 10:15", "camera": None}]
    ...     dataset = from_dataframe(rows, root=folder)
    >>> dataset.train[0].identity, dataset.train[0].date, dataset.train[0].camera
    ('3', '2024-05-01', None)
    >>> dataset.notes
    ("the time of day is left out of the date: once, '2024-05-01 10:15'",)
    """
    folder = existing(Path(root).expanduser()) if root is not None else Path()
    columns, rows = _rows_of(table)
    numbered = ((f"row {number}", row) for number, row in enumerate(rows))
    parts = Parts()
    for split, record in records_of(numbered, columns, source=Path(name), root=folder, parts=parts):
        parts.add(split, record)
    return parts.dataset(name, folder, "dataframe")


@dataclass
class Tally:
    """What a reader changed or left out, counted by kind, with the first of each as an example.

    >>> tally = Tally()
    >>> for crowd in ("annotation 3", "annotation 8"):
    ...     tally.add("crowds are left out", crowd)
    >>> tally.notes()
    ["crowds are left out: 2 times, first 'annotation 3'"]
    """

    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        """Counts one more of this kind."""
        count, first = self.kinds.get(kind, (0, example))
        self.kinds[kind] = count + 1, first

    def notes(self) -> list[str]:
        """A line for each kind."""
        return [
            f"{kind}: once, '{first}'" if count == 1 else f"{kind}: {count} times, first '{first}'"
            for kind, (count, first) in self.kinds.items()
        ]


def records_of(
    rows: Iterable[tuple[str, Mapping[Any, object]]],
    columns: Iterable[object],
    *,
    source: Path,
    root: Path,
    parts: Parts,
    within: Path | None = None,
) -> Iterator[tuple[str, Record]]:
    """Rows of any table as (split, record); what cannot be used goes to the problems of `parts`.

    Args:
        rows: (where it stands, such as "line 3"; values by column).
        columns: the table's columns.
        source: the table, for problems and errors.
        root: the folder that paths are relative to.
        parts: takes problems, and notes once all rows were read.
        within: the folder that paths may not lead out of, where a table came with the images: it could
            name any file of whoever reads it. None for a list that was itself asked for.

    Raises:
        DataError: no column of paths, a column twice, or a split that is unknown.
    """
    names = [str(name) for name in columns]
    column = _choose_columns(source, names, parts)
    reviewed = CONFIRMED in names
    tally = Tally()
    for place, row in rows:
        value = {fact: row.get(name) for fact, name in column.items()}
        for fact in value.keys() - {"path"}:
            if isinstance(value[fact], str) and str(value[fact]).strip() in NOTHING - {""}:
                tally.add(f"a {fact} that says so is read as none", str(value[fact]).strip())
        given = as_text(value["path"])
        if given is None:
            parts.problems.append(Problem(source, f"{place} has no path"))
            continue
        split = (as_text(value.get("split")) or "train").lower()
        if split not in SPLITS:
            raise DataError(f"{source}, {place}: split '{split}'; {did_you_mean(split, SPLITS)}")
        path = named(root, given)
        if within is not None and leads_out(within, path):
            reason = f"{place} leads out of {within}. If that is meant, give the table: {source}"
            parts.problems.append(Problem(path, reason))
            continue
        if not is_file(path):
            parts.problems.append(Problem(path, f"{place} names a file that does not exist"))
            continue
        try:
            box = _box(value)
        except (ValueError, TypeError, OverflowError) as error:
            parts.problems.append(Problem(path, f"{place}: {error}"))
            continue
        identity = as_identity(value.get("identity"), tally)
        if reviewed and identity is not None and as_text(row.get(CONFIRMED)) is None:
            tally.add(f"an identity with nothing in '{CONFIRMED}' counts as one all the same", identity)
        yield (
            split,
            Record(
                path,
                identity=identity,
                camera=as_text(value.get("camera")),
                date=as_day(value.get("date"), tally),
                sequence=as_text(value.get("sequence")),
                box=box,
            ),
        )
    parts.notes += tally.notes()


# -- columns --------------------------------------------------------------------------------------


def _choose_columns(source: Path, names: Sequence[str], parts: Parts) -> dict[str, str]:
    """Which column holds which fact."""
    chosen = {fact: fact for fact in COLUMNS if fact in names}
    for fact, others in ALSO_CALLED.items():
        found = [name for name in others if name in names] if fact not in chosen else []
        if len(found) == 1:
            chosen[fact] = found[0]
            parts.notes.append(f"the column '{found[0]}' is read as the {fact}")
        elif found:
            several = f"each of the columns {', '.join(found)} might be the {fact}"
            if fact == "path":
                raise DataError(f"{source}: {several}. Rename the one that is to 'path'")
            parts.notes.append(f"{several}; none is read. Rename the one that is to '{fact}'")
    if "path" not in chosen:
        raise DataError(_no_path(source, names))
    twice = [name for name in chosen.values() if names.count(name) > 1]
    if twice:
        raise DataError(f"{source} has the column '{twice[0]}' twice; rename or remove one of them")
    # Lone x and y beside a bbox are something else, such as a place on a map.
    unread = {"bbox"} if chosen.keys() >= set("xywh") else set("xywh") & chosen.keys()
    if "bbox" in chosen:
        chosen = {fact: name for fact, name in chosen.items() if fact not in unread}
    alone = [name for name in names if name and name not in chosen.values()]
    if alone:
        parts.notes.append(f"columns left alone: {', '.join(alone)}")
    return chosen


def _no_path(source: Path, names: Sequence[str]) -> str:
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches("path", by_lower, n=1, cutoff=0.5)
    if len(names) == 1 and ";" in names[0]:
        near = []
    hint = f"Did you mean '{by_lower[near[0]]}'? Rename it. " if near else ""
    return (
        f"{source} has the columns {list(names)}; the column 'path' is missing. {hint}In a file, "
        f"columns are separated by commas. Known: {', '.join(COLUMNS)}"
    )


def _rows_of(table: Any) -> tuple[list[str], Iterable[Mapping[str, object]]]:
    """Columns and rows of whatever kind of table; pandas and polars are known by their methods."""
    if hasattr(table, "iter_rows") and hasattr(table, "columns"):  # polars
        return list(table.columns), table.iter_rows(named=True)
    if hasattr(table, "itertuples") and hasattr(table, "columns"):  # pandas
        columns = [str(name) for name in table.columns]
        tuples = table.itertuples(index=False, name=None)
        return columns, (dict(zip(columns, values, strict=True)) for values in tuples)
    if isinstance(table, Sequence) and all(isinstance(row, Mapping) for row in table):
        return list(dict.fromkeys(str(key) for row in table for key in row)), table
    hint = ". A LazyFrame becomes one by .collect()" if hasattr(table, "collect") else ""
    raise DataError(
        f"found a {type(table).__name__}; expected a DataFrame of pandas or polars, or a list of "
        f"dicts{hint}"
    )


# -- values ---------------------------------------------------------------------------------------

NOTHING = {"", "NA", "N/A", "nan", "NaN", "NaT", "None", "null", "<NA>"}
"""How programs write that a value is missing; R's is NA."""
_COMPACT = re.compile(
    r"(?P<year>(?:19|20)\d\d)(?P<month>0[1-9]|1[0-2])(?P<day>0[1-9]|[12]\d|3[01])"
    r"(?P<time>[T_ -]?\d{4}(?:\d\d)?Z?)?"
)
_TIME = re.compile(
    r"(?P<day>.*?\d)[T ,_]+\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?"
    r"\s*([ap]\.?m\.?)?\s*(z|utc|gmt|[+-]\d{2}:?\d{2})?",
    re.IGNORECASE,
)
_MIDNIGHT = re.compile(r"[T ,_]+00:00(:00([.,]0+)?)?$")
_YEAR_FIRST = re.compile(r"(\d{4})[-:/.](\d{1,2})[-:/.](\d{1,2})")


def as_text(value: object) -> str | None:
    """A value of a table as text, None where it stands for nothing.

    >>> as_text(7.0), as_text(" 007 "), as_text(float("nan")), as_text(datetime.date(2024, 5, 1))
    ('7', '007', None, '2024-05-01')
    """
    # pandas' own signs of nothing are known by name: it need not be installed.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    if isinstance(value, datetime.datetime):
        value = value.isoformat(sep=" ")
    text = str(value).strip()
    return None if text in NOTHING else text


def as_identity(value: object, tally: Tally) -> str | None:
    """An identity; None for `unknown`, which wildlife-datasets writes of animals without a name."""
    text = as_text(value)
    if text is not None and text.lower() == "unknown":
        tally.add("an identity that is called so is read as none", text)
        return None
    # One name can be written as letters with accents or as letters and accents; macOS does the latter.
    return None if text is None else unicodedata.normalize("NFC", text)


def as_day(value: object, tally: Tally) -> str | None:
    """The day of a date or timestamp, as written there.

    >>> tally = Tally()
    >>> [as_day(text, tally) for text in ("2024:05:01 10:15:00", "5/1/2024 3:15 PM", "spring")]
    ['2024-05-01', '5/1/2024', 'spring']
    >>> [as_day(text, tally) for text in ("2024-5-1", "20240501", "20240501T101500")]
    ['2024-05-01', '2024-05-01', '2024-05-01']
    """
    text = as_text(value)
    if text is None:
        return None
    compact = _COMPACT.fullmatch(text)
    if compact is not None:
        if compact["time"]:
            tally.add("the time of day is left out of the date", text)
        return "-".join(compact.group("year", "month", "day"))
    found = _TIME.fullmatch(text)
    if found is None and _YEAR_FIRST.fullmatch(text) is not None:
        return "{}-{:0>2}-{:0>2}".format(*_YEAR_FIRST.fullmatch(text).groups())  # type: ignore[union-attr]
    if found is None:
        if re.search(r"\d:\d\d", text) or re.search(r"\d{8}\D?\d{4}", text):
            tally.add("a date has a time that cannot be told from its day and is kept whole", text)
        return text
    if not _MIDNIGHT.search(text):  # how a day without a time is often written
        tally.add("the time of day is left out of the date", text)
    day = found["day"]
    numbers = _YEAR_FIRST.fullmatch(day)
    return "{}-{:0>2}-{:0>2}".format(*numbers.groups()) if numbers else day


def four_numbers(value: object) -> list[float] | None:
    """The x, y, w, h of a box given as a list or as its text; None for no box.

    >>> four_numbers("[1, 2.5, 3, 4]"), four_numbers((1, 2, 3, 4)), four_numbers(" ")
    ([1.0, 2.5, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], None)
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        numbers = [float(word) for word in re.split(r"[\s,\[\]()]+", as_text(value) or "") if word]
    else:
        numbers = [float(number) for number in value]
    if numbers and len(numbers) != 4:
        raise ValueError(f"a bbox is four numbers x, y, w, h; found {value}")
    return numbers or None


def pixel_box(numbers: Iterable[float]) -> Box:
    """x, y, w, h as a crop box of whole pixels.

    >>> pixel_box([1, 2.4, 30, 40.6])
    Box(x=1, y=2, width=30, height=41)
    """
    given = list(numbers)
    x, y, w, h = (round(number) for number in given)
    if w < 1 or h < 1:
        relative = min(given) >= 0 and max(given) <= 1 and max(given[2:]) > 0
        hint = "; its numbers look relative to the size of the image" if relative else ""
        raise ValueError(f"a crop box of {w} x {h} pixels is empty{hint}")
    return Box(x, y, w, h)


def _box(value: Mapping[str, object]) -> Box | None:
    if "bbox" in value:
        numbers = four_numbers(value["bbox"])
        return pixel_box(numbers) if numbers else None
    given = {side: as_text(value.get(side)) for side in ("x", "y", "w", "h")}
    numbers = [float(text) for text in given.values() if text is not None]
    if not numbers:
        return None
    if len(numbers) < 4:
        raise ValueError(f"a crop box needs x, y, w and h; found {given}")
    return pixel_box(numbers)
