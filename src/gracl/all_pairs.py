"""Each image against all others, a block at a time: the impostors near a threshold, and each search.

No N x N matrix is held; of very many images some search all others, drawn by a seed.

Letters: N images, D feature dimensions, U units (individuals, tracklets or clusters).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gracl.error_rates import Comparisons, list_comparisons
from gracl.errors import ShapeError
from gracl.metrics import Codes, Side, junk

PRODUCTS = 200_000_000
"""Similarities that are looked at; of larger sets, fewer images search the others."""
FALSE_MATCHES = 500_000
"""As many tell a rate as exactly as need be; the products that give so many are enough."""
LISTED = 1_000_000
"""Similarities of impostors that are kept in any case, the largest ones."""
TAIL = 10
"""Times the false matches asked for that are kept: the interval's other end must be among them."""
BLOCK = 4_000_000
"""Similarities at a time."""


@dataclass(frozen=True, eq=False)
class Searches:
    """Each image as a query among all others."""

    strangers: Comparisons
    """The most similar image of anyone else: what answers an individual that is not in the gallery."""
    known: Comparisons | None
    """The most similar valid match, -1 where another individual stands before it; None if no image has
    a match."""
    gallery: int
    """Images that are searched among."""


def compare_all(
    features: Tensor, side: Side, rate: float, seed: int
) -> tuple[Comparisons, Searches, tuple[str, ...]]:
    """Impostors among all pairs, each image's search, and what was drawn.

    Args:
        features: (N, D) unit rows.
        side: what is known of the N images; all of known identity.
        rate: the false match rate that will be asked for: it decides how many similarities are kept.
        seed: of the draw, where there are very many images.

    Raises:
        ShapeError: features hold NaN.
    """
    n, n_units = len(side), int(side.pids.max()) + 1
    probes = _probes(side.pids, max(1, min(n, int(min(PRODUCTS, FALSE_MATCHES / rate) / n))), seed)
    counts = np.bincount(side.pids, minlength=n_units).astype(np.float64)
    asked = np.bincount(side.pids[probes], minlength=n_units).astype(np.float64)
    left = counts - asked  # pairs of two images that do not search are not looked at
    n_pairs = int(((n**2 - (counts**2).sum()) - (left.sum() ** 2 - (left**2).sum())) / 2)
    tail = _Tail(max(LISTED, int(TAIL * rate * n_pairs)))
    blocks = zip(*_scan(features, side, probes, tail), strict=True)
    best, answer, own = (np.concatenate(part) for part in blocks)
    similarities, rows, columns = tail.falling()
    first, second = side.pids[rows], side.pids[columns]
    impostors = Comparisons(
        similarities,
        first,
        second,
        n=n_pairs,
        of_unit=counts * (n - counts) - left * (left.sum() - left),
        shared=counts[first] * counts[second] - left[first] * left[second],
        squares=_off_diagonal(counts, counts)
        - 2 * _off_diagonal(counts, left)
        + _off_diagonal(left, left),
    )
    searchers = side.pids[probes]
    searches = Searches(
        _strangers(best, searchers, side.pids[answer], asked),
        _known(own, best, searchers, n_units),
        gallery=n,
    )
    drawn = f"{len(probes)} of {n} images, drawn with seed {seed}, searched all others"
    return impostors, searches, (drawn,) * (len(probes) < n)


def members_of(units: Codes) -> list[Codes]:
    """The rows of each unit."""
    order = np.argsort(units, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(units[order])) + 1)


def _off_diagonal(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The sum of a_i b_i a_j b_j over pairs i < j."""
    return float(((a * b).sum() ** 2 - ((a * b) ** 2).sum()) / 2)


def _probes(pids: Codes, n: int, seed: int) -> Codes:
    """So many rows, as evenly from all individuals as can be."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(pids))
    turn = np.zeros(len(pids), dtype=np.int64)
    for rows in members_of(pids[order]):
        turn[order[rows]] = np.arange(len(rows))
    return np.sort(order[np.argsort(turn[order], kind="stable")][:n])


Found = tuple[NDArray[np.float32], Codes, NDArray[np.float32]]


def _scan(features: Tensor, side: Side, probes: Codes, tail: _Tail) -> Iterator[Found]:
    """Of each block of probes: the nearest stranger, who that is, and the nearest valid match."""
    pids = torch.from_numpy(side.pids)
    first = np.full(len(side), len(side), dtype=np.int64)  # a pair of two probes is seen twice
    first[probes] = probes
    step = max(1, BLOCK // len(side))
    for start in range(0, len(probes), step):
        rows = probes[start : start + step]
        block = (features[torch.from_numpy(rows)] @ features.T).float().cpu()
        if torch.isnan(block).any():
            raise ShapeError(
                "features hold NaN; expected numbers. Check the model's weights and the images"
            )
        same = pids[rows, None] == pids
        hidden = ~same | torch.from_numpy(junk(side, side, rows))
        own = block.masked_fill(hidden, -torch.inf).max(dim=1).values
        block.masked_fill_(same, -torch.inf)
        best, answer = block.max(dim=1)
        tail.add(block.masked_fill_(torch.from_numpy(first[None] < rows[:, None]), -torch.inf), rows)
        yield best.numpy(), answer.numpy(), own.numpy()


def _strangers(
    best: NDArray[np.float32], searchers: Codes, answers: Codes, asked: NDArray[np.float64]
) -> Comparisons:
    """A search is one comparison, between the individual searched for and the one that answers.

    Every other individual is as likely to be the one that answers, before the similarities are seen.
    """
    order = np.argsort(-best, kind="stable")
    first, second = searchers[order], answers[order]
    others, n = len(asked) - 1, len(best)
    squares = others * float((asked**2).sum()) + 2 * _off_diagonal(asked, np.ones_like(asked))
    return Comparisons(
        best[order],
        first,
        second,
        n=n,
        of_unit=asked + (n - asked) / others,
        shared=(asked[first] + asked[second]) / others,
        squares=squares / others**2,
    )


def _known(
    own: NDArray[np.float32], best: NDArray[np.float32], searchers: Codes, n_units: int
) -> Comparisons | None:
    """Searches by individuals that the gallery holds; found where nobody else stands before them."""
    known = own > -np.inf
    if not known.any():
        return None
    found = np.where(own > best, own, np.float32(-1))[known]
    return list_comparisons(found, searchers[known], searchers[known], n_units)


class _Tail:
    """The largest similarities of all blocks that are shown, with their places."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._kept = np.zeros(0, dtype=np.float32)
        self._places = np.zeros((2, 0), dtype=np.int32)

    def add(self, block: Tensor, rows: Codes) -> None:
        """Takes in a block of these rows by all columns; -inf is no comparison."""
        floor = float(self._kept.min()) if len(self._kept) >= self.room else -torch.inf
        at, columns = torch.nonzero(block > floor, as_tuple=True)
        values = block[at, columns].numpy()
        self._kept = np.concatenate([self._kept, values])
        places = np.stack([rows[at.numpy()], columns.numpy()]).astype(np.int32)
        self._places = np.concatenate([self._places, places], axis=1)
        if len(self._kept) > self.room:
            kept = np.argpartition(self._kept, len(self._kept) - self.room)[-self.room :]
            self._kept, self._places = self._kept[kept], self._places[:, kept]

    def falling(self) -> tuple[NDArray[np.float32], Codes, Codes]:
        """The similarities, their rows and their columns."""
        order = np.lexsort((self._places[1], self._places[0], -self._kept))
        rows, columns = self._places[:, order].astype(np.int64)
        return self._kept[order], rows, columns
