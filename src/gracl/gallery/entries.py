"""What a gallery holds of an image besides its features, and how some of its images are meant."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gracl.data.records import Box, Record
from gracl.errors import ConfigError

UNKNOWN = "unknown"
"""The answer that no individual of the gallery is near enough; nobody can be enrolled under it."""
MONTH, DAY = "(0[1-9]|1[0-2])", "(0[1-9]|[12][0-9]|3[01])"
_TIME = re.compile(rf"\d{{4}}(-{MONTH}(-{DAY}([T ]\d\d(:\d\d(:\d\d.*)?)?)?)?)?")
FACTS = ("identity", "camera", "site", "time", "sequence")
"""What can be said of an entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a gallery; None is unknown."""

    id: int
    """Given by the gallery, rising, and never given again."""
    path: str
    """The image's file with its whole path, or what it is called that never was a file."""
    box: Box | None = None
    """The part of the image that was looked at; None is all of it."""
    identity: str | None = None
    camera: str | None = None
    site: str | None = None
    """Where the camera stood."""
    time: str | None = None
    """A day or a moment; filters read ISO 8601: 2025, 2025-04, 2025-04-01, 2025-04-01T09:30."""
    sequence: str | None = None
    """The tracklet, burst or video that the image was taken from."""
    stamp: str | None = None
    """Size and time of the file, by which it is known again."""

    @property
    def moment(self) -> str | None:
        """`time` as filters compare it; None where it is not in ISO 8601."""
        return None if self.time is None or not _TIME.fullmatch(self.time) else _iso(self.time)

    @property
    def record(self) -> Record:
        """What the rest of gracl takes."""
        return Record(Path(self.path), self.identity, self.camera, self.time, self.sequence, self.box)


@dataclass(frozen=True)
class Where:
    """Which entries are meant: those that meet every condition that is given; all, if none is.

    >>> Where(cameras=["gate"], since="2025-04").is_all
    False
    """

    ids: Collection[int] | None = None
    identities: Collection[str] | None = None
    cameras: Collection[str] | None = None
    sites: Collection[str] | None = None
    since: str | datetime.date | None = None
    """The first day or moment, included. Times are compared as exactly as both are known, and entries
    without an ISO time are neither before nor after anything."""
    until: str | datetime.date | None = None
    """The last, included to its end: until 2025-04 is all of April."""
    named: bool | None = None
    """With an identity, or without one."""

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            value = getattr(self, name)
            if isinstance(value, datetime.date):
                value = value.isoformat()
                object.__setattr__(self, name, value)
            if value is not None and not _TIME.fullmatch(value):
                raise ConfigError(
                    f"{name} is '{value}'; expected a day or a moment such as 2025, 2025-04, "
                    "2025-04-01 or 2025-04-01T09:30"
                )
        for name in ("ids", "identities", "cameras", "sites"):
            if isinstance(getattr(self, name), str | int):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected a list of such")
        if self.ids is not None:
            object.__setattr__(self, "ids", tuple(int(id) for id in self.ids))

    @property
    def is_all(self) -> bool:
        """Whether there is no condition."""
        return all(getattr(self, field.name) is None for field in fields(self))

    def sql(self, among: Callable[[str, Collection[Any]], tuple[str, Any]]) -> tuple[str, list[Any]]:
        """A condition with `?` for each of its parameters, and these.

        Args:
            among: the database's way to say that a column is one of several values.
        """
        parts: list[tuple[str, list[Any]]] = []
        for column, values in (
            ("id", self.ids),
            ("identity", self.identities),
            ("camera", self.cameras),
            ("site", self.sites),
        ):
            if values is not None:
                text, parameter = among(column, values)
                parts.append((text, [parameter]))
        if self.since is not None:
            parts.append(("moment >= substr(CAST(? AS TEXT), 1, length(moment))", [_iso(self.since)]))
        if self.until is not None:
            until = _iso(self.until)
            parts.append((f"substr(moment, 1, {len(until)}) <= ?", [until]))
        if self.named is not None:
            parts.append((f"identity IS {'NOT ' if self.named else ''}NULL", []))
        text = " AND ".join(part for part, _ in parts) or "1 = 1"
        return text, [parameter for _, some in parts for parameter in some]


def _iso(time: str | datetime.date) -> str:
    return str(time).replace(" ", "T")


def stamp_of(record: Record) -> str | None:
    """Size and time of an image's file; None of what is no file."""
    try:
        found = record.path.stat()
    except OSError:
        return None
    return f"{found.st_size}-{found.st_mtime_ns}"


def whole_path(record: Record) -> str:
    """An image's whole path, the same however it was come by; links are not followed."""
    return os.path.abspath(record.path)  # noqa: PTH100 - Path.absolute() keeps "..", resolve() follows


def checked_time(time: str | datetime.date | None) -> str | None:
    """A moment as text in ISO 8601.

    Raises:
        ConfigError: a text that is none.

    >>> checked_time(datetime.date(2025, 4, 1)), checked_time("2025-04-01T09:30")
    ('2025-04-01', '2025-04-01T09:30')
    """
    if time is None or isinstance(time, datetime.date):
        return None if time is None else time.isoformat()
    if not _TIME.fullmatch(time):
        raise ConfigError(
            f"time is '{time}'; expected a day or a moment such as 2025-04-01 or 2025-04-01T09:30"
        )
    return time


def checked_identity(identity: str) -> str:
    """A name that somebody can be enrolled under.

    Raises:
        ConfigError: it is empty, or means that nobody was recognised.
    """
    name = identity.strip()
    if not name or name.lower() == UNKNOWN:
        raise ConfigError(
            f"'{identity}' is no name for an individual: searches answer '{UNKNOWN}' for those whom "
            "the gallery does not hold. Give another"
        )
    return name
