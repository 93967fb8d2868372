"""Exact search among rows that are held in memory and change.

Letters: N rows, Q queries, D dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gracl.gallery.shortcut import AFTER, Shortcut, find_shortcut
from gracl.neighbors import MEMORY

Ids = NDArray[np.int64]
Rows = NDArray[np.float32]

FEW = 16
"""Queries up to which each goes by the shortcut; of more, one product for all is quicker."""


class Vectors:
    """(N, D) unit rows by rising id.

    >>> held = Vectors(2)
    >>> held.append(np.array([7, 9]), np.eye(2, dtype=np.float32))
    >>> held.nearest(np.float32([[0, 1]]), k=1)[0][0].tolist()
    [9]
    """

    def __init__(self, dim: int) -> None:
        self._ids = np.empty(0, dtype=np.int64)
        self._rows = np.empty((0, dim), dtype=np.float32)
        self._n = 0
        self._asked = self._tried = 0
        """Queries that could have gone by the shortcut, and rows when one was looked for last."""
        self._shortcut: Shortcut | None = None

    def __len__(self) -> int:
        return self._n

    @property
    def ids(self) -> Ids:
        """(N,), rising."""
        return self._ids[: self._n]

    def append(self, ids: Ids, rows: Rows) -> None:
        """Holds more rows, whose ids are above all that are held."""
        end = self._n + len(ids)
        if end > len(self._ids):  # by a half more, so that many small batches are not copied each time
            self.reserve(max(end, 3 * len(self._ids) // 2))
        self._ids[self._n : end] = ids
        self._rows[self._n : end] = rows
        self._n = end
        if self._shortcut is not None:
            self._shortcut.append(rows)

    def reserve(self, room: int) -> None:
        """Makes room for so many rows in all."""
        if room > len(self._ids):
            self._ids = _longer(self._ids, self._n, room)
            self._rows = _longer(self._rows, self._n, room)

    def drop(self, ids: Ids) -> None:
        """Lets go of rows, and of their numbers in memory."""
        kept = ~np.isin(self.ids, ids)
        n = int(kept.sum())
        self._ids = np.ascontiguousarray(self.ids[kept])
        self._rows, old = self._rows[: self._n][kept], self._rows
        old[:] = 0
        self._n = n
        if self._shortcut is not None:
            self._shortcut.keep(kept)

    def nearest(
        self, queries: Rows, k: int, *, among: Ids | None = None, memory: int = MEMORY
    ) -> list[tuple[Ids, Rows]]:
        """Of each query, ids and similarities of the k nearest rows, nearest first.

        Equals stand by rising id; which of several equals is the last of the k is not said.

        Args:
            queries: (Q, D) unit rows.
            k: how many; fewer where there are fewer.
            among: ids, rising, of the rows to search, those that are not held passed over; None is all.
            memory: bytes that a block of similarities may take.
        """
        place = None if among is None else self._places(among)
        n = self._n if place is None else len(place)
        k = min(k, n)
        if not k or not len(queries):
            return [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        asked = np.ascontiguousarray(queries, dtype=np.float32)
        places = self._by_shortcut(asked, k, place)
        if places is None:
            places = self._by_product(asked, k, place, memory)
        return [self._sorted(at, query) for at, query in zip(places, asked, strict=True)]

    def _by_shortcut(self, queries: Rows, k: int, place: Ids | None) -> list[Ids] | None:
        """Places of the nearest rows of each query; None where the product is the better way."""
        if len(queries) > FEW or (place is not None and 2 * len(place) < self._n):
            return None
        self._asked += len(queries)
        if self._shortcut is None and self._asked >= AFTER and self._n >= 2 * self._tried:
            self._shortcut, self._tried = find_shortcut(self._rows[: self._n]), self._n
        if self._shortcut is None:
            return None
        mask = None
        if place is not None:
            mask = np.zeros(self._n, dtype=np.bool_)
            mask[place] = True
        found = []
        for query in queries:
            at = self._shortcut.nearest(query, k, self._rows[: self._n], mask)
            if at is None:
                return None
            found.append(at)
        return found

    def _by_product(self, queries: Rows, k: int, place: Ids | None, memory: int) -> list[Ids]:
        """Places of the nearest rows of each query, by the product with all that are searched."""
        n = self._n if place is None else len(place)
        step = max(k, 4096, memory // (4 * len(queries)))
        asked = torch.from_numpy(queries)
        best = torch.empty(len(queries), 0)
        at = torch.empty(len(queries), 0, dtype=torch.int64)
        for start in range(0, n, step):
            part = slice(start, min(n, start + step))
            rows = self._rows[part] if place is None else self._rows[place[part]]
            similarities = asked @ torch.from_numpy(rows).T
            values, columns = similarities.topk(min(k, len(rows)), dim=1)
            best, at = torch.cat([best, values], dim=1), torch.cat([at, columns + start], dim=1)
            best, order = best.topk(min(k, best.shape[1]), dim=1)
            at = at.gather(1, order)
        return [*(at.numpy() if place is None else place[at.numpy()])]

    def _sorted(self, places: Ids, query: Rows) -> tuple[Ids, Rows]:
        """Ids and similarities, falling; both ways give the same numbers, for they are taken here."""
        ids, similarities = self.ids[places], self._rows[places] @ query
        order = np.lexsort((ids, -similarities))
        return ids[order], similarities[order]

    def _places(self, ids: Ids) -> Ids:
        at = np.minimum(np.searchsorted(self.ids, ids), max(0, self._n - 1))
        return at[self.ids[at] == ids] if self._n else at[:0]


def _longer(array: NDArray[Any], n: int, room: int) -> NDArray[Any]:
    longer = np.empty((room, *array.shape[1:]), dtype=array.dtype)
    longer[:n] = array[:n]
    return longer
