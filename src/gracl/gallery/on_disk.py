"""Whether anything is left, in files, of what was deleted.

A file that SQLite has open may be read beside it, and never closed: on POSIX that would let go of all
locks that this process holds on it. Another process could then take itself for the only one, and delete
the log of writes under a connection that goes on (https://sqlite.org/howtocorrupt.html, section 2.2).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

END = 24
"""Bytes of a piece that are looked for: its last ones, for paths begin alike."""
PIECE = 2**24
"""Bytes of a file that are looked at at a time."""
_KEPT: dict[tuple[int, int], int] = {}
"""Descriptors by device and inode."""


def stretches(content: bytes) -> list[bytes]:
    """A long piece in stretches of 1 KiB: a database may lay it on several pages.

    >>> [len(part) for part in stretches(bytes(2100))]
    [1024, 1024]
    """
    return [content[start : start + 1024] for start in range(0, max(1, len(content) - 64), 1024)]


def found_in(files: Iterable[Path], pieces: Iterable[bytes]) -> list[bytes]:
    """Those pieces of bytes that stand anywhere in some files; one pass, however many pieces there are.

    Where the first three bytes of a piece's end stand, the end is looked at whole.
    """
    ends: dict[bytes, bytes] = {piece[-END:]: piece for piece in pieces}
    starts = np.zeros(1 << 24, dtype=np.bool_)
    lengths: dict[int, set[int]] = {}
    for end in ends:
        code = int.from_bytes(end[:3].ljust(3, b"\0"), "little")
        starts[code] = True
        lengths.setdefault(code, set()).add(len(end))
    found: dict[bytes, None] = {}
    for path in files:
        with _opened(path) as file:
            left = b""
            while read := file.read(PIECE):
                content = left + read
                found |= dict.fromkeys(_ends_in(content, ends, starts, lengths))
                left = content[-END:]
    return [*found]


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file to be read from its start; on POSIX it stays open until the process ends."""
    if os.name == "nt" or path.name.endswith(("-wal", "-journal")):  # there are no locks on these
        with path.open("rb") as file:
            yield file
        return
    found = path.stat()
    place = found.st_dev, found.st_ino
    if place not in _KEPT:
        _KEPT[place] = os.open(path, os.O_RDONLY)
    with open(_KEPT[place], "rb", closefd=False) as file:
        file.seek(0)
        yield file


def _ends_in(
    content: bytes,
    ends: dict[bytes, bytes],
    starts: NDArray[np.bool_],
    lengths: dict[int, set[int]],
) -> Iterator[bytes]:
    seen = np.frombuffer(content + b"\0\0", dtype=np.uint8).astype(np.uint32)
    codes = seen[:-2] | seen[1:-1] << 8 | seen[2:] << 16
    for at in np.flatnonzero(starts[codes]).tolist():
        for length in lengths[int(codes[at])]:
            piece = ends.get(content[at : at + length])
            if piece is not None:
                yield piece
