"""A gallery in one file, with no server: SQLite for what is held, exact search in memory.

The file is in WAL mode with every commit synced, so what was confirmed outlives a killed process and a
power cut; several processes may use it at once. Deleted content is overwritten (`secure_delete`), and
`purge` rewrites the file and looks into it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gracl import disk
from gracl.errors import GalleryError, NoGallery
from gracl.forecast import require_memory
from gracl.gallery.entries import Entry, Where
from gracl.gallery.on_disk import found_in, stretches
from gracl.gallery.store import About, Near, Rows, Store, Traces
from gracl.gallery.vectors import Vectors
from gracl.paths import is_file, is_folder

APPLICATION = 0x6772636C
"""What the file's header says of whose it is: "grcl"."""
PAGE = 65536
"""Bytes a page: of 4096, a row of 512 float32 would fill one and leave half of it empty."""
PATIENCE = 30.0
"""Seconds that a process waits for another one's commit."""
LEAST_TEXT = 8
"""Bytes of a text that one can look for among numbers: shorter ones occur by chance."""
SCHEMA = """
CREATE TABLE about (content TEXT NOT NULL);
CREATE TABLE pending (what TEXT NOT NULL);
CREATE TABLE model (content BLOB NOT NULL);
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL,
    x INTEGER, y INTEGER, w INTEGER, h INTEGER,
    identity TEXT, camera TEXT, site TEXT, time TEXT, sequence TEXT, stamp TEXT, moment TEXT
);
CREATE INDEX entries_path ON entries (path);
CREATE INDEX entries_identity ON entries (identity);
CREATE TABLE vectors (id INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE thumbnails (id INTEGER PRIMARY KEY, jpeg BLOB NOT NULL);
"""


class SqliteStore(Store):
    """See `gracl.gallery.store.Store`."""

    def __init__(
        self, path: Path | None, about: About | None = None, model: bytes | None = None
    ) -> None:
        """Opens the file, or makes it where `about` is given; no path is a gallery in memory."""
        self.path = path
        self._connection = _connect(path, is_new=about is not None)
        try:
            if about is not None:
                self._make(about, model)
            self.about = self._read_about()
        except BaseException:
            self._connection.close()
            raise
        self._held = Vectors(self.about.dim)
        self._version: tuple[int, int] | None = None

    def _make(self, about: About, model: bytes | None) -> None:
        with _told(self.path):
            # Before there is any table; a file that was made keeps it.
            self._connection.execute(f"PRAGMA page_size = {PAGE}")
            self._settle()
        with self._transaction():
            if self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise GalleryError(f"{self.path} was made by another process just now; open it")
            for statement in SCHEMA.strip().split(";\n"):
                self._connection.execute(statement.removesuffix(";"))
            self._connection.execute(f"PRAGMA application_id = {APPLICATION}")
            self._run("INSERT INTO about VALUES (?)", [about.to_json()])
            if model is not None:
                self._run("INSERT INTO model VALUES (?)", [model])

    def _read_about(self) -> About:
        try:
            owner = self._connection.execute("PRAGMA application_id").fetchone()[0]
            if owner != APPLICATION:
                raise GalleryError(
                    f"{self.path} is a database, but no gallery of gracl's; it was not touched"
                )
            self._settle()
            return About.of_json(self._run("SELECT content FROM about")[0][0])
        except (
            sqlite3.DatabaseError, IndexError, KeyError, TypeError, ValueError, RecursionError,
        ) as error:  # fmt: skip
            if isinstance(error, sqlite3.Error) and self.path is not None:
                _raise_the_disks(error, self.path)
            raise GalleryError(
                f"{self.path} cannot be opened as a gallery: {error}. Expected a file that 'gracl "
                "gallery build' made"
            ) from error

    def _settle(self) -> None:
        if self.path is not None and not disk.may_write(self.path):
            return
        for setting in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            self._connection.execute(f"PRAGMA {setting}")

    # -- the database -------------------------------------------------------------------------------

    def _run(self, text: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _told(self.path):
            return self._connection.execute(text, tuple(parameters)).fetchall()

    def _insert(self, table: str, columns: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * len(columns))
        with _told(self.path):
            self._connection.executemany(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _told(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            with _told(self.path):
                self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _exclude_others(self) -> None:
        """A transaction of SQLite's that writes is the only one."""

    def _next_ids(self, n: int) -> range:
        last = self._run("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'entries'")
        return range(last[0][0] + 1, last[0][0] + 1 + n)

    def _among(self, column: str, values: Collection[Any]) -> tuple[str, Any]:
        return f"{column} IN (SELECT value FROM json_each(?))", json.dumps([*values])

    def _packed(self, vector: Rows) -> bytes:
        return vector.astype("<f4").tobytes()

    def size_on_disk(self) -> int:
        """The file and what SQLite keeps beside it."""
        return sum(path.stat().st_size for path in self._files())

    def close(self) -> None:
        """Also puts all into the one file, if nobody else has it open."""
        self._connection.close()

    # -- search -------------------------------------------------------------------------------------

    def nearest(self, queries: Rows, k: int, where: Where) -> list[Near]:
        """By the product with all rows, which lie in memory from the first search on."""
        self._follow()
        among = None if where.is_all else np.array(self._ids(where), dtype=np.int64)
        return self._held.nearest(queries, k, among=among)

    def _ids(self, where: Where) -> list[int]:
        text, parameters = where.sql(self._among)
        return [
            row[0] for row in self._run(f"SELECT id FROM entries WHERE {text} ORDER BY id", parameters)
        ]

    def add(self, entries: Sequence[Entry], vectors: Rows, jpegs: Sequence[bytes] = ()) -> list[Entry]:
        """See `Store.add`; what is searched already grows by these."""
        before = self._now()
        held = super().add(entries, vectors, jpegs)
        # Where nobody else wrote meanwhile, and all were new.
        if len(held) == len(entries) and before == self._version and self._now()[1] == before[1]:
            self._held.append(np.array([entry.id for entry in held], dtype=np.int64), vectors)
            self._version = self._now()
        return held

    def _now(self) -> tuple[int, int]:
        """Changes by this connection; a number that others' commits change."""
        with _told(self.path):
            return self._connection.total_changes, int(self._run("PRAGMA data_version")[0][0])

    def _follow(self) -> None:
        """Takes into memory what was added, and lets go of what was removed, here or elsewhere."""
        version = self._now()
        if version == self._version:
            return
        self._run("BEGIN")  # one state of the file for all that is read
        try:
            self._take_in()
        finally:
            self._run("COMMIT")
        self._version = version

    def _take_in(self) -> None:
        there = np.array(self._run("SELECT id FROM vectors ORDER BY id"), dtype=np.int64).reshape(-1)
        gone = np.setdiff1d(self._held.ids, there, assume_unique=True)
        if len(gone):
            self._held.drop(gone)
        last = int(self._held.ids[-1]) if len(self._held) else 0
        require_memory(
            f"searching {len(there)} images of {self.path or 'a gallery'}",
            4 * self.about.dim * int((there > last).sum()),
            "Keep the gallery on a PostgreSQL server (postgresql://...), which searches on its disk",
        )
        self._held.reserve(len(there))
        with _told(self.path):
            rows = self._connection.execute(
                "SELECT id, vector FROM vectors WHERE id > ? ORDER BY id", [last]
            )
            while batch := list(islice(rows, 4096)):
                ids = np.array([id for id, _ in batch], dtype=np.int64)
                self._held.append(ids, self._unpacked([vector for _, vector in batch]))

    def _unpacked(self, vectors: Sequence[Any]) -> Rows:
        """(B, D) rows as they lie on disk."""
        length = 4 * self.about.dim
        if not all(isinstance(vector, bytes) and len(vector) == length for vector in vectors):
            raise GalleryError(
                f"{self.path} is damaged: a row of features is not of {self.about.dim} numbers. Take a "
                "copy of the file that is whole, or build it anew"
            )
        return np.frombuffer(b"".join(vectors), dtype="<f4").reshape(len(vectors), -1)

    # -- forgetting ---------------------------------------------------------------------------------

    def purge(self, traces: Traces) -> None:
        """Rewrites the file from what is still held, empties the log of writes, and looks into both."""
        if self._version is not None:
            self._follow()  # what lies in memory too
        self._run("VACUUM")
        if self.path is None:
            return
        busy = self._run("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]
        if busy:
            raise GalleryError(
                f"it was deleted, but another process reads {self.path}, so the old pages could not be "
                "cleared. Close the other one and type the same again"
            )
        pieces = [*map(stretches, (*traces.vectors, *traces.jpegs)), self._texts(traces)]
        left = found_in(self._files(), (piece for some in pieces for piece in some))
        if lost := [piece for piece in left if not self._is_held(piece)]:
            raise GalleryError(
                f"{len(lost)} pieces of what was deleted can still be found in {self.path}. Please "
                "report this; until then remove the file and build it anew"
            )

    def _texts(self, traces: Traces) -> list[bytes]:
        """Paths and names that are worth looking for."""
        texts = {entry.path for entry in traces.entries}
        texts |= {entry.identity for entry in traces.entries if entry.identity is not None}
        return [text.encode() for text in texts if len(text.encode()) >= LEAST_TEXT]

    def _is_held(self, piece: bytes) -> bool:
        """Whether an entry that was not deleted says the same: a copy of an image, a shared folder."""
        held = (
            "EXISTS (SELECT 1 FROM vectors WHERE instr(vector, piece))",
            "EXISTS (SELECT 1 FROM thumbnails WHERE instr(jpeg, piece))",
            "EXISTS (SELECT 1 FROM entries WHERE instr(CAST(path AS BLOB), piece)"
            " OR instr(CAST(identity AS BLOB), piece))",
        )
        asked = f"WITH asked(piece) AS (VALUES (?)) SELECT {' OR '.join(held)} FROM asked"
        return bool(self._run(asked, [piece])[0][0])

    def _files(self) -> list[Path]:
        if self.path is None:
            return []
        names = (self.path.name + ending for ending in ("", "-wal", "-journal"))
        return [path for name in names if (path := self.path.with_name(name)).is_file()]


def _connect(path: Path | None, *, is_new: bool) -> sqlite3.Connection:
    if path is None:
        return sqlite3.connect(":memory:", isolation_level=None)
    if not is_folder(path.parent):
        raise GalleryError(f"{path.parent} is no folder: make it, or give another place")
    is_used = is_file(path) and not _is_blank(path)
    if is_new and (is_used or is_folder(path)):
        raise GalleryError(f"{path} is there already; add to it, or give another name")
    if not is_new and is_folder(path):
        raise NoGallery(
            f"{path} is a folder, and a gallery is one file. Make one: gracl gallery build "
            "NEW.gallery RUN IMAGES"
        )
    if not is_new and not is_used:
        raise NoGallery(f"there is no gallery {path}. Make one: gracl gallery build {path} RUN IMAGES")
    with _told(path):
        address = disk.database_address(path)
        return sqlite3.connect(address, timeout=PATIENCE, isolation_level=None, uri=True)


def _is_blank(path: Path) -> bool:
    """Whether a file is what a process leaves that was killed before there was a gallery.

    Only SQLite may open it: see `gracl.gallery.on_disk`.
    """
    with _told(path), closing(sqlite3.connect(disk.database_address(path), uri=True)) as connection:
        try:
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            owner = connection.execute("PRAGMA application_id").fetchone()[0]
        except sqlite3.DatabaseError:
            return False
    return not tables and owner in (0, APPLICATION)


def _raise_the_disks(error: sqlite3.Error, path: Path) -> None:
    """A `GalleryError` that says what the disk did not take, where that is why SQLite failed."""
    cause = disk.of_sqlite(error, path)
    if cause is None:
        return
    log = disk.unread_log(path)
    if log is not None:
        raise GalleryError(
            f"{path} cannot be read where it may not be written: {log.name} beside it holds what is "
            "not in the file yet. Copy both to a folder of yours, and open the copy"
        ) from error
    words = disk.in_words(cause, path, "another place")
    may_search = "" if cause.errno in disk.FULL else ". Searches need no permission to write"
    raise GalleryError(
        f"{path} cannot be written: {words}; what was confirmed before is intact{may_search}"
    ) from error


@contextmanager
def _told(path: Path | None) -> Iterator[None]:
    """A full disk, a lock that is not let go of, a damaged file: in words."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise GalleryError(
            f"{path or 'the gallery in memory'}: {error} Open it anew; give each thread one of its own"
        ) from error
    except sqlite3.OperationalError as error:
        if path is not None:
            _raise_the_disks(error, path)
        raise GalleryError(
            f"{path or 'the gallery in memory'}: {error}. What was confirmed before is intact; wait "
            "for the other process, or free the disk, and type the same again"
        ) from error
    except sqlite3.DatabaseError as error:
        raise GalleryError(f"{path}: {error}. Take a copy of the file before anything else") from error
