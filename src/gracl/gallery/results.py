"""What a gallery answers: hits, whose an image is, what came of adding images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
from numpy.typing import NDArray

from gracl.calibration import Calibration
from gracl.data.records import Problem, Record
from gracl.gallery.entries import UNKNOWN, Entry

Threshold = float | Calibration
"""Similarity from which two images are taken for one individual's, or what chose it."""


@dataclass(frozen=True)
class Hit:
    """An image of the gallery that is near to the query."""

    similarity: float
    """Cosine, 1 at most."""
    entry: Entry

    @property
    def path(self) -> str:
        """The image's file."""
        return self.entry.path

    @property
    def identity(self) -> str | None:
        """Whose it is, if that was said."""
        return self.entry.identity


@dataclass(frozen=True)
class Found(Sequence[Hit]):
    """What a search found for one image: its hits, nearest first, and whose it is."""

    query: Record
    hits: tuple[Hit, ...]
    """The k nearest; where none of them has a name and somebody farther answers, that one as well."""
    identity: str | None
    """The nearest named image's, if it reaches the threshold; "unknown" where a threshold was given and
    no image reaches it; None where no one near enough has a name. Without a threshold nearest means
    nothing but nearest: everybody is answered by somebody."""

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]


@dataclass
class Added:
    """What came of adding images."""

    entries: list[Entry] = field(default_factory=list)
    """Those that were added."""
    already: int = 0
    """Images that were there, by path, box, and the file's size and time."""
    completed: int = 0
    """Of these, images of which something was said that was not known: a name, a camera, ..."""
    kept: int = 0
    """Of these, images of which something else was said than is known, and that stayed as they were."""
    left_out: list[Problem] = field(default_factory=list)
    """Images that could not be read."""

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def seen(self) -> int:
        """Images so far, of whatever kind."""
        return len(self.entries) + self.already + len(self.left_out)


def answer(
    entries: Mapping[int, Entry],
    ids: NDArray[np.int64],
    values: NDArray[np.float32],
    limit: float | None,
) -> str | None:
    """Whose an image is, by its nearest entries; `Found.identity` says what the answers mean.

    Args:
        entries: by id.
        ids, values: of the nearest, falling.
        limit: the threshold, if there is one; a similarity that equals it reaches it.

    >>> answer({7: Entry(7, "a.jpg", identity="Ada")}, np.array([7]), np.float32([0.5]), 0.6)
    'unknown'
    """
    if limit is not None and not (len(values) and values[0] >= limit):
        return UNKNOWN
    for id, value in zip(ids, values, strict=True):
        entry = entries.get(int(id))
        if entry is not None and entry.identity and (limit is None or value >= limit):
            return entry.identity
    return None
