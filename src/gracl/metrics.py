"""Retrieval scores from the ranks of true matches: mAP, CMC, mINP.

Only the ranks of a query's matches are needed, so nothing is sorted whole: for each match we count
the gallery images that stand before it, one block of queries at a time, and no Q x G matrix exists.

Two rules settle what the numbers mean:

* **Junk** is neither right nor wrong and is taken out of a query's list: images of the query's own
  identity that its protocol does not accept as a match (the same camera, say), and the query's own
  image.
* **Ties count against the query**: an image of another identity that is as near as a match stands
  before it. So a model that gives every image the same feature scores worst, not by luck.

Letters: Q queries, G gallery images, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gracl.errors import EvaluationError, ShapeError
from gracl.neighbors import MEMORY

Codes = NDArray[np.int64]

Similarity = Callable[[int, int], Tensor]
"""(start, stop) -> (stop - start, G) similarities of these queries; larger is nearer."""


@dataclass(frozen=True)
class Side:
    """What is known of the queries, or of the gallery, as integer codes; negative is unknown."""

    pids: Codes
    """True identities. Unknown ones match nothing: no query has them as a match."""
    images: Codes
    """Which image it is, so that a query does not find itself."""
    scenes: Codes | None = None
    """What a match must differ in: camera, date or sequence. None where any other image matches. An
    unknown scene may be the same as any other, so it is never accepted as different."""

    def __len__(self) -> int:
        return len(self.pids)


@dataclass(frozen=True)
class Ranking:
    """The ranks at which each query's matches stand in its list."""

    ranks: Codes
    """1-based ranks of all matches, query after query, rising within each."""
    starts: Codes
    """(Q + 1,) where each query's ranks start; equal bounds mean a query without a match."""

    @property
    def has_match(self) -> NDArray[np.bool_]:
        """(Q,) whether the gallery holds a valid match at all."""
        return np.diff(self.starts) > 0

    @property
    def average_precision(self) -> NDArray[np.float64]:
        """(queries with a match,) precision at each match, averaged (not the trapezoid)."""
        found = np.arange(len(self.ranks)) - np.repeat(self.starts[:-1], np.diff(self.starts)) + 1
        sums = np.concatenate([[0.0], np.cumsum(found / self.ranks)])
        counts = np.diff(self.starts)
        valid = self.has_match
        totals: NDArray[np.float64] = sums[self.starts[1:]] - sums[self.starts[:-1]]
        return totals[valid] / counts[valid]

    @property
    def first(self) -> Codes:
        """(queries with a match,) rank of the nearest match."""
        return self.ranks[self.starts[:-1][self.has_match]]

    @property
    def inverse_negative_penalty(self) -> NDArray[np.float64]:
        """(queries with a match,) number of matches / rank of the last one.

        Source: Ye et al., "Deep Learning for Person Re-identification", TPAMI 2021, section 4.
        """
        valid = self.has_match
        return np.diff(self.starts)[valid] / self.ranks[self.starts[1:][valid] - 1]

    def scores(self, protocol: str, cmc_ranks: Sequence[int] = (1, 5, 10)) -> Scores:
        """The numbers of this ranking; `EvaluationError` if no query has a match."""
        if not self.has_match.any():
            raise EvaluationError(
                f"none of {len(self.has_match)} queries has a valid match in the gallery under the "
                f"protocol '{protocol}'. Check that query and gallery share identities, or use the "
                "protocol 'any', which accepts every other image of the same identity"
            )
        return Scores(
            protocol=protocol,
            mAP=float(self.average_precision.mean()),
            mINP=float(self.inverse_negative_penalty.mean()),
            cmc={k: float((self.first <= k).mean()) for k in cmc_ranks},
            n_queries=len(self.has_match),
            n_without_match=int((~self.has_match).sum()),
        )


@dataclass(frozen=True)
class Scores:
    """Retrieval scores in [0, 1], over the queries that have a match, with their protocol."""

    protocol: str
    mAP: float  # noqa: N815 - the field writes it so
    mINP: float  # noqa: N815
    cmc: dict[int, float]
    """Share of queries whose first match stands at this rank or before."""
    n_queries: int
    n_without_match: int
    """Queries that were not scored, because the gallery holds no valid match for them."""

    def __str__(self) -> str:
        cells = [f"mAP {self.mAP:.1%}", f"mINP {self.mINP:.1%}"]
        cells += [f"R{k} {share:.1%}" for k, share in self.cmc.items()]
        missed = f", {self.n_without_match} without a match left out" if self.n_without_match else ""
        return f"{'  '.join(cells)}  [protocol {self.protocol}, {self.n_queries} queries{missed}]"


def rank(similarity: Similarity, queries: Side, gallery: Side, *, memory: int = MEMORY) -> Ranking:
    """The ranks of all valid matches of all queries.

    Args:
        similarity: gives the similarities of a block of queries, see `cosine` and `gracl.rerank`.
        queries: identities, images and scenes of the Q queries.
        gallery: the same of the G gallery images.
        memory: bytes that one block of similarities may take; the result does not depend on it.

    >>> features = torch.eye(2)[[0, 0, 1]]
    >>> side = Side(pids=np.array([5, 5, 6]), images=np.arange(3))
    >>> ranking = rank(cosine(features, features), side, side)
    >>> ranking.ranks.tolist(), ranking.starts.tolist()      # the third has no match
    ([1, 1], [0, 1, 2, 2])
    """
    block = max(1, memory // (4 * max(1, len(gallery))))
    by_pid = np.argsort(gallery.pids, kind="stable")
    ranks, counts = [], np.zeros(len(queries), dtype=np.int64)
    for start in range(0, len(queries), block):
        stop = min(len(queries), start + block)
        rows = np.arange(start, stop)
        similarities = similarity(start, stop)
        if torch.isnan(similarities).any():
            # NaN is neither nearer nor farther than anything: it would count as a perfect score.
            raise ShapeError(
                f"similarities of queries {start} to {stop - 1} hold NaN; expected numbers. Check "
                "the model's weights and the images for NaN features"
            )
        own_rows, own_columns = _own_identity(queries.pids[rows], gallery.pids, by_pid)
        valid = ~_is_junk(queries, gallery, rows[own_rows], own_columns)
        matches = own_rows[valid], own_columns[valid]
        counts[rows] = np.bincount(matches[0], minlength=len(rows))
        ranks.append(_ranks_of_matches(similarities, (own_rows, own_columns), matches))
    starts = np.concatenate([[0], np.cumsum(counts)])
    return Ranking(np.concatenate([*ranks, np.zeros(0, dtype=np.int64)]), starts)


def has_match(queries: Side, gallery: Side) -> NDArray[np.bool_]:
    """(Q,) whether the gallery holds a valid match of each query; no features are needed."""
    by_pid = np.argsort(gallery.pids, kind="stable")
    rows, columns = _own_identity(queries.pids, gallery.pids, by_pid)
    valid = ~_is_junk(queries, gallery, rows, columns)
    found: NDArray[np.bool_] = np.bincount(rows[valid], minlength=len(queries)) > 0
    return found


def junk(queries: Side, gallery: Side, rows: Codes) -> NDArray[np.bool_]:
    """(len(rows), G) which gallery images are neither right nor wrong for these queries."""
    own, columns = _own_identity(
        queries.pids[rows], gallery.pids, np.argsort(gallery.pids, kind="stable")
    )
    result = np.zeros((len(rows), len(gallery)), dtype=np.bool_)
    result[own, columns] = _is_junk(queries, gallery, rows[own], columns)
    return result


def cosine(query_features: Tensor, gallery_features: Tensor) -> Similarity:
    """Cosine similarities of unit rows, (Q, D) against (G, D), a block at a time."""
    return lambda start, stop: query_features[start:stop] @ gallery_features.T


def _own_identity(pids: Codes, gallery_pids: Codes, by_pid: Codes) -> tuple[Codes, Codes]:
    """Pairs (row, gallery image) that share an identity, row after row."""
    sorted_pids = gallery_pids[by_pid]
    low = np.searchsorted(sorted_pids, pids, side="left")
    high = np.searchsorted(sorted_pids, pids, side="right")
    lengths = np.where(pids < 0, 0, high - low)
    rows = np.repeat(np.arange(len(pids)), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows, by_pid[low[rows] + within]


def _is_junk(queries: Side, gallery: Side, rows: Codes, columns: Codes) -> NDArray[np.bool_]:
    junk: NDArray[np.bool_] = queries.images[rows] == gallery.images[columns]
    if queries.scenes is not None and gallery.scenes is not None:
        mine, theirs = queries.scenes[rows], gallery.scenes[columns]
        junk |= (mine == theirs) | (mine < 0) | (theirs < 0)
    return junk


def _ranks_of_matches(
    similarities: Tensor, own: tuple[Codes, Codes], matches: tuple[Codes, Codes]
) -> Codes:
    """1-based ranks of the matches, rising within each row.

    A match's rank is the matches before it, itself, and the images of other identities at least as
    near, which are all images at least as near less those of the query's own identity.
    """
    match_rows, match_columns = (torch.from_numpy(part) for part in matches)
    own_rows, own_columns = (torch.from_numpy(part) for part in own)
    device = similarities.device
    match_values = similarities[match_rows.to(device), match_columns.to(device)]
    own_values = similarities[own_rows.to(device), own_columns.to(device)]
    # Sort by (row, falling similarity): a stable sort by row of a sort by similarity.
    order = torch.argsort(match_values, descending=True, stable=True).cpu()
    order = order[torch.argsort(match_rows[order], stable=True)]
    match_rows, match_values = match_rows[order], match_values[order.to(device)]
    ranks = torch.empty(len(order), dtype=torch.int64)
    bounds = torch.searchsorted(match_rows, torch.arange(len(similarities) + 1)).tolist()
    own_bounds = torch.searchsorted(own_rows, torch.arange(len(similarities) + 1)).tolist()
    for row in range(len(similarities)):
        low, high = bounds[row], bounds[row + 1]
        if low == high:
            continue
        thresholds = match_values[low:high]
        nearer = _count_at_least(similarities[row], thresholds)
        nearer -= _count_at_least(own_values[own_bounds[row] : own_bounds[row + 1]], thresholds)
        ranks[low:high] = nearer.cpu() + torch.arange(1, high - low + 1)
    return ranks.numpy()


def _count_at_least(values: Tensor, thresholds: Tensor) -> Tensor:
    """How many values are >= each threshold; thresholds fall."""
    rising = thresholds.flip(0).contiguous()
    # side="right" gives the number of thresholds <= value, that is, which of them it reaches
    reached = torch.searchsorted(rising, values[values >= rising[0]].contiguous(), right=True)
    counts = torch.bincount(reached, minlength=len(rising) + 1)[1:]
    return counts.flip(0).cumsum(0)
