"""What any place that keeps a gallery can do; what those that speak SQL share.

Letters: N images, Q queries, D feature dimensions.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gracl.data.records import Box
from gracl.errors import GalleryError
from gracl.gallery.entries import FACTS, Entry, Where

COLUMNS = ("id", "path", "x", "y", "w", "h", *FACTS, "stamp")
"""Of the table `entries`, which also has `moment`."""
Rows = NDArray[np.float32]
Near = tuple[NDArray[np.int64], Rows]
"""Ids of entries and their similarities, falling."""


@dataclass(frozen=True)
class About:
    """Whose features a gallery holds, fixed when it is made."""

    fingerprint: str
    """Of the model's weights."""
    backbone: str
    size: tuple[int, int]
    """(height, width) that images are resized to."""
    dim: int
    """D."""
    version: str
    """Of gracl."""
    thumbnails: bool = False
    """Whether it keeps small pictures."""

    def to_json(self) -> str:
        """As text; `of_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> About:
        """Of the text that `to_json` wrote."""
        about = json.loads(text)
        return cls(**{**about, "size": tuple(about["size"])})


class Store(ABC):
    """Entries, vectors and thumbnails in tables; a subclass brings the database and the search.

    What `add`, `name` and `remove` return from is on disk: a process killed afterwards loses nothing
    of it, one killed before leaves no part of it.
    """

    about: About
    _raw = "vector"
    """Says a vector's own bytes, as SQL."""

    # -- what a database brings --------------------------------------------------------------------

    @abstractmethod
    def _run(self, text: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Runs one statement, its parameters written `?`, and gives its rows."""

    @abstractmethod
    def _insert(self, table: str, columns: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
        """Inserts many rows."""

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Any]:
        """All of what happens inside, durably, or nothing of it."""

    @abstractmethod
    def _next_ids(self, n: int) -> range | list[int]:
        """Ids that no entry has or had; within a transaction."""

    @abstractmethod
    def _exclude_others(self) -> None:
        """Within a transaction: nobody else adds before its end."""

    @abstractmethod
    def _among(self, column: str, values: Collection[Any]) -> tuple[str, Any]:
        """The condition that a column is one of these values, with one `?`, and its parameter."""

    @abstractmethod
    def _packed(self, vector: Rows) -> Any:
        """A row of features as the database takes it."""

    @abstractmethod
    def nearest(self, queries: Rows, k: int, where: Where) -> list[Near]:
        """Of each query (Q, D), the k nearest of the entries meant, or fewer where there are fewer."""

    @abstractmethod
    def purge(self, traces: Traces) -> None:
        """Makes sure that what was removed before cannot be read from the database's files any more.

        Raises:
            GalleryError: something of it is still there, or others keep it open.
        """

    @abstractmethod
    def size_on_disk(self) -> int:
        """What it takes on disk; 0 of one in memory."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection; what was confirmed is on disk already."""

    # -- what all share ----------------------------------------------------------------------------

    def add(self, entries: Sequence[Entry], vectors: Rows, jpegs: Sequence[bytes] = ()) -> list[Entry]:
        """Holds these, in one transaction; gives them with their ids.

        Files that another process has added meanwhile are passed over.

        Args:
            entries: N, whose own ids are not read.
            vectors: (N, D) unit rows.
            jpegs: a thumbnail of each, or none at all.
        """
        with self._transaction():
            self._exclude_others()
            there = self._there([entry.path for entry in entries if entry.stamp is not None])
            fresh = [at for at, entry in enumerate(entries) if _key(entry) not in there]
            ids = self._next_ids(len(fresh))
            held = [replace(entries[at], id=id) for id, at in zip(ids, fresh, strict=True)]
            self._insert("entries", (*COLUMNS, "moment"), (_row(entry) for entry in held))
            packed = (
                (entry.id, self._packed(vectors[at])) for entry, at in zip(held, fresh, strict=True)
            )
            self._insert("vectors", ("id", "vector"), packed)
            if jpegs:
                pairs = ((entry.id, jpegs[at]) for entry, at in zip(held, fresh, strict=True))
                self._insert("thumbnails", ("id", "jpeg"), pairs)
        return held

    def _there(self, paths: Sequence[str]) -> set[tuple[Any, ...]]:
        """The files of these paths that are held, as `_key` tells them."""
        if not paths:
            return set()
        text, parameter = self._among("path", paths)
        columns = "path, x, y, w, h, stamp"
        asked = f"SELECT {columns} FROM entries WHERE {text} AND stamp IS NOT NULL"
        return {(row[0], row[1:5], row[5]) for row in self._run(asked, [parameter])}

    def find(self, where: Where, *, after: int = 0, limit: int | None = None) -> list[Entry]:
        """The entries meant, by rising id; of those above an id so many at most."""
        text, parameters = where.sql(self._among)
        head = f"SELECT {', '.join(COLUMNS)} FROM entries WHERE {text}"
        if after:
            head, parameters = f"{head} AND id > ?", [*parameters, after]
        head += " ORDER BY id"
        if limit is not None:
            head, parameters = f"{head} LIMIT ?", [*parameters, limit]
        return [_entry(row) for row in self._run(head, parameters)]

    def count(self, where: Where) -> int:
        """How many are meant."""
        text, parameters = where.sql(self._among)
        return int(self._run(f"SELECT count(*) FROM entries WHERE {text}", parameters)[0][0])

    def counts(self, fact: str) -> dict[str, int]:
        """Images by what is said of them, in order; `fact` is one of `FACTS`."""
        rows = self._run(
            f"SELECT {fact}, count(*) FROM entries WHERE {fact} IS NOT NULL GROUP BY {fact}"
        )
        return {str(name): int(count) for name, count in sorted(rows)}

    def at(self, path: str) -> list[Entry]:
        """The entries of one file."""
        rows = self._run(f"SELECT {', '.join(COLUMNS)} FROM entries WHERE path = ?", [path])
        return [_entry(row) for row in rows]

    def name(self, ids: Collection[int], identity: str | None) -> None:
        """Gives entries another identity, or takes it from them."""
        text, parameter = self._among("id", ids)
        with self._transaction():
            self._run(f"UPDATE entries SET identity = ? WHERE {text}", [identity, parameter])

    def say(self, entry: Entry) -> None:
        """Takes over what is said of an entry that is held."""
        values = [*(getattr(entry, name) for name in FACTS), entry.moment]
        columns = ", ".join(f"{name} = ?" for name in (*FACTS, "moment"))
        with self._transaction():
            self._run(f"UPDATE entries SET {columns} WHERE id = ?", [*values, entry.id])

    def remove(self, where: Where) -> list[Entry]:
        """Deletes what is held of the entries meant; gives them."""
        with self._transaction():
            entries = self.find(where)
            self._delete(entries)
        return entries

    def forget(self, where: Where) -> list[Entry]:
        """Deletes what is held of the entries meant, and sees to it that nothing is left of it.

        What is stopped on the way, or raises, is ended by the next `forget`, even of nobody.
        """
        with self._transaction():
            traces = self._traces(where)
            self._run("INSERT INTO pending VALUES ('purge')")
            self._delete(traces.entries)
        self.purge(traces)
        with self._transaction():
            self._run("DELETE FROM pending")
        return [*traces.entries]

    def must_purge(self) -> bool:
        """Whether a `forget` was stopped on the way."""
        return bool(self._run("SELECT 1 FROM pending"))

    def _delete(self, entries: Sequence[Entry]) -> None:
        text, parameter = self._among("id", [entry.id for entry in entries])
        for table in ("thumbnails", "vectors", "entries"):
            self._run(f"DELETE FROM {table} WHERE {text}", [parameter])

    def _traces(self, where: Where) -> Traces:
        """All that is held of the entries meant, as it lies on disk."""
        entries = self.find(where)
        text, parameter = self._among("id", [entry.id for entry in entries])
        vectors = self._run(f"SELECT {self._raw} FROM vectors WHERE {text}", [parameter])
        jpegs = self._run(f"SELECT jpeg FROM thumbnails WHERE {text}", [parameter])
        return Traces(
            tuple(entries),
            tuple(bytes(row[0]) for row in vectors),
            tuple(bytes(row[0]) for row in jpegs),
        )

    def thumbnail(self, id: int) -> bytes | None:
        """The JPEG of an entry's thumbnail, if it has one."""
        return _content(self._run("SELECT jpeg FROM thumbnails WHERE id = ?", [id]))

    def model(self) -> bytes | None:
        """The model's file, if it was kept."""
        return _content(self._run("SELECT content FROM model"))


@dataclass(frozen=True)
class Traces:
    """What is held of some entries, so that one can look whether it is gone."""

    entries: tuple[Entry, ...]
    vectors: tuple[bytes, ...]
    """Each row of features as it lay on disk."""
    jpegs: tuple[bytes, ...]


def _content(rows: Sequence[tuple[Any, ...]]) -> bytes | None:
    """The file in the first of some rows, if there is one."""
    if not rows:
        return None
    if not isinstance(rows[0][0], bytes | memoryview):
        raise GalleryError(
            f"the gallery is damaged: it holds a {type(rows[0][0]).__name__} where a file should be. "
            "Take a copy of it that is whole, or build it anew"
        )
    return bytes(rows[0][0])


def _row(entry: Entry) -> tuple[Any, ...]:
    box = entry.box or (None,) * 4
    facts = (getattr(entry, name) for name in FACTS)
    return (entry.id, entry.path, *box, *facts, entry.stamp, entry.moment)


def _key(entry: Entry) -> tuple[Any, ...]:
    """What tells a file's part from others; nothing that is held has that of what is no file."""
    box = entry.box or (None,) * 4
    return entry.path, tuple(box), entry.stamp


def _entry(row: tuple[Any, ...]) -> Entry:
    id, path, *box = row[:6]
    return Entry(id, path, Box(*box) if box[2] is not None else None, *row[6:])
