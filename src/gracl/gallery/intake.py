"""Which images a gallery does not hold yet, and how they get into it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gracl.data.records import Box, Record
from gracl.embedding import Item
from gracl.errors import DataError
from gracl.features import Features
from gracl.gallery.entries import FACTS, Entry, stamp_of, whole_path
from gracl.gallery.results import Added
from gracl.gallery.store import Store
from gracl.neighbors import check_features

QUALITY = 85
"""Of a thumbnail's JPEG."""


class Intake:
    """One addition to a store: passes over what is there, and names it if it can; keeps the rest."""

    def __init__(self, store: Store, given: Mapping[str, Any]) -> None:
        """`given` are fields of `Entry` that are true of all images of this addition."""
        self._store = store
        self._given = given
        self._stamps: dict[tuple[str, Box | None], str | None] = {}
        self.done = Added()

    def fresh(self, items: Iterable[Item]) -> Iterator[Item]:
        """The images that are not there yet, each file once; an image that is no file is always new."""
        for item in items:
            if not isinstance(item, Record) or self.is_fresh(item):
                yield item

    def is_fresh(self, record: Record) -> bool:
        """Whether an image is to be kept; counts and names those that are there already.

        Raises:
            DataError: it is there under another name.
        """
        entry = self._entry(record, stamp_of(record))
        if entry.stamp is None:
            return True
        held = self._held_as(entry)
        if held is not None:
            self.done.already += 1
            self._complete(held, entry)
            return False
        place = entry.path, entry.box
        if self._stamps.get(place) == entry.stamp:  # given twice
            self.done.already += 1
            return False
        self._stamps[place] = entry.stamp  # of before it is read: a later change is another image
        return True

    def keep(self, found: Features, pixels: NDArray[np.uint8] | None) -> None:
        """Puts features into the store, with thumbnails where there are pixels."""
        entries = [
            self._entry(record, self._stamps.get((whole_path(record), record.box)))
            for record in found.records
        ]
        if entries:
            jpegs = [] if pixels is None else [_jpeg(seen) for seen in pixels]
            held = self._store.add(entries, check_features(found.features).numpy(), jpegs)
            self.done.entries += held
            self.done.already += len(entries) - len(held)  # added by somebody else meanwhile
        self.done.left_out += found.left_out

    def _entry(self, record: Record, stamp: str | None) -> Entry:
        """What will be held of an image; its number is given by the store."""
        entry = Entry(
            0,
            whole_path(record) if stamp is not None else str(record.path),
            record.box,
            identity=record.identity,
            camera=record.camera,
            time=record.date,
            sequence=record.sequence,
            stamp=stamp,
        )
        return replace(entry, **self._given)

    def _held_as(self, entry: Entry) -> Entry | None:
        """The entry of the same file, unchanged."""
        same = (e for e in self._store.at(entry.path) if (e.box, e.stamp) == (entry.box, entry.stamp))
        return next(same, None)

    def _complete(self, held: Entry, said: Entry) -> None:
        """Takes over what is said of an image and was not known; what was known before stays."""
        if said.identity is not None and held.identity not in (None, said.identity):
            raise DataError(
                f"{held.path} is in the gallery as '{held.identity}', not as '{said.identity}'. If "
                f"that is wrong, say so: gallery.name([{held.id}], '{said.identity}'), or gracl "
                f"gallery name GALLERY '{said.identity}' {held.id}"
            )
        new = {
            name: getattr(said, name)
            for name in FACTS
            if getattr(held, name) is None and getattr(said, name) is not None
        }
        if new:
            self._store.say(replace(held, **new))
            self.done.completed += 1
        told = {name: value for name, value in self._given.items() if value is not None}
        if any(getattr(held, name) not in (None, value) for name, value in told.items()):
            self.done.kept += 1


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """(3, H, W) as a file, with nothing in it but the picture."""
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "jpeg", quality=QUALITY)
    return file.getvalue()
