"""What a single-camera tracker found: boxes with track numbers, and the files that trackers write.

Four kinds of file are read, and written again with an identity for each track:

    mot           text, a line a box: `frame,id,left,top,width,height,conf,x,y,z`, split by commas or by
                  spaces, frames from 1 (MOT Challenge; what BoxMOT, ByteTrack and deep SORT write)
    csv           columns frame, track, x, y, w, h, and where known camera, confidence, class, time
    json          a list of objects with frame, track, box, and where known camera, confidence, class,
                  time
    ultralytics   a folder of texts, one a frame: `class x y width height [conf] id`, relative to the
                  frame

Boxes are left, top, width and height in pixels everywhere but in the last, where x and y are the box's
centre. The number of a track means something within its camera only.

Sources: Milan et al., "MOT16: A Benchmark for Multi-Object Tracking", 2016, section 4.1, for the first;
`Results.save_txt` of ultralytics 8 for the last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gracl.data import _track_files
from gracl.data._track_files import NO_TRACK, Detection, Format, Line
from gracl.data.parts import existing
from gracl.errors import ConfigError, DataError

__all__ = ["Detection", "Span", "Tracks", "frame_number", "read_tracks", "tracks_text"]


@dataclass(frozen=True)
class Tracks:
    """The boxes of one camera, in the order of their file."""

    camera: str
    detections: tuple[Detection, ...]
    """Those of tracks; what has the track -1 is not among them."""
    notes: tuple[str, ...] = ()
    """What a reader should know, such as boxes that no track holds."""
    format: Format = "csv"
    """The kind of file they were read from."""
    lines: tuple[Line, ...] = ()
    """What stood there, box by box, so that it can be written again to the digit."""
    columns: tuple[str, ...] = ()
    """Of a CSV, in its order."""

    def spans(self) -> dict[int, Span]:
        """When each track was seen, in the order of the tracks' first boxes in the file."""
        found: dict[int, Span] = {}
        for seen in self.detections:
            own = Span(seen.frame, seen.frame, seen.time, seen.time, 1)
            before = found.get(seen.track)
            found[seen.track] = own if before is None else before.joined(own)
        return found


class Span(NamedTuple):
    """When a track was seen, the ends included."""

    first: int
    """Its first frame."""
    last: int
    start: float | None
    """Seconds; None where the time of a box is not known."""
    end: float | None
    boxes: int

    def joined(self, other: Span) -> Span:
        """Both together."""
        known = self.start is not None and other.start is not None
        return Span(
            min(self.first, other.first),
            max(self.last, other.last),
            min(self.start, other.start) if known else None,  # type: ignore[type-var]
            max(self.end, other.end) if known else None,  # type: ignore[type-var]
            self.boxes + other.boxes,
        )


def read_tracks(
    path: str | Path, camera: str | None = None, *, size: tuple[int, int] | None = None
) -> tuple[Tracks, ...]:
    """The tracks in a file, or in a folder of ultralytics' texts, camera by camera.

    Args:
        path: .txt, .json, .csv or a folder. In a folder, a text's frame is the last number of its name.
        camera: what to call the camera; the file's name without its ending if not given. Where a CSV or
            JSON names cameras itself, only the rows of this one are taken; all if not given.
        size: (height, width) of the frames in pixels, for boxes that are relative to them.

    Returns:
        One a camera, in the order of their first rows; one without a box where the file is empty.

    Raises:
        DataError: no such file, a line that is broken (its number is said), a track twice in one frame,
            or ultralytics' texts without track numbers.
        ConfigError: another ending, or no size for relative boxes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "north.txt")
    ...     _ = file.write_text("1,7,10,5,24,60,0.9,-1,-1,-1\\n2,7,12.50,5,24,60,0.8,-1,-1,-1\\n")
    ...     (tracks,) = read_tracks(file)
    >>> tracks.camera, tracks.detections[1].box, tracks.spans()[7].last
    ('north', (12.5, 5.0, 24.0, 60.0), 2)
    """
    path = existing(Path(path).expanduser())
    kind = _format(path)
    if kind == "ultralytics" and size is None:
        raise ConfigError(
            f"{path} is a folder of boxes relative to their frames; give size=(height, width) of these"
        )
    try:
        content = _track_files.READERS[kind](path, size or (1, 1))
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as tracks: {error}") from error
    own = camera if camera is not None else path.stem
    named = {line.camera for line in content.lines} - {None}
    if camera is not None and named and camera not in named:
        raise DataError(
            f"{path} holds the cameras {', '.join(sorted(map(str, named)))}; expected {camera}. Give "
            "the file without a name to take them all"
        )
    of_camera: dict[str, list[Line]] = {} if content.lines else {own: []}
    for line in content.lines:
        of_camera.setdefault(own if line.camera is None else line.camera, []).append(line)
    wanted = of_camera if camera is None else {camera: of_camera.get(camera, [])}
    return tuple(_tracks(path, name, lines, content) for name, lines in wanted.items())


def tracks_text(
    path: Path, tracks: Tracks, identities: Mapping[int, int] | None = None
) -> dict[Path, str]:
    """What `gracl.write_tracks` writes, by file.

    Args:
        path: .txt is MOT Challenge, .json, .csv; without an ending a folder of ultralytics.
        tracks: of one camera.
        identities: by track; None leaves the tracks as they are.

    Raises:
        ConfigError: another ending, or a kind that cannot hold them.

    >>> seen = Tracks("north", (Detection(1, 7, (10, 5, 24, 60.5), 0.9),))
    >>> tracks_text(Path("out.txt"), seen, {7: 3})[Path("out.txt")]
    '1,3,10,5,24,60.5,0.9,-1,-1,-1\\n'
    """
    kind: Format = "ultralytics" if not path.suffix else _format(path)
    same = kind == tracks.format and (len(tracks.lines) > 0 or not tracks.detections)
    if kind == "ultralytics" and not same:
        raise ConfigError(
            f"{path} has no ending, which means a folder of ultralytics' texts, and the tracks of "
            f"{tracks.camera} were read from a {tracks.format}; expected .txt, .json or .csv"
        )
    lines = tracks.lines
    if not same:
        lines = tuple(Line(None, seen, tracks.camera) for seen in tracks.detections)
    return _track_files.WRITERS[kind](path, lines, tracks.columns if same else (), identities)


def _format(path: Path) -> Format:
    if path.is_dir():
        return "ultralytics"
    kind = _track_files.ENDINGS.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(
            f"{path} ends in '{path.suffix}'; expected .txt (MOT Challenge), .json, .csv, or a "
            "folder of ultralytics' texts"
        )
    return kind


def _tracks(path: Path, camera: str, lines: Sequence[Line], content: _track_files.Content) -> Tracks:
    """Of one camera, each track once a frame."""
    seen: dict[tuple[int, int], Line] = {}
    for line in lines:
        place = line.detection.frame, line.detection.track
        if line.detection.track != NO_TRACK and seen.setdefault(place, line) is not line:
            raise DataError(
                f"{path}, {line.place}: track {place[1]} is in frame {place[0]} of {camera} a second "
                f"time, first in {seen[place].place}; expected one box of a track in a frame"
            )
    loose = len(lines) - len(seen)
    notes = [] if lines else [f"{path} holds no box"]
    if loose:
        notes.append(f"{path}: {loose} boxes without a track (-1) are left as they are")
    return Tracks(
        camera,
        tuple(line.detection for line in seen.values()),
        tuple(notes),
        content.format,
        tuple(lines),
        content.columns,
    )


def frame_number(path: str | Path) -> int | None:
    """The last number in a file's name, None where it has none.

    >>> frame_number("cam1_000017.jpg"), frame_number("clip2/first.png")
    (17, None)
    """
    found: list[Any] = re.findall(r"\d+", Path(path).stem)
    return int(found[-1]) if found else None
