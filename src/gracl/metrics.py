"""Retrieval scores from the ranks of true matches: mAP, CMC, mINP, TPR at an FPR.

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

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gracl.errors import ConfigError, EvaluationError, ShapeError
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

    def take(self, rows: Codes) -> Side:
        """The images at these places, in this order."""
        scenes = None if self.scenes is None else self.scenes[rows]
        return Side(self.pids[rows], self.images[rows], scenes)


@dataclass(frozen=True)
class Ranking:
    """The ranks at which each query's matches stand in its list."""

    ranks: Codes
    """1-based ranks of all matches, query after query, rising within each."""
    starts: Codes
    """(Q + 1,) where each query's ranks start; equal bounds mean a query without a match."""
    similarities: NDArray[np.float32]
    """Of these matches, in the same order."""
    thresholds: Mapping[float, float] = field(default_factory=dict)
    """False positive rate -> the similarity above which a pair is accepted at that rate."""

    @property
    def true_positive_rates(self) -> dict[float, float]:
        """False positive rate -> share of the matching pairs that are accepted at it.

        All pairs of a query of known identity with an image that is not junk are judged by one
        threshold: the lowest one that accepts no more than this share of the pairs that do not match.
        """
        n = max(1, len(self.similarities))
        return {
            rate: float((self.similarities > threshold).sum() / n)
            for rate, threshold in self.thresholds.items()
        }

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

    def scores(self, protocol: str, cmc_ranks: Sequence[int] = (1, 5, 10), *, note: str = "") -> Scores:
        """The numbers of this ranking; `EvaluationError` if no query has a match."""
        require_match(self.has_match, protocol)
        return Scores(
            protocol=protocol,
            mAP=float(self.average_precision.mean()),
            mINP=float(self.inverse_negative_penalty.mean()),
            cmc={k: float((self.first <= k).mean()) for k in cmc_ranks},
            tpr=self.true_positive_rates,
            n_queries=len(self.has_match),
            n_without_match=int((~self.has_match).sum()),
            note=note,
        )


@dataclass(frozen=True)
class Scores:
    """Retrieval scores in [0, 1], over the queries that have a match, with their protocol."""

    protocol: str
    """Its versioned name, and how the ranking was changed: "cross-camera@1 re-ranked"."""
    mAP: float  # noqa: N815 - the field writes it so
    mINP: float  # noqa: N815
    cmc: dict[int, float]
    """Share of queries whose first match stands at this rank or before."""
    n_queries: int
    """Of the first draw, where there are more."""
    n_without_match: int
    """Queries that were not scored, because the gallery holds no valid match for them."""
    tpr: Mapping[float, float] = field(default_factory=dict)
    """By false positive rate: the share of matching pairs that one threshold accepts; see `Ranking`."""
    n_draws: int = 1
    """Draws of queries and gallery that the scores are the mean of."""
    spread: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation of each score over the draws (divisor n - 1), by the names of `named`."""
    note: str = ""
    """What a reader should know of how the protocol came about."""

    @property
    def named(self) -> dict[str, float]:
        """Every score by the name that it is printed with: mAP, mINP, R1, TPR@0.01."""
        return {
            "mAP": self.mAP,
            "mINP": self.mINP,
            **{f"R{k}": share for k, share in self.cmc.items()},
            **{f"TPR@{rate:g}": share for rate, share in self.tpr.items()},
        }

    def __str__(self) -> str:
        cells = [
            f"{name} {share:.1%}" + (f" ± {self.spread[name]:.1%}" if self.spread else "")
            for name, share in self.named.items()
        ]
        about = [f"protocol {self.protocol}"]
        about += [f"mean ± standard deviation of {self.n_draws} draws"] * (self.n_draws > 1)
        about += [f"{self.n_queries} queries"]
        about += [f"{self.n_without_match} without a match left out"] * (self.n_without_match > 0)
        return f"{'  '.join(cells)}  [{', '.join(about)}{self.note and f'; {self.note}'}]"


def mean_scores(draws: Sequence[Scores]) -> Scores:
    """The mean of each score over repeated draws, with its standard deviation; one draw as it is.

    >>> first = Scores("p", mAP=0.5, mINP=0.2, cmc={1: 0.4}, n_queries=9, n_without_match=1)
    >>> print(mean_scores([first, replace(first, mAP=0.7)]))
    mAP 60.0% ± 14.1%  mINP 20.0% ± 0.0%  R1 40.0% ± 0.0%
    [protocol p, mean ± standard deviation of 2 draws, 9 queries, 1 without a match left out]
    """
    if len(draws) == 1:
        return draws[0]
    first = draws[0]
    table = {name: [scores.named[name] for scores in draws] for name in first.named}
    return replace(
        first,
        mAP=float(np.mean(table["mAP"])),
        mINP=float(np.mean(table["mINP"])),
        cmc={k: float(np.mean([scores.cmc[k] for scores in draws])) for k in first.cmc},
        tpr={rate: float(np.mean([scores.tpr[rate] for scores in draws])) for rate in first.tpr},
        n_draws=len(draws),
        spread={name: float(np.std(values, ddof=1)) for name, values in table.items()},
    )


def join(rankings: Sequence[Ranking]) -> Ranking:
    """The rankings of separate queries as one, query after query.

    Raises:
        ShapeError: several hold thresholds, which are those of one gallery.
    """
    if len(rankings) == 1:
        return rankings[0]
    if any(ranking.thresholds for ranking in rankings):
        raise ShapeError(
            f"{len(rankings)} rankings with thresholds cannot be one: each threshold belongs to "
            "its own gallery. Rank without false positive rates"
        )
    counts = np.concatenate([np.diff(ranking.starts) for ranking in rankings])
    return Ranking(
        np.concatenate([ranking.ranks for ranking in rankings]),
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([ranking.similarities for ranking in rankings]),
    )


def rank(
    similarity: Similarity,
    queries: Side,
    gallery: Side,
    *,
    fprs: Sequence[float] = (),
    memory: int = MEMORY,
) -> Ranking:
    """The ranks of all valid matches of all queries.

    Args:
        similarity: gives the similarities of a block of queries, see `cosine` and `gracl.rerank`.
        queries: identities, images and scenes of the Q queries.
        gallery: the same of the G gallery images.
        fprs: false positive rates in (0, 1) to find the thresholds of. It takes room for as many
            similarities as the largest rate accepts, a few times over.
        memory: bytes that one block of similarities may take; the result does not depend on it.

    >>> features = torch.eye(2)[[0, 0, 1]]
    >>> side = Side(pids=np.array([5, 5, 6]), images=np.arange(3))
    >>> ranking = rank(cosine(features, features), side, side)
    >>> ranking.ranks.tolist(), ranking.starts.tolist()      # the third has no match
    ([1, 1], [0, 1, 2, 2])
    """
    block = max(1, memory // (4 * max(1, len(gallery))))
    by_pid = np.argsort(gallery.pids, kind="stable")
    ranks, values = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.float32)]
    counts = np.zeros(len(queries), dtype=np.int64)
    n_own = len(_own_identity(queries.pids, gallery.pids, by_pid)[0]) if fprs else 0
    wrong = _Largest(fprs, int((queries.pids >= 0).sum()) * len(gallery) - n_own)
    for start in range(0, len(queries), block):
        stop = min(len(queries), start + block)
        rows = np.arange(start, stop)
        similarities = similarity(start, stop)
        own = _own_identity(queries.pids[rows], gallery.pids, by_pid)
        valid = ~_is_junk(queries, gallery, rows[own[0]], own[1])
        counts[rows] = np.bincount(own[0][valid], minlength=len(rows))
        starts = np.concatenate([[0], np.cumsum(counts[rows])])
        found, before = _ranks_of_matches(similarities, own, valid, starts)
        if before is None:
            # NaN is neither nearer nor farther than anything: it would count as a perfect score.
            raise ShapeError(
                f"similarities of queries {start} to {stop - 1} hold NaN; expected numbers. Check "
                "the model's weights and the images for NaN features"
            )
        ranks.append(before)
        values.append(found)
        if fprs:
            wrong.add(similarities, own, queries.pids[rows] >= 0)
        del similarities  # before the next block is made, so that there is one at a time
    starts = np.concatenate([[0], np.cumsum(counts)])
    return Ranking(np.concatenate(ranks), starts, np.concatenate(values), wrong.thresholds())


def has_match(queries: Side, gallery: Side) -> NDArray[np.bool_]:
    """(Q,) whether the gallery holds a valid match of each query; no features are needed."""
    by_pid = np.argsort(gallery.pids, kind="stable")
    rows, columns = _own_identity(queries.pids, gallery.pids, by_pid)
    valid = ~_is_junk(queries, gallery, rows, columns)
    found: NDArray[np.bool_] = np.bincount(rows[valid], minlength=len(queries)) > 0
    return found


def require_match(has_match: NDArray[np.bool_], protocol: str) -> None:
    """An `EvaluationError` that names the protocol, unless a query has a match."""
    if not has_match.any():
        raise EvaluationError(
            f"none of {len(has_match)} queries has a valid match in the gallery under the protocol "
            f"'{protocol}'. Check that query and gallery share identities, or use the protocol 'any', "
            "which accepts every other image of the same identity"
        )


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
    similarities: Tensor, own: tuple[Codes, Codes], valid: NDArray[np.bool_], starts: Codes
) -> tuple[NDArray[np.float32], Codes | None]:
    """Similarities of the matches, falling within each row, and their 1-based ranks.

    A match's rank is the matches before it, itself, and the images of other identities at least as
    near. The ranks are None where a similarity is NaN.
    """
    with _hidden(similarities, own) as own_values:
        row, value = own[0][valid], own_values[valid]
        value = value[np.lexsort((-value, row))]
        nearer = _count_at_least(similarities, value, starts)
    if nearer is None or np.isnan(own_values).any():
        return value, None
    before_it = np.arange(len(value)) - np.repeat(starts[:-1], np.diff(starts))
    return value, nearer + before_it + 1


@contextmanager
def _hidden(similarities: Tensor, own: tuple[Codes, Codes]) -> Iterator[NDArray[np.float32]]:
    """Puts a query's own identity behind everything else for a while; gives its similarities.

    The block may be a view of what the caller holds, so it is put back as it was.
    """
    place = tuple(torch.from_numpy(part).to(similarities.device) for part in own)
    values = similarities[place].clone()
    similarities[place] = -torch.inf
    try:
        yield values.float().cpu().numpy()
    finally:
        similarities[place] = values


def _count_at_least(
    similarities: Tensor, thresholds: NDArray[np.float32], starts: Codes
) -> Codes | None:
    """How many of a row's similarities reach each of its thresholds; None where there is NaN."""
    if similarities.device.type == "cpu" and importlib.util.find_spec("numba") is not None:
        from gracl import _ranks_numba

        return _ranks_numba.count_at_least(similarities.float(), thresholds, starts)
    if torch.isnan(similarities).any():
        return None
    rows = torch.from_numpy(np.repeat(np.arange(len(similarities)), np.diff(starts)))
    places = torch.from_numpy(np.arange(len(thresholds)) - np.repeat(starts[:-1], np.diff(starts)))
    # All rows at once, each row's thresholds padded to the longest.
    table = torch.full((len(similarities), int(np.diff(starts).max(initial=0))), torch.inf)
    table[rows, places] = torch.from_numpy(thresholds)
    rising = similarities.float().sort(dim=1).values
    below = torch.searchsorted(rising, table.to(rising.device)).cpu()[rows, places]
    return (similarities.shape[1] - below).numpy()


class _Largest:
    """The largest similarities of pairs that do not match, of all that are shown."""

    def __init__(self, rates: Sequence[float], n_pairs: int) -> None:
        if not all(0 < rate < 1 for rate in rates):
            raise ConfigError(f"false positive rates are {tuple(rates)}; expected each in (0, 1)")
        self.allowed = {rate: int(rate * n_pairs) for rate in rates}
        self.room = max(self.allowed.values(), default=0) + 1
        self.kept = np.zeros(0, dtype=np.float32)

    def add(self, similarities: Tensor, own: tuple[Codes, Codes], is_known: NDArray[np.bool_]) -> None:
        """Takes in a block; only queries of known identity are judged."""
        floor = float(self.kept.min()) if len(self.kept) == self.room else -math.inf
        with _hidden(similarities, own):
            above = similarities > floor
            above &= torch.from_numpy(is_known).to(above.device)[:, None]
            values = np.concatenate([self.kept, similarities[above].float().cpu().numpy()])
        if len(values) > self.room:
            values = np.partition(values, len(values) - self.room)[-self.room :].copy()
        self.kept = values

    def thresholds(self) -> dict[float, float]:
        """Of each rate: the first similarity that may no longer be accepted."""
        falling = np.sort(self.kept)[::-1]
        return {
            rate: float(falling[n]) if n < len(falling) else -math.inf
            for rate, n in self.allowed.items()
        }
