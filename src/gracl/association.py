"""Which tracklets, of whatever cameras, are the same individual: features in, identities out.

A tracklet is what a single-camera tracker holds together: boxes of one individual without a break. Two that
a camera sees at the same time are two individuals, and so are two whose cameras are too far apart for the
time between them. Tracklets are joined by average linkage, and no join brings two together that cannot be.

Letters: T tracklets, D feature dimensions, A clusters that may still grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gracl.clustering import cluster, outliers_as_singletons
from gracl.errors import ConfigError, ShapeError, did_you_mean
from gracl.jaccard import jaccard_distance
from gracl.links import Labels, Links, Pairs, must_groups, number_by_first
from gracl.neighbors import MEMORY, check_features, rows_in_block

Algorithm = Literal["agglomerative", "dbscan"]
ALGORITHMS: tuple[Algorithm, ...] = ("agglomerative", "dbscan")
Travel = Mapping[tuple[str, str], float]
"""Least seconds from leaving one camera to being seen by another: {(from, to): seconds}."""
Times = Sequence[float] | NDArray[np.float64]


class HasThreshold(Protocol):
    """Anything that knows from which similarity two are the same."""

    @property
    def threshold(self) -> float:
        """A cosine similarity."""


@dataclass(frozen=True, eq=False)
class Association:
    """Who is who, tracklet by tracklet."""

    identities: Labels
    """(T,) 1, 2, ... in the order of the first tracklet; 1, as trackers and MOT Challenge count."""
    sizes: NDArray[np.int64]
    """(T,) tracklets of the identity, the tracklet itself included: 1 is one that nothing joined."""
    similarities: NDArray[np.float64]
    """(T,) mean cosine similarity to the identity's other tracklets; NaN where there is none."""
    threshold: float | None
    """Mean similarity from which clusters were joined; None with "dbscan", which has none."""

    def __len__(self) -> int:
        return len(self.identities)

    @property
    def n_identities(self) -> int:
        """How many individuals that makes."""
        return int(self.identities.max(initial=0))


def associate(
    features: Tensor,
    *,
    threshold: float | HasThreshold,
    cameras: Sequence[str | None] | None = None,
    first: Times | None = None,
    last: Times | None = None,
    travel: Travel | None = None,
    links: Links | None = None,
    algorithm: Algorithm = "agglomerative",
    eps: float = 0.5,
    k1: int = 20,
    memory: int = MEMORY,
) -> Association:
    """Global identities of tracklets.

    Args:
        features: (T, D) unit rows, one a tracklet: the mean of its images' unit features, made unit length
            again. A row of zeros, of a tracklet without a usable image, is joined by must-links alone.
        threshold: mean similarity of all pairs of two clusters from which they are joined, the bound
            included, or an object that has it as `.threshold`. See `choose_threshold`. "dbscan" does not
            use it.
        cameras: of each tracklet; None is unknown.
        first, last: when each was seen, the ends included, in frames or seconds; NaN is unknown. Two
            tracklets of one camera that overlap are two individuals.
        travel: see `Travel`; then times are seconds on a clock that all cameras share.
        links: tracklets that must, or cannot, be the same, by their rows.
        algorithm: "agglomerative" (see `agglomerate`), or "dbscan" on the k-reciprocal Jaccard distance,
            its clusters changed as `gracl.links.honour` says.
        eps, k1: of "dbscan": its radius, and the neighbours of the Jaccard distance, *itself included*.
        memory: bytes that one block of similarities may take; the result does not depend on it.

    Raises:
        ShapeError: facts that are not one a tracklet, or a tracklet that ends before it begins.
        LinkConflict: tracklets that must be linked were seen at the same time, or cannot be.

    >>> seen = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.1], [0.9, 0.2], [0, 1]]))
    >>> found = associate(seen, threshold=0.5, cameras=["n", "n", "s", "s"],
    ...                   first=[0, 5, 20, 90], last=[9, 14, 30, 99])
    >>> found.identities.tolist(), found.sizes.tolist()  # the first two were seen side by side
    ([1, 2, 2, 3], [1, 2, 2, 1])
    """
    features = check_features(features)
    n = len(features)
    if algorithm not in ALGORITHMS:
        raise ConfigError(f"'{algorithm}' is no association; {did_you_mean(algorithm, ALGORITHMS)}")
    links = links or Links()
    apart = known_apart(n, cameras=cameras, first=first, last=last, travel=travel)
    links = Links(links.must, np.concatenate([links.cannot, apart]), links.names)
    level = float(threshold if isinstance(threshold, int | float) else threshold.threshold)
    if algorithm == "dbscan":
        must_groups(links, n)  # contradictions are named before the work
        distance = jaccard_distance(features, k1=k1, k2=max(1, k1 // 4))
        labels = outliers_as_singletons(cluster(distance, eps=eps, min_samples=2, links=links))
    else:
        labels = agglomerate(features, threshold=level, links=links, memory=memory)
    labels = number_by_first(labels)
    sizes = np.bincount(labels, minlength=1)[labels]
    return Association(
        identities=labels + 1,
        sizes=sizes,
        similarities=_to_others(features, labels, sizes),
        threshold=level if algorithm == "agglomerative" else None,
    )


def agglomerate(
    features: Tensor, *, threshold: float, links: Links | None = None, memory: int = MEMORY
) -> Labels:
    """Average linkage of unit rows, cannot-links inside the merging.

    Must-linked rows are one cluster from the start. Then the two clusters with the highest mean similarity
    of all pairs between them are joined, of those pairs of clusters that no cannot-link bars, until that mean
    is below `threshold`.

    The mean similarity of two clusters is the product of their mean rows, so no matrix of pairs is kept.
    Nor are clusters joined one at a time: where each of two is the other's nearest that is not barred, they
    are joined sooner or later, since joining others makes nothing nearer (a barred pair counts as infinitely
    far, and stays so). All such pairs of a round are joined at once, and the result is the same, but where
    similarities are equal. (T, D) and the cannot-links are what memory holds; time is that of a product of all
    rows with all rows, T^2 D, and then of those whose nearest was joined with A clusters, round by round.

    Args:
        features: (T, D) unit rows; those of zeros are joined by must-links alone.
        threshold: lowest mean similarity at which two clusters become one, the bound included.
        links: pairs of rows.
        memory: bytes that one block of similarities may take.

    Returns:
        (T,) int64 labels 0 .. C - 1, by first row.

    Raises:
        LinkConflict: must-linked rows cannot share a cluster.

    Source: Murtagh, "A Survey of Recent Advances in Hierarchical Clustering Algorithms", The Computer
    Journal 1983, section 3.3, for joining each other's nearest.

    >>> rows = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.2], [1, 0.3], [0, 1]]))
    >>> agglomerate(rows, threshold=0.5).tolist()
    [0, 0, 0, 1]
    >>> agglomerate(rows, threshold=0.5, links=Links(cannot=np.array([[0, 2]]))).tolist()
    [0, 1, 1, 2]
    """
    features, links = check_features(features), links or Links()
    member = number_by_first(must_groups(links, len(features)))
    clusters = _Clusters.of(features, member, links)
    while clusters.join_each_others_nearest(threshold, memory):
        pass
    return number_by_first(clusters.roots()[member])


class _Clusters:
    """Clusters while they grow. Of two that are joined, the first keeps its number."""

    def __init__(
        self, sums: Tensor, counts: NDArray[np.int64], barred: sparse.csr_array
    ) -> None:
        n = len(sums)
        self.sums = sums
        self.counts = counts
        """Rows that are not zeros."""
        self.barred = barred
        """(n, n) pairs that must not be joined, both ways."""
        self.root = np.arange(n)
        """The cluster that each has been joined to; itself while it stands."""
        self.best = np.full(n, -np.inf)
        self.nearest = np.full(n, -1, dtype=np.int64)
        """The nearest that is not barred, and how similar it is."""
        self.growing = np.flatnonzero(counts > 0)
        self.stale = self.growing
        """Those whose nearest is not known, or no longer there."""

    @classmethod
    def of(cls, features: Tensor, member: Labels, links: Links) -> _Clusters:
        """Each row in its must-linked group."""
        n = int(member.max(initial=-1)) + 1
        rows = torch.from_numpy(member).to(features.device)
        sums = features.new_zeros(n, features.shape[1]).index_add_(0, rows, features)
        is_row = features.norm(dim=1).cpu().numpy() > 0
        a, b = member[links.cannot].T
        barred = _pairs_matrix(np.concatenate([a, b]), np.concatenate([b, a]), n)
        return cls(sums, np.bincount(member[is_row], minlength=n), barred)

    def join_each_others_nearest(self, threshold: float, memory: int) -> bool:
        """One round; whether any were joined."""
        self._find_nearest(memory)
        self.growing = self.growing[self.best[self.growing] >= threshold]
        pairs = self._mutual()
        if not len(pairs):
            return False
        kept, gone = pairs.T
        self.root[gone] = kept
        self.sums[kept] += self.sums[gone]
        self.counts[kept] += self.counts[gone]
        rows, columns = self.barred.nonzero()
        self.barred = _pairs_matrix(self.root[rows], self.root[columns], len(self.root))
        self.growing = np.setdiff1d(self.growing, gone)
        self.stale = self.growing[np.isin(self.nearest[self.growing], pairs)]
        return True

    def roots(self) -> Labels:
        """The cluster that each is in by now."""
        while not np.array_equal(further := self.root[self.root], self.root):
            self.root = further
        return self.root

    def _find_nearest(self, memory: int) -> None:
        """Of the stale ones; by similarity, then by number."""
        if not len(self.growing):
            return
        counts = torch.from_numpy(self.counts[self.growing]).to(self.sums)
        means = self.sums[self.growing] / counts[:, None]
        place = np.searchsorted(self.growing, self.stale)
        step = rows_in_block(means, memory)
        for start in range(0, len(place), step):
            at, stale = place[start : start + step], self.stale[start : start + step]
            block = means[at] @ means.T
            rows, columns = self.barred[stale][:, self.growing].nonzero()
            block[np.concatenate([np.arange(len(at)), rows]), np.concatenate([at, columns])] = -torch.inf
            best, where = block.max(dim=1)
            self.best[stale] = best.double().cpu().numpy()
            self.nearest[stale] = self.growing[where.cpu().numpy()]

    def _mutual(self) -> Pairs:
        """(M, 2) clusters of which each is the other's nearest, the lower number first.

        Of those that are equally near there may be none, by rounding: then it is the nearest pair of all.
        """
        own, other = self.growing, self.nearest[self.growing]
        mutual = (self.nearest[other] == own) & (own < other)
        if len(own) and not mutual.any():
            first = self.best[own].argmax()
            return np.sort([[own[first], other[first]]], axis=1)
        return np.stack([own[mutual], other[mutual]], axis=1)


def _pairs_matrix(rows: Labels, columns: Labels, n: int) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(n, n))


# -- who cannot be the same -----------------------------------------------------------------------


def known_apart(
    n: int,
    *,
    cameras: Sequence[str | None] | None = None,
    first: Times | None = None,
    last: Times | None = None,
    travel: Travel | None = None,
) -> Pairs:
    """Pairs of tracklets that cannot be the same individual, by where and when they were seen.

    Two of one camera that overlap in time, the ends included; and, of cameras that `travel` has a least
    time for, two of which the later begins at the second camera sooner than that after the earlier ended at
    the first, or before. Nothing is known of a tracklet without a camera or a time.

    Args:
        n: T.
        cameras, first, last, travel: see `associate`; None is unknown of all.

    Returns:
        (K, 2) rows, the lower one first, in order.

    Raises:
        ShapeError: facts that are not one a tracklet, a tracklet that ends before it begins, a camera
            that no tracklet has, or a least time below 0.

    >>> known_apart(3, cameras=["a", "a", "a"], first=[0, 5, 10], last=[5, 9, 12]).tolist()
    [[0, 1]]
    >>> known_apart(2, cameras=["a", "b"], first=[0, 15], last=[9, 30], travel={("a", "b"): 10}).tolist()
    [[0, 1]]
    """
    starts, ends = _times(n, first, last)
    names = [None] * n if cameras is None else list(cameras)
    if len(names) != n:
        raise ShapeError(f"{len(names)} cameras for {n} tracklets; expected one a tracklet")
    least = _least_times(names, travel or {})
    timed = ~np.isnan(starts)
    of_camera = {
        name: np.flatnonzero(timed & np.array([own == name for own in names], dtype=bool))
        for name in dict.fromkeys(names)
        if name is not None
    }
    found = [np.zeros((0, 2), dtype=np.int64)]
    for (earlier, later), seconds in least.items():
        a, b = of_camera[earlier], of_camera[later]
        b = b[np.argsort(starts[b], kind="stable")]
        # Those of the later camera that begin from here, included, to there.
        low = np.searchsorted(starts[b], starts[a], side="left")
        side = "right" if earlier == later else "left"  # one frame in common is enough; a gap may be least
        high = np.searchsorted(starts[b], ends[a] + seconds, side=side)
        at, place = _ranges(low, np.maximum(high, low))
        pairs = np.sort(np.stack([a[at], b[place]], axis=1), axis=1)
        found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    every: Pairs = np.unique(np.concatenate(found), axis=0)
    return every


def _least_times(names: Sequence[str | None], travel: Travel) -> dict[tuple[str, str], float]:
    """By (earlier camera, later camera); of one with itself, 0: there it is overlap alone."""
    known = {name for name in names if name is not None}
    for (a, b), seconds in travel.items():
        if not seconds >= 0 or a == b:
            raise ShapeError(
                f"the least time from {a} to {b} is {seconds}; expected 0 or more, between two cameras"
            )
        if names and not {a, b} <= known:
            raise ShapeError(
                f"travel times name {a} and {b}; no tracklet is of {', '.join({a, b} - known)}. "
                f"{did_you_mean(min({a, b} - known), known)}"
            )
    return {**{(name, name): 0.0 for name in sorted(known)}, **(travel if names else {})}


def _times(
    n: int, first: Times | None, last: Times | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(T,) each; NaN in both where either is unknown."""
    unknown = np.full(n, np.nan)
    starts, ends = (unknown if t is None else np.asarray(t, dtype=np.float64) for t in (first, last))
    if starts.shape != (n,) or ends.shape != (n,):
        raise ShapeError(
            f"first and last have shapes {starts.shape} and {ends.shape}; expected ({n},), a time a tracklet"
        )
    if (ends < starts).any():
        row = int(np.flatnonzero(ends < starts)[0])
        raise ShapeError(f"tracklet {row} ends at {ends[row]:g}, before it begins at {starts[row]:g}")
    lost = np.isnan(starts) | np.isnan(ends)
    return np.where(lost, np.nan, starts), np.where(lost, np.nan, ends)


def _ranges(low: NDArray[np.int64], high: NDArray[np.int64]) -> tuple[Labels, Labels]:
    """Each place of each range, with the number of the range that it is in."""
    lengths = high - low
    at = np.repeat(np.arange(len(low)), lengths)
    begins = np.cumsum(lengths) - lengths
    return at, np.arange(lengths.sum()) - np.repeat(begins - low, lengths)


def _to_others(features: Tensor, labels: Labels, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(T,) mean similarity of each row to the others of its label; NaN where there are none."""
    rows = torch.from_numpy(labels).to(features.device)
    sums = features.new_zeros(int(labels.max(initial=-1)) + 1, features.shape[1])
    sums.index_add_(0, rows, features)
    with_own = torch.cat([(part * sums[at]).sum(1) for part, at in _parts(features, rows)])
    own = features.square().sum(dim=1)
    total = (with_own - own).double().cpu().numpy()
    return np.where(sizes > 1, total / np.maximum(sizes - 1, 1), np.nan)


def _parts(features: Tensor, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
    """By parts: the sums of all rows at once would be as large as the features."""
    size = 4096
    return [(features[at : at + size], rows[at : at + size]) for at in range(0, max(1, len(rows)), size)]
