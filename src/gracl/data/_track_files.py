"""How the files of `gracl.data.tracks` are taken apart, line by line, and put together again.

A line keeps what stood in the file; with an identity, only the word that is the track changes.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from gracl.errors import ConfigError, DataError

Format = Literal["mot", "csv", "json", "ultralytics"]
ENDINGS: dict[str, Format] = {".txt": "mot", ".csv": "csv", ".json": "json"}
NO_TRACK = -1
"""What detectors write where a tracker writes a track's number."""
NEEDED = ("frame", "track", "x", "y", "w", "h")
FIELDS = ("camera", *NEEDED, "confidence", "class", "time")
"""Columns of a CSV of ours."""
Identities = Mapping[int, int] | None
Files = dict[Path, str]


@dataclass(frozen=True, slots=True)
class Detection:
    """One box of one track."""

    frame: int
    """Its number, as the tracker counts; MOT Challenge counts from 1."""
    track: int
    """The tracker's number, which means something within its camera only."""
    box: tuple[float, float, float, float]
    """Left, top, width and height in pixels of the frame."""
    confidence: float | None = None
    """The detector's; None is unknown."""
    kind: str | None = None
    """The class of the object, as the file has it."""
    time: float | None = None
    """Seconds, on a clock that all cameras share."""


class Line(NamedTuple):
    """A box and what it was read from."""

    raw: Any
    """The words of a text, the cells of a CSV, the object of a JSON; None where there was no file."""
    detection: Detection
    camera: str | None = None
    """As the file has it."""
    place: str = ""
    """Where it stood, for errors: "line 3"."""
    file: str = ""
    """Of a folder, the file's name."""


class Content(NamedTuple):
    """All of a file."""

    format: Format
    lines: tuple[Line, ...]
    columns: tuple[str, ...] = ()


# -- numbers --------------------------------------------------------------------------------------


def _number(word: Any, what: str) -> float:
    try:
        value = float(word)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{what} is {word!r}; expected a number") from None
    if isinstance(word, bool) or not math.isfinite(value):
        raise ValueError(f"{what} is {word!r}; expected a finite number")
    return value


def _whole(word: Any, what: str, least: int) -> int:
    """A whole number, however it is written: np.savetxt has 1 as 1.000000000000000000e+00."""
    value = _number(word, what)
    if not value.is_integer() or value < least:
        raise ValueError(f"{what} is {word!r}; expected a whole number, {least} or above")
    return int(value)


def _detection(
    frame: Any, track: Any, box: Sequence[Any], confidence: Any, kind: Any, time: Any
) -> Detection:
    """From words or values; "" and None are unknown."""
    if len(box) != 4:
        raise ValueError(f"the box has {len(box)} numbers; expected left, top, width and height")
    sides = ("left", "top", "width", "height")
    x, y, w, h = (_number(word, name) for word, name in zip(box, sides, strict=True))
    return Detection(
        _whole(frame, "frame", 0),
        _whole(track, "track", NO_TRACK),
        (x, y, w, h),
        None if confidence in (None, "") else _number(confidence, "confidence"),
        None if kind in (None, "") else str(kind),
        None if time in (None, "") else _number(time, "time"),
    )


def _text(value: float) -> str:
    """The shortest text that is this number."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _refuse(path: Path, place: str, error: Exception) -> NoReturn:
    raise DataError(f"{path}, {place}: {error}") from error


def _given(detection: Detection, identities: Identities) -> int | None:
    """The identity of a detection's track; None leaves the line as it is."""
    if identities is None or detection.track == NO_TRACK:
        return None
    return identities[detection.track]


# -- MOT Challenge --------------------------------------------------------------------------------


def _read_mot(path: Path, _: tuple[int, int]) -> Content:
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not text.strip():
            continue
        try:
            lines.append(Line(text, _of_mot(_words(text)), None, f"line {number}"))
        except ValueError as error:
            _refuse(path, f"line {number}", error)
    return Content("mot", tuple(lines))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")] if "," in text else text.split()


def _of_mot(words: list[str]) -> Detection:
    if not 6 <= len(words) <= 10:
        raise ValueError(
            f"found {len(words)} numbers; expected frame, id, left, top, width, height, and then "
            "conf, x, y, z"
        )
    confidence = words[6] if len(words) > 6 else None
    if confidence is not None and _number(confidence, "conf") == -1:  # "not known", in MOT15
        confidence = None
    # MOT16's truth and BoxMOT have nine columns, the eighth is the class; ten have a place in space.
    kind = words[7] if len(words) == 9 and words[7] != "-1" else None
    return _detection(words[0], words[1], words[2:6], confidence, kind, None)


def _write_mot(path: Path, lines: Iterable[Line], _: Sequence[str], given: Identities) -> Files:
    texts = []
    for line in lines:
        number = _given(line.detection, given)
        text = _to_mot(line.detection) if line.raw is None else line.raw
        texts.append(text if number is None else _with_second(text, str(number)))
    return {path: "".join(f"{text}\n" for text in texts)}


def _to_mot(seen: Detection) -> str:
    if seen.time is not None:
        raise ConfigError("MOT Challenge's text has no place for times; write .csv or .json")
    confidence = "-1" if seen.confidence is None else _text(seen.confidence)
    rest = ["-1", "-1", "-1"] if seen.kind is None else [seen.kind, "-1"]
    if seen.kind is not None and not re.fullmatch(r"\d+", seen.kind):
        raise ConfigError(
            f"MOT Challenge's text has numbers for classes, not '{seen.kind}'; write .csv"
        )
    return ",".join([str(seen.frame), str(seen.track), *map(_text, seen.box), confidence, *rest])


def _with_second(text: str, word: str) -> str:
    """A line with another second word; all around it stays as it is."""
    found = re.match(r"(\s*[^\s,]+\s*,\s*|\s*\S+\s+)([^\s,]+)(.*)", text)
    assert found is not None, text  # it was read
    return found[1] + word + found[3]


# -- ultralytics ----------------------------------------------------------------------------------


def _read_ultralytics(folder: Path, size: tuple[int, int]) -> Content:
    """Texts in the order of their frames."""
    files: dict[int, Path] = {}
    for path in sorted(folder.glob("*.txt")):
        numbers = re.findall(r"\d+", path.stem)
        if not numbers:
            raise DataError(f"{path}: its name has no number; expected that of its frame")
        if files.setdefault(int(numbers[-1]), path) is not path:
            raise DataError(
                f"{path} and {files[int(numbers[-1])].name} are both of frame {int(numbers[-1])}; "
                "expected the texts of one video in a folder"
            )
    lines = []
    for frame, path in sorted(files.items()):
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                seen = _of_ultralytics(frame, text.split(), size)
            except ValueError as error:
                _refuse(path, f"line {number}", error)
            lines.append(Line(text, seen, None, f"{path.name}, line {number}", path.name))
    return Content("ultralytics", tuple(lines))


def _of_ultralytics(frame: int, words: list[str], size: tuple[int, int]) -> Detection:
    if len(words) not in (6, 7):
        raise ValueError(
            f"found {len(words)} numbers; expected class, x, y, width, height, conf where it was "
            "saved, and the track's id. Boxes alone come of model.predict; use model.track"
        )
    height, width = size
    x, y, w, h = (_number(word, "box") for word in words[1:5])
    box = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
    return _detection(frame, words[-1], box, words[5] if len(words) == 7 else None, words[0], None)


def _write_ultralytics(
    folder: Path, lines: Iterable[Line], _: Sequence[str], given: Identities
) -> Files:
    files: dict[Path, str] = {}
    for line in lines:
        number = _given(line.detection, given)
        text = line.raw if number is None else re.sub(r"\S+(\s*)$", rf"{number}\1", line.raw)
        path = folder / line.file
        files[path] = files.get(path, "") + text + "\n"
    return files


# -- CSV ------------------------------------------------------------------------------------------


def _read_csv(path: Path, _: tuple[int, int]) -> Content:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        try:
            return _of_table(path, rows)
        except csv.Error as error:
            _refuse(path, f"line {rows.line_num}", error)


def _of_table(path: Path, rows: Any) -> Content:
    columns = tuple(next(rows, ()))
    if not columns:
        return Content("csv", (), FIELDS)
    missing = [name for name in NEEDED if name not in columns]
    if missing or len(set(columns)) < len(columns):
        raise DataError(
            f"{path} has the columns {', '.join(columns)}; expected {', '.join(NEEDED)}, each once, "
            "and where known camera, confidence, class, time"
        )
    lines = []
    for cells in rows:
        place = f"line {rows.line_num}"
        if not cells:
            continue
        if len(cells) != len(columns):
            raise DataError(
                f"{path}, {place}: {len(cells)} cells; expected {len(columns)}, one a column"
            )
        row = dict(zip(columns, cells, strict=True))
        try:
            seen = _detection(
                row["frame"],
                row["track"],
                [row[side] for side in ("x", "y", "w", "h")],
                *(row.get(name) for name in ("confidence", "class", "time")),
            )
        except ValueError as error:
            _refuse(path, place, error)
        lines.append(Line(tuple(cells), seen, row.get("camera") or None, place))
    return Content("csv", tuple(lines), columns)


def _write_csv(path: Path, lines: Iterable[Line], columns: Sequence[str], given: Identities) -> Files:
    names = [name for name in columns or FIELDS if name != "identity"]
    kept = [at for at, name in enumerate(columns or FIELDS) if name != "identity"]
    table = io.StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow([*names, *(["identity"] if given is not None else [])])
    for line in lines:
        cells = _to_cells(line) if line.raw is None else line.raw
        number = _given(line.detection, given)
        identity = [] if given is None else ["" if number is None else number]
        rows.writerow([*(cells[at] for at in kept), *identity])
    return {path: table.getvalue()}


def _to_cells(line: Line) -> list[str]:
    seen = line.detection
    known = ["" if value is None else _text(value) for value in (seen.confidence, seen.time)]
    box = [_text(value) for value in seen.box]
    return [
        line.camera or "", str(seen.frame), str(seen.track), *box, known[0], seen.kind or "", known[1],
    ]  # fmt: skip


# -- JSON -----------------------------------------------------------------------------------------


def _read_json(path: Path, _: tuple[int, int]) -> Content:
    text = path.read_text(encoding="utf-8-sig")
    try:
        entries = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: no JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; lists in lists in lists
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(entries, list):
        raise DataError(
            f"{path} holds a {type(entries).__name__}; expected a list of objects, one a box"
        )
    lines = []
    for number, entry in enumerate(entries, 1):
        try:
            lines.append(_of_entry(entry, f"object {number}"))
        except ValueError as error:
            _refuse(path, f"object {number}", error)
    return Content("json", tuple(lines))


def _of_entry(entry: Any, place: str) -> Line:
    is_box = isinstance(entry, dict) and {"frame", "track", "box"} <= entry.keys()
    if not is_box or not isinstance(entry["box"], list):
        raise ValueError(
            f"found {json.dumps(entry)[:80]}; expected an object with frame, track and box, [x, y, "
            "w, h]"
        )
    known = (entry.get(name) for name in ("confidence", "class", "time"))
    camera = entry.get("camera")
    seen = _detection(entry["frame"], entry["track"], entry["box"], *known)
    return Line(entry, seen, None if camera is None else str(camera), place)


def _write_json(path: Path, lines: Iterable[Line], _: Sequence[str], given: Identities) -> Files:
    entries = []
    for line in lines:
        entry = _to_entry(line) if line.raw is None else line.raw
        number = _given(line.detection, given)
        entries.append(entry if number is None else {**entry, "identity": number})
    inner = ",\n".join(json.dumps(entry) for entry in entries)
    return {path: f"[\n{inner}\n]\n" if entries else "[]\n"}


def _to_entry(line: Line) -> dict[str, Any]:
    seen = line.detection
    known = {"confidence": seen.confidence, "class": seen.kind, "time": seen.time}
    entry = {"camera": line.camera, "frame": seen.frame, "track": seen.track, "box": list(seen.box)}
    return {name: value for name, value in {**entry, **known}.items() if value is not None}


READERS: dict[Format, Callable[[Path, tuple[int, int]], Content]] = {
    "mot": _read_mot,
    "csv": _read_csv,
    "json": _read_json,
    "ultralytics": _read_ultralytics,
}
WRITERS: dict[Format, Callable[[Path, Sequence[Line], Sequence[str], Identities], Files]] = {
    "mot": _write_mot,
    "csv": _write_csv,
    "json": _write_json,
    "ultralytics": _write_ultralytics,
}
"""By kind of file."""
