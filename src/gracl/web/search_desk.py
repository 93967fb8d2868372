"""The threads behind the search page: one holds the model and searches, one looks things up.

A gallery's object belongs to the thread that opened it (its connection does, and what it holds in
memory), so each thread has one of its own and nothing is shared. Searches that wait for the model are
taken together: one pass of the network for all of them.

Letters: B searches taken together.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gracl.calibration import Calibration
from gracl.data.records import Record, Records
from gracl.data.thumbnails import thumbnail
from gracl.embedding import embed_pixels
from gracl.errors import DataError
from gracl.features import Features, no_features
from gracl.gallery.entries import Entry, Where, stamp_of
from gracl.gallery.gallery import Gallery
from gracl.gallery.postgres import is_url
from gracl.gallery.results import Found
from gracl.paths import is_file
from gracl.web.uploads import Picture

TOGETHER = 16
"""B at most."""
QUERY = Record(Path("picture"))
"""What is searched for has no file."""
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Search:
    """What is looked for."""

    picture: Picture
    k: int
    where: Where


Job = tuple[Search, Future[Found]]


class Desk:
    """A gallery that many may search at once; a context manager."""

    def __init__(
        self,
        place: str | Path,
        model: Path | None = None,
        *,
        calibration: Calibration | None = None,
        device: str = "auto",
        together: int = TOGETHER,
    ) -> None:
        """Opens it, twice.

        Args:
            place: see `gracl.Gallery.open`.
            model: see there.
            calibration: the threshold that means unknown.
            device: where pictures are embedded.
            together: B at most.

        Raises:
            GalleryError: there is none, or it keeps no model and none was given.
            FingerprintError: model or calibration are of another model.
        """
        self.place, self.calibration, self.together = str(place), calibration, together
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        opened: Future[Gallery] = Future()
        self._searcher = threading.Thread(
            target=self._search_for_ever, args=(model, device, opened), name="searcher", daemon=True
        )
        self._searcher.start()
        found = opened.result()
        self._lookup = ThreadPoolExecutor(1, "lookup")
        embedder = found.model
        self.about, self.size = found.about, embedder.size
        self._gallery = self._lookup.submit(Gallery.open, place, embedder, device=device).result()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends both threads; what waits is still answered."""
        self._waiting.put(None)
        self._searcher.join()
        self._lookup.submit(self._gallery.close).result()
        self._lookup.shutdown()

    @property
    def name(self) -> str:
        """Of the gallery, without where it lies."""
        if is_url(self.place):
            return self.place.partition("#")[2] or "gracl"
        return Path(self.place).name

    # -- looking up ---------------------------------------------------------------------------------

    def look(self, action: Callable[[Gallery], Result]) -> Future[Result]:
        """Has something looked up in the gallery; waits for no search."""
        return self._lookup.submit(lambda: action(self._gallery))

    # -- searching ----------------------------------------------------------------------------------

    def search(self, search: Search) -> Future[Found]:
        """Has a picture searched for."""
        answer: Future[Found] = Future()
        self._waiting.put((search, answer))
        return answer

    def _search_for_ever(self, model: Path | None, device: str, opened: Future[Gallery]) -> None:
        """The searching thread: opens a gallery of its own, then answers until it is closed."""
        try:
            gallery = Gallery.open(self.place, model, device=device)
        except BaseException as error:
            opened.set_exception(error)
            return
        try:
            whose = no_features(gallery.model)
            # Network and gallery are warm before the first visitor, and a wrong calibration is told.
            blank = np.zeros((3, *gallery.model.size), dtype=np.uint8)
            found = _embedded(gallery, whose, [blank])
            gallery.search_features(found, k=1, threshold=self.calibration)
            opened.set_result(gallery)
            while batch := self._next():
                self._answer(gallery, whose, batch)
        except BaseException as error:
            opened.set_exception(error)  # before anybody was let in; a search's errors are its own
        finally:
            gallery.close()

    def _next(self) -> list[Job]:
        """Those that wait, B at most, once there is one; none when all is over."""
        batch: list[Job] = []
        while len(batch) < self.together:
            try:
                job = self._waiting.get(block=not batch)
            except queue.Empty:
                break
            if job is None:
                if batch:
                    self._waiting.put(None)  # to be found again after these
                break
            if job[1].set_running_or_notify_cancel():  # else its visitor has gone
                batch.append(job)
        return batch

    def _answer(self, gallery: Gallery, whose: Features, batch: list[Job]) -> None:
        """Embeds all at once, then searches once for all that have the same k and filters."""
        try:
            found = _embedded(gallery, whose, [search.picture.pixels for search, _ in batch])
        except Exception as error:
            for _, answer in batch:
                answer.set_exception(error)
            return
        for rows in _alike([search for search, _ in batch]):
            part = replace(found, features=found.features[rows], records=found.records.take(rows))
            first = batch[rows[0]][0]
            try:
                answers = gallery.search_features(
                    part, k=first.k, threshold=self.calibration, where=first.where
                )
                for row, hits in zip(rows, answers, strict=True):
                    batch[row][1].set_result(hits)
            except Exception as error:
                for row in rows:
                    batch[row][1].set_exception(error)


def _alike(searches: Sequence[Search]) -> list[list[int]]:
    """Rows of searches that differ in their pictures alone."""
    groups: list[list[int]] = []
    for row, search in enumerate(searches):
        for group in groups:
            first = searches[group[0]]
            if (first.k, first.where) == (search.k, search.where):
                group.append(row)
                break
        else:
            groups.append([row])
    return groups


def _embedded(gallery: Gallery, whose: Features, pixels: Sequence[NDArray[np.uint8]]) -> Features:
    features = embed_pixels(gallery.model, np.stack(pixels))
    return replace(whose, features=features, records=Records((QUERY,) * len(pixels)))


def small_picture(entry: Entry) -> bytes:
    """A JPEG of an entry's own file on this machine.

    Raises:
        DataError: it is no longer there, was changed since it was added, or never was a file.
    """
    if entry.stamp is None or not is_file(entry.record.path):
        raise DataError("its file is not on this machine")
    if stamp_of(entry.record) != entry.stamp:
        raise DataError("its file was changed after it was added")
    return thumbnail(entry.record)
