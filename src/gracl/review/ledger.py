"""The decisions of a review, in one SQLite file beside the run; each is on disk before it counts.

    about       key, value: whose images these are, and how the clusters were before any decision
    images      row, path (below the data's root where it lies there), x y w h, the cluster before any
                decision, and that of the review before this one, if there was one
    decisions   what was decided, by whom and when, what it changed, and whether it stands
    links       pairs of images that a decision says must, or cannot, be one individual

A decision is `done`; `undone` until it is done again, or `dropped` once another is made in its place;
`carried` where it was made about earlier clusters of the same images, and still holds for pairs.

Letters: N images.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gracl import disk, lock
from gracl.data.records import Box
from gracl.errors import GraclError, ReviewError
from gracl.links import Labels, Pairs
from gracl.review.partition import Change, Partition

VERSION = 1
"""Of the tables."""
ELSEWHERE = "gracl a copy of the run's folder"
"""What is told of a review that cannot be written."""
TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE images (
    "row" INTEGER PRIMARY KEY, path TEXT NOT NULL, x INTEGER, y INTEGER, w INTEGER, h INTEGER,
    base INTEGER NOT NULL, earlier INTEGER
);
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, text TEXT NOT NULL, by TEXT NOT NULL,
    time TEXT NOT NULL, state TEXT NOT NULL, change TEXT NOT NULL, similarity REAL
);
CREATE TABLE links (
    decision INTEGER NOT NULL REFERENCES decisions (id), kind TEXT NOT NULL, first INTEGER NOT NULL,
    second INTEGER NOT NULL, overruled_by INTEGER REFERENCES decisions (id)
);
CREATE INDEX links_of ON links (decision);
CREATE INDEX overruled ON links (overruled_by);
"""

NUMBERS = 10
"""Times as many as there are images and changes: no cluster has a higher number than that."""

Kind = Literal["must", "cannot"]
State = Literal["done", "undone", "dropped", "carried"]
Image = tuple[str, Box | None]
"""Its path, below the root where it lies there, and its box."""


@dataclass(frozen=True)
class Decision:
    """What a person said."""

    id: int
    kind: str
    """merge, split, eject, move, name, confirm, same, different or import."""
    text: str
    """In words."""
    by: str
    time: str
    """In ISO 8601, with the zone."""
    state: State
    change: Change
    similarity: float | None = None
    """Of the two groups of images, where it answers a question."""

    @property
    def undone(self) -> bool:
        """Whether it was taken back."""
        return self.state in ("undone", "dropped")

    @property
    def clusters(self) -> tuple[int, ...]:
        """Numbers of the clusters that it changed, made or ended."""
        return self.change.clusters


@dataclass(frozen=True)
class Link:
    """A pair of images that a standing decision speaks of."""

    decision: int
    kind: Kind
    first: int
    second: int
    by: str
    time: str


@dataclass(frozen=True)
class Confirmed:
    """Who said of an image that it belongs with others, and when; the latest."""

    by: str
    time: str


class Ledger:
    """Decisions on disk. One process at a time; not for several threads at once."""

    def __init__(self, path: Path) -> None:
        """Opens a file, or makes an empty one, and keeps others out until it is closed.

        One that may not be written is looked at all the same.

        Raises:
            ReviewError: another process reviews it, it is no review, or it cannot be written.
        """
        self.path, self._may_write = path, disk.may_write(path)
        self._is_holder = False
        try:
            self._database = sqlite3.connect(
                disk.database_address(path),
                isolation_level=None,
                check_same_thread=False,
                timeout=1,
                uri=True,
            )
        except sqlite3.Error as error:
            raise ReviewError(_words(path, error)) from error
        try:
            self._settle()
            self._require_sound()
        except BaseException:
            self.close()
            raise

    def _settle(self) -> None:
        """Keeps others out, makes the tables of an empty file, and looks who wrote those of another."""
        try:
            if self._may_write:
                self._keep_others_out()
            version = self.about("version")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise ReviewError(_words(self.path, error)) from error
        if version != str(VERSION):
            raise ReviewError(
                f"{self.path} was written by another version of gracl (tables {version}, not "
                f"{VERSION}). Open it with that one, or move it away to begin anew"
            )

    def _keep_others_out(self) -> None:
        # A reviewer's clicks are few, so each may wait for the disk; and nobody else writes.
        for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute("BEGIN EXCLUSIVE")
        names = {name for (name,) in self._run("SELECT name FROM sqlite_master")}
        if not names:
            for statement in TABLES.split(";"):
                self._database.execute(statement)
            self._set("version", str(VERSION))
        self._database.execute("COMMIT")
        with suppress(OSError):  # told for their convenience; the lock is the database's own
            _beside(self.path).write_bytes(lock.this_process())
            self._is_holder = True

    def close(self) -> None:
        """Lets others in."""
        self._database.close()
        if self._is_holder:
            with suppress(OSError):
                _beside(self.path).unlink(missing_ok=True)

    # -- what it is about --------------------------------------------------------------------------

    @property
    def is_new(self) -> bool:
        """Whether `begin` was not called yet."""
        return self.about("fingerprint") is None

    def about(self, key: str) -> str | None:
        """One fact of the review."""
        found = self._look("SELECT value FROM about WHERE key = ?", (key,))
        return found[0][0] if found else None

    def begin(
        self,
        images: Sequence[Image],
        labels: Labels,
        *,
        fingerprint: str,
        labels_digest: str,
        names: dict[int, str] | None = None,
        earlier: Labels | None = None,
        links: Iterable[tuple[Decision, Sequence[tuple[Kind, int, int]]]] = (),
    ) -> None:
        """Writes what the review starts from, in place of what it started from before, if anything.

        Args:
            images: of all N rows.
            labels: (N,) the clusters.
            fingerprint: of the images.
            labels_digest: of the clusters as the run has them.
            names: of clusters.
            earlier: (N,) the clusters that the review before this one ended with; below `OUTLIER` of
                images that it had not.
            links: decisions of an earlier review, with their pairs as rows of these images.
        """
        with self._transaction():
            for table in ("links", "decisions", "images"):
                self._run(f"DELETE FROM {table}")
            before = [None] * len(images) if earlier is None else earlier.tolist()
            rows = zip(images, labels.tolist(), before, strict=True)
            self._database.executemany(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (row, path, *(box or (None,) * 4), label, was)
                    for row, ((path, box), label, was) in enumerate(rows)
                ),
            )
            self._set("fingerprint", fingerprint)
            self._set("labels", labels_digest)
            self._set("names", json.dumps(list((names or {}).items())))
            for decision, pairs in links:
                id = self._insert(
                    decision.kind,
                    decision.text,
                    decision.by,
                    decision.time,
                    "carried",
                    Change(),
                    decision.similarity,
                )
                self._link(id, pairs)

    def images(self) -> list[Image]:
        """Of all rows."""
        found = self._look('SELECT path, x, y, w, h FROM images ORDER BY "row"')
        return [(path, None if box[0] is None else Box(*box)) for path, *box in found]

    def base(self) -> tuple[Labels, dict[int, str]]:
        """The clusters and their names before any decision."""
        labels = [label for (label,) in self._look('SELECT base FROM images ORDER BY "row"')]
        return np.array(labels, dtype=np.int64), dict(json.loads(self.about("names") or "[]"))

    def earlier(self) -> Labels | None:
        """(N,) the clusters that the review before this one ended with, if there was one."""
        labels = [was for (was,) in self._look('SELECT earlier FROM images ORDER BY "row"')]
        return None if None in labels else np.array(labels, dtype=np.int64)

    # -- decisions ---------------------------------------------------------------------------------

    def add(
        self,
        kind: str,
        text: str,
        by: str,
        change: Change,
        links: Sequence[tuple[Kind, int, int]],
        *,
        overrules: Sequence[Link] = (),
        similarity: float | None = None,
    ) -> Decision:
        """Writes a decision; it is on disk when this returns.

        Args:
            kind, text, by, change, similarity: see `Decision`.
            links: pairs of rows.
            overrules: links of earlier decisions that do not hold from now on.
        """
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with self._transaction():
            self._run("UPDATE decisions SET state = 'dropped' WHERE state = 'undone'")
            id = self._insert(kind, text, by, time, "done", change, similarity)
            self._link(id, links)
            self._database.executemany(
                # Also where it names a decision that was taken back: these links hold again.
                "UPDATE links SET overruled_by = ? WHERE decision = ? AND kind = ? AND first = ? "
                "AND second = ?",
                [(id, link.decision, link.kind, link.first, link.second) for link in overrules],
            )
        return Decision(id, kind, text, by, time, "done", change, similarity)

    def set_state(self, decision: Decision, state: State) -> None:
        """Takes a decision back, or makes it hold again; links that it had overruled follow."""
        with self._transaction():
            self._run("UPDATE decisions SET state = ? WHERE id = ?", (state, decision.id))

    def last(self, state: State) -> Decision | None:
        """What `undo` takes back ("done"), or `redo` does again ("undone")."""
        end = "DESC" if state == "done" else "ASC"
        found = self._decisions(f"WHERE state = ? ORDER BY id {end} LIMIT 1", (state,))
        return found[0] if found else None

    def decisions(self, limit: int | None = None) -> list[Decision]:
        """The latest, newest first."""
        return self._decisions("ORDER BY id DESC LIMIT ?", (-1 if limit is None else limit,))

    def standing(self) -> list[Decision]:
        """All that are done, in the order they were made; without those carried over."""
        return self._decisions("WHERE state = 'done' ORDER BY id")

    def counted(self) -> int:
        """Decisions that stand, those carried over among them."""
        return int(
            self._look("SELECT count(*) FROM decisions WHERE state IN ('done', 'carried')")[0][0]
        )

    def answers(self) -> list[tuple[float, bool]]:
        """Similarity and answer of each question that was answered."""
        found = self._look(
            "SELECT similarity, kind = 'same' FROM decisions WHERE state IN ('done', 'carried') "
            "AND similarity IS NOT NULL ORDER BY id"
        )
        return [(similarity, bool(same)) for similarity, same in found]

    def links(self) -> list[Link]:
        """All that hold: of standing decisions, and overruled by none that stands."""
        found = self._look(
            "SELECT l.decision, l.kind, l.first, l.second, d.by, d.time FROM links l "
            "JOIN decisions d ON d.id = l.decision LEFT JOIN decisions o ON o.id = l.overruled_by "
            "WHERE d.state IN ('done', 'carried') AND coalesce(o.state, '') NOT IN ('done', 'carried') "
            "ORDER BY l.rowid"
        )
        return [Link(*row) for row in found]

    # -- small parts -------------------------------------------------------------------------------

    def _decisions(self, where: str, parameters: Sequence[Any] = ()) -> list[Decision]:
        found = self._look(
            f"SELECT id, kind, text, by, time, state, change, similarity FROM decisions {where}",
            parameters,
        )
        return [
            Decision(id, kind, text, by, time, state, Change.of_json(json.loads(change)), similarity)
            for id, kind, text, by, time, state, change, similarity in found
        ]

    def _insert(
        self,
        kind: str,
        text: str,
        by: str,
        time: str,
        state: State,
        change: Change,
        similarity: float | None,
    ) -> int:
        cursor = self._database.execute(
            "INSERT INTO decisions (kind, text, by, time, state, change, similarity) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (kind, text, by, time, state, json.dumps(change.to_json()), similarity),
        )
        return int(cursor.lastrowid or 0)

    def _link(self, id: int, pairs: Collection[tuple[Kind, int, int]]) -> None:
        self._database.executemany(
            "INSERT INTO links (decision, kind, first, second) VALUES (?, ?, ?, ?)",
            [(id, kind, first, second) for kind, first, second in pairs],
        )

    def _set(self, key: str, value: str) -> None:
        self._run("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value))

    def _look(self, text: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What `_run` gives, of a file that may be damaged."""
        try:
            return self._run(text, parameters)
        except sqlite3.Error as error:
            raise ReviewError(_words(self.path, error)) from error

    def _require_sound(self) -> None:
        """Reads all that a review is made of: what a disk has spoilt is told before anybody decides."""
        try:
            images, (labels, names) = self.images(), self.base()
            self.earlier()
            if self._look('SELECT coalesce(max("row"), -1) FROM images')[0][0] != len(images) - 1:
                raise ValueError("images are missing")
            if not all(isinstance(text, str) for text in (*names.values(), *(p for p, _ in images))):
                raise ValueError("a name is no text")
            partition = Partition(labels, names)
            for decision in self.standing():
                partition.apply(decision.change)
            changed = sum(len(decision.change.rows) for decision in self.decisions())
            if partition.capacity > NUMBERS * (1 + len(images) + changed):
                raise ValueError(f"a cluster has the number {partition.capacity - 1}")
            if not all(-1.01 <= similarity <= 1.01 for similarity, _ in self.answers()):
                raise ValueError("an answer's similarity is none")
            links = [(link.first, link.second) for link in self.links()]
            rows = {*range(len(images))}
            if any(first not in rows or second not in rows for first, second in links):
                raise ValueError("a link names an image that is not there")
        except GraclError:
            raise
        except Exception as error:  # values of any type, in any order
            raise ReviewError(
                f"{self.path} is damaged ({type(error).__name__}: {str(error)[:100]}). Take a copy of "
                "the file that is whole, or move it away to begin anew"
            ) from error

    def _run(self, text: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._database.execute(text, parameters).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN")
            yield
            self._database.execute("COMMIT")
        except BaseException as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise ReviewError(
                    f"{_words(self.path, error)}; what was decided before stands"
                ) from error
            raise


def pairs_of(links: Iterable[Link], kind: Kind) -> Pairs:
    """(K, 2) the rows of links of one kind, of two images each: one alone asks nothing of others."""
    pairs = ((link.first, link.second) for link in links if link.kind == kind)
    found = [(first, second) for first, second in pairs if first != second]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _beside(path: Path) -> Path:
    """The file in which the process that reviews says who it is."""
    return path.with_name(f"{path.name}.holder")


def _holder(path: Path) -> str:
    try:
        return lock.holder(_beside(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return "another process"


def _words(path: Path, error: Exception) -> str:
    if "locked" in str(error):
        return f"{path} is being reviewed by {_holder(path)}. Close that one first, by Ctrl+C there"
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        return f"{path} is no review that gracl wrote. Move it away to begin anew"
    log = disk.unread_log(path)
    if log is not None:
        return (
            f"{path} cannot be read where it may not be written: {log.name} beside it holds decisions "
            "that are not in the file yet. Copy the run's folder to where you may write, with both"
        )
    cause = disk.of_sqlite(error, path) if isinstance(error, sqlite3.Error) else None
    if cause is not None:
        return f"{path} cannot be written: {disk.in_words(cause, path, ELSEWHERE)}"
    return f"{path} cannot be read or written: {error}. Give the run's folder room and permission"
