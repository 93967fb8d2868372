"""Exact search for less than the product with every row, where the rows' spectrum falls.

A row is f = h + r, its part in a few leading principal directions and the rest, so by Cauchy-Schwarz

    q . f  =  h_q . h_f + r_q . r_f  <=  h_q . h_f + |r_q| |r_f|

and the right side is a product of short rows. The rows of the largest bounds are multiplied out; the
k-th similarity among them is a threshold, and only rows whose bound reaches it can be nearer. It is the
bound of `gracl.neighbors`' pruned search, for queries from outside and rows that come and go.

Letters: N rows, Q queries, D dimensions, m directions.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[np.int64]
Rows = NDArray[np.float32]

FROM = 20_000
"""Rows below which a product with all of them is quick enough."""
AFTER = 20
"""Queries before it is made: it costs about as much as so many of them."""
GUESSES = 64
"""Rows multiplied out first, beyond the k that are wanted."""
SLACK = 1e-5
"""What rounding may take from a bound; of very long rows more, in proportion."""
TOO_MANY = 0.2
"""Share of rows to multiply out above which the product with all of them is quicker."""


class Shortcut:
    """Short rows beside full ones, in the same order."""

    def __init__(self, directions: Tensor, rows: Rows) -> None:
        """`directions` (D, m) are orthonormal; `rows` (N, D) are those held already."""
        self._directions = directions
        self._short = _short(rows, directions)
        self._n = len(rows)

    def append(self, rows: Rows) -> None:
        """Follows rows that were added at the end."""
        end = self._n + len(rows)
        if end > len(self._short):  # by a half more, as the full rows grow
            longer = torch.empty(max(end, 3 * len(self._short) // 2), self._short.shape[1])
            longer[: self._n] = self._short[: self._n]
            self._short = longer
        self._short[self._n : end] = _short(rows, self._directions)
        self._n = end

    def keep(self, kept: NDArray[np.bool_]) -> None:
        """Follows rows that were let go of; `kept` (N,) says which stayed."""
        self._short, old = self._short[: self._n][torch.from_numpy(kept)], self._short
        old.zero_()
        self._n = len(self._short)

    def nearest(self, query: Rows, k: int, rows: Rows, mask: NDArray[np.bool_] | None) -> Ids | None:
        """Places of the k rows nearest to one query, in no order; None where too many might be.

        Args:
            query: (D,).
            k: at most as many as there are rows to search.
            rows: (N, D) the full rows.
            mask: (N,) which rows to search; None is all.
        """
        bounds = (self._short[: self._n] @ _short(query[None], self._directions)[0]).numpy()
        if mask is not None:
            bounds[~mask] = -np.inf
        guesses = min(self._n if mask is None else int(mask.sum()), k + GUESSES)
        first = torch.from_numpy(bounds).topk(guesses, sorted=False).indices.numpy()
        least = np.partition(rows[first] @ query, guesses - k)[guesses - k]
        places = np.flatnonzero(bounds >= least - max(SLACK, len(query) * 2.0**-24))
        if len(places) > TOO_MANY * len(bounds):
            return None
        found = torch.from_numpy(rows[places] @ query).topk(min(k, len(places)), sorted=False)
        chosen: Ids = places[found.indices.numpy()]
        return chosen


def find_shortcut(rows: Rows) -> Shortcut | None:
    """One for these rows, or None where a sample of them says that it would not pay."""
    if len(rows) < FROM or importlib.util.find_spec("numba") is None:
        return None
    from gracl import _search_pruned

    plan = _search_pruned.plan(torch.from_numpy(rows), 10)
    return None if plan is None else Shortcut(plan.directions, rows)


def _short(rows: Rows, directions: Tensor) -> Tensor:
    """(N, m + 1): the part in the directions, and the length of the rest, rather too large."""
    parts = []
    for part in torch.split(torch.from_numpy(rows), 65536):
        head = part @ directions
        rest = (part.square().sum(dim=1) - head.square().sum(dim=1)).clamp(min=0)
        parts.append(torch.cat([head, (rest + 1e-6).sqrt()[:, None]], dim=1))
    return torch.cat(parts) if parts else torch.empty(0, directions.shape[1] + 1)
