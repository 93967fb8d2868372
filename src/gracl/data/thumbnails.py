"""Small pictures for people to look at: upright, cut to their box, in their own proportions.

Each is made once and kept in gracl's cache folder, beside the image stores; that folder may be emptied
at any time. A changed file is another picture.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from gracl import disk
from gracl.data.records import Record, Records
from gracl.data.store import cache_folder, crop, upright
from gracl.errors import DataError

logger = logging.getLogger(__name__)

HEIGHT = 160
"""Pixels; enough for a grid on a screen of twice the usual density."""
WIDEST = 2
"""Width over height at most, so that one panorama does not fill the page."""
QUALITY = 85
FORMAT = 1
"""Raised whenever the same file would give another picture."""
AT_ONCE = 256
"""Pictures between two commits."""


class Thumbnails:
    """JPEGs of images by their place among the records; for several threads and processes at once."""

    def __init__(self, records: Records, *, height: int = HEIGHT, cache: Path | None = None) -> None:
        """Opens the cache; nothing is decoded yet.

        Args:
            records: the images.
            height: of the pictures, in pixels.
            cache: the folder; see `gracl.open_store`.

        Raises:
            DataError: the cache folder cannot be written.
        """
        self.records, self.height = records, height
        file = (cache or cache_folder()) / "thumbnails.sqlite"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                file, check_same_thread=False, isolation_level=None, timeout=30
            )
            # Also where nobody does: Python 3.13 and newer warn of databases that are left open.
            self._close = weakref.finalize(self, self._database.close)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = OFF")  # a cache: what is lost is made again
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS thumbnails (key BLOB PRIMARY KEY, jpeg BLOB) WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            cause = error if isinstance(error, OSError) else disk.of_sqlite(error, file)
            words = f"{error}. Delete that file, or give {disk.OTHER_CACHE}"
            if cause is not None:
                words = disk.in_words(cause, file, disk.OTHER_CACHE)
            raise DataError(f"cannot keep small pictures in {file}: {words}") from error
        self._lock = threading.Lock()
        self._file, self._keeps = file, True

    def jpeg(self, row: int) -> bytes:
        """The picture of one image, as JPEG.

        Raises:
            DataError: it cannot be read.
        """
        key = self._key(self.records[row])
        known = self._known(key)
        if known is not None:
            return known
        made = thumbnail(self.records[row], height=self.height)
        self._keep([(key, made)])
        return made

    def prepare(
        self, rows: Iterable[int], *, progress: Callable[[int, int], None] | None = None
    ) -> list[int]:
        """Makes the pictures that are not there yet, on all cores; gives the rows that cannot be read.

        Args:
            rows: which images.
            progress: called with (done, total) of those that were not there.
        """
        missing = [
            (row, key) for row in rows if self._known(key := self._key(self.records[row])) is None
        ]
        bad: list[int] = []
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for start in range(0, len(missing), AT_ONCE):
                part = missing[start : start + AT_ONCE]
                made = list(pool.map(self._attempt, [row for row, _ in part]))
                bad += [row for (row, _), jpeg in zip(part, made, strict=True) if jpeg is None]
                self._keep(
                    [(key, jpeg) for (_, key), jpeg in zip(part, made, strict=True) if jpeg is not None]
                )
                if progress is not None:
                    progress(start + len(part), len(missing))
        return bad

    def close(self) -> None:
        """Lets go of the cache."""
        self._close()

    def _attempt(self, row: int) -> bytes | None:
        try:
            return thumbnail(self.records[row], height=self.height)
        except DataError:
            return None

    def _key(self, record: Record) -> bytes:
        try:
            stat = record.path.stat()
            seen = [stat.st_size, stat.st_mtime_ns]
        except OSError:
            seen = [-1, -1]
        what = [FORMAT, self.height, os.path.abspath(record.path), seen, record.box]  # noqa: PTH100
        return hashlib.sha256(json.dumps(what).encode()).digest()[:16]

    def _known(self, key: bytes) -> bytes | None:
        with self._lock:
            found = self._database.execute(
                "SELECT jpeg FROM thumbnails WHERE key = ?", (key,)
            ).fetchone()
        return None if found is None else found[0]

    def _keep(self, made: list[tuple[bytes, bytes]]) -> None:
        """Keeps pictures, if that can be; if not, they are made again when they are looked at again."""
        with self._lock:
            try:
                self._database.execute("BEGIN")
                self._database.executemany("INSERT OR REPLACE INTO thumbnails VALUES (?, ?)", made)
                self._database.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                if self._keeps:
                    logger.warning("small pictures are shown and not kept: %s (%s)", error, self._file)
                self._keeps = False


def thumbnail(record: Record, *, height: int = HEIGHT) -> bytes:
    """A small JPEG of one image: no metadata of the file's comes with it.

    Args:
        record: the image.
        height: in pixels; the width follows from the proportions, up to `WIDEST` times as much.

    Raises:
        DataError: it cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "cow.png"
    ...     Image.new("RGB", (300, 600)).save(path)
    ...     Image.open(io.BytesIO(thumbnail(Record(path), height=100))).size
    (50, 100)
    """
    try:
        picture = crop(record, upright(record.path, draft=None if record.box else 2 * height))
        return as_jpeg(picture, height=height)
    except Exception as error:  # for broken files, Pillow's readers raise what they like
        raise DataError(
            f"{record.path} cannot be shown: {str(error) or type(error).__name__}"
        ) from error


def as_jpeg(picture: Image.Image, *, height: int = HEIGHT) -> bytes:
    """A picture in RGB, made small, as JPEG."""
    width = max(1, min(WIDEST * height, round(picture.width * height / picture.height)))
    small = picture.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
