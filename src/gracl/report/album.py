"""The pictures of a report: each is in the file once, and shown wherever it is wanted."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from gracl.data.records import Record, Records
from gracl.data.thumbnails import Thumbnails

HEIGHT = 128
"""Pixels of a picture."""
ROOM = 18_000_000
"""Bytes of all pictures, so that the file stays below 30 MB: in text they take a third more."""
AT_ONCE = 256
"""Pictures made between two looks at the room that is left."""


@dataclass(frozen=True)
class Shot:
    """A picture's place in the album."""

    number: int
    path: str
    """Below the data's root."""


@dataclass(frozen=True)
class Print:
    """A picture as the file holds it."""

    number: int
    width: int
    height: int
    data: str
    """JPEG, in base64."""


class Album:
    """Pictures are asked for first, in order of importance, and made together afterwards.

    Args:
        root: the data's folder; only what lies below it is written of a path.
        empty: hold no picture at all.
        room: bytes; pictures that were asked for when it is used up are left out.
    """

    def __init__(self, root: Path, *, empty: bool = False, room: int = ROOM) -> None:
        self.root, self.empty, self.room = root, empty, room
        self.prints: dict[int, Print] = {}
        """By number; what is not there is shown by its path."""
        self.unreadable: list[Shot] = []
        self.left_out = 0
        """Pictures for which there was no room."""
        self._shots: dict[object, Shot] = {}
        self._records: dict[int, Record] = {}
        self._made: dict[int, bytes] = {}

    def place(self, record: Record) -> Shot:
        """Asks for the picture of an image; the same image is the same shot."""
        known = self._shots.get((record.path, record.box))
        if known is not None:
            return known
        shot = Shot(len(self._shots), self.name(record))
        self._shots[record.path, record.box] = shot
        self._records[shot.number] = record
        return shot

    def paste(self, record: Record, jpeg: bytes) -> Shot:
        """Puts in a picture that was made of an image elsewhere."""
        shot = Shot(len(self._shots), self.name(record))
        self._shots["pasted", shot.number] = shot
        self._made[shot.number] = jpeg
        return shot

    def name(self, record: Record) -> str:
        """An image's path below the data's root, and its box."""
        box = "" if record.box is None else f" [{', '.join(map(str, record.box))}]"
        return f"{below(self.root, record.path)}{box}"

    def develop(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Makes all pictures that were asked for, as far as there is room.

        Args:
            progress: called with (done, total).
        """
        if self.empty:
            return
        for number, jpeg in self._made.items():
            self._keep(number, jpeg)
        numbers = list(self._records)
        pictures = Thumbnails(Records(tuple(self._records.values())), height=HEIGHT)
        shots = {shot.number: shot for shot in self._shots.values()}
        try:
            for start in range(0, len(numbers), AT_ONCE):
                rows = range(start, min(len(numbers), start + AT_ONCE))
                if self.room <= 0:
                    self.left_out += len(rows)
                    continue
                bad = set(pictures.prepare(rows))
                self.unreadable += [shots[numbers[row]] for row in rows if row in bad]
                for row in (row for row in rows if row not in bad):
                    self._keep(numbers[row], pictures.jpeg(row))
                if progress is not None:
                    progress(rows.stop, len(numbers))
        finally:
            pictures.close()

    def _keep(self, number: int, jpeg: bytes) -> None:
        if len(jpeg) > self.room:
            self.room, self.left_out = 0, self.left_out + 1
            return
        self.room -= len(jpeg)
        with Image.open(io.BytesIO(jpeg)) as picture:
            width, height = picture.size
        self.prints[number] = Print(number, width, height, base64.b64encode(jpeg).decode("ascii"))


def below(root: Path, path: Path) -> str:
    """A path below a folder; of one that lies elsewhere its name alone: no other folder is told.

    >>> below(Path("/data"), Path("/data/lynx/1.jpg")), below(Path("/data"), Path("/home/ann/2.jpg"))
    ('lynx/1.jpg', '2.jpg')
    """
    try:
        return path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        return path.name


def without_folders(words: str, root: Path, path: Path | None = None) -> str:
    """A sentence in which no folder above the data's root, or of a path, is named.

    >>> without_folders("cannot read /data/a/1.jpg", Path("/data"))
    'cannot read a/1.jpg'
    """
    folders = [root, *([] if path is None else [path.parent])]
    for folder in (str(form) for f in folders for form in (f.absolute(), f)):
        if len(folder) > 1:
            words = words.replace(f"{folder}/", "").replace(f"{folder}\\", "")
    return words
