"""What is known of images: one `Record` an image, `Records` a list of them, a `Dataset` its splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

Field = Literal["identity", "camera", "date", "sequence"]
"""The facts of a record that images can be grouped by."""
FIELDS: tuple[Field, ...] = ("identity", "camera", "date", "sequence")


class Box(NamedTuple):
    """A crop, in pixels of the upright image."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Record:
    """One image and what is known of it; None is unknown."""

    path: Path
    identity: str | None = None
    camera: str | None = None
    date: str | None = None
    sequence: str | None = None
    """The tracklet, burst or video that the image was taken from."""
    box: Box | None = None
    """The part of the image to look at; None is all of it."""


@dataclass(frozen=True)
class Records(Sequence[Record]):
    """An immutable list of records. Features, labels and codes are always in its order."""

    items: tuple[Record, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Record | Records:
        return Records(self.items[index]) if isinstance(index, slice) else self.items[index]

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Records:
        """The records at these places, in this order."""
        return Records(tuple(self.items[i] for i in indices))

    def unlabelled(self) -> Records:
        """The same images without their identities: all that training may see.

        >>> Records((Record(Path("a.jpg"), identity="1", camera="c1"),)).unlabelled()[0].identity
        """
        return Records(tuple(replace(record, identity=None) for record in self.items))

    def values(self, name: Field) -> list[str | None]:
        """One fact of every record."""
        return [getattr(record, name) for record in self.items]

    def has(self, name: Field) -> bool:
        """Whether the fact is known of any record."""
        return any(value is not None for value in self.values(name))


def codes(name: Field, *sides: Records) -> tuple[NDArray[np.int64], ...]:
    """One fact as integers, the same integer for the same text on every side; -1 is unknown.

    >>> a = Records((Record(Path("a"), camera="east"), Record(Path("b"))))
    >>> b = Records((Record(Path("c"), camera="west"), Record(Path("d"), camera="east")))
    >>> [c.tolist() for c in codes("camera", a, b)]
    [[0, -1], [1, 0]]
    """
    known = sorted({value for side in sides for value in side.values(name) if value is not None})
    number: dict[str | None, int] = {value: i for i, value in enumerate(known)}
    return tuple(
        np.array([number.get(value, -1) for value in side.values(name)], dtype=np.int64)
        for side in sides
    )


@dataclass(frozen=True)
class Problem:
    """A file or a row that could not be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Images to train on, and images to be tested with."""

    name: str
    root: Path
    layout: str
    """How it was read: a name of `gracl.data.layouts.LAYOUTS`, "csv", "folder" or another reader's."""
    train: Records
    query: Records = field(default_factory=Records)
    gallery: Records = field(default_factory=Records)
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader should know before trusting a number taken on it."""
    protocol: str | None = None
    """The protocol that its published numbers were taken under, where a benchmark has one of its own;
    see `gracl.data.protocols.BENCHMARKS`."""
    given: tuple[str, ...] = ()
    """What `gracl.load_dataset` was given, its places absolute: given it again, it reads the same.
    Empty for what was not read by it."""

    @property
    def test(self) -> tuple[Records, Records]:
        """(query, gallery) as given; where there are none, the training images search themselves."""
        if self.query and self.gallery:
            return self.query, self.gallery
        return self.train, self.train

    @property
    def tests_on_training_images(self) -> bool:
        """Whether scores would be taken on the very images that were trained on."""
        return self.test[0] is self.train
