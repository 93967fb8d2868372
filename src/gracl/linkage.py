"""Average linkage that never brings two together that cannot be.

Clusters are not joined one at a time. Where each of two is the other's nearest that is not barred, they
are joined sooner or later: joining others makes nothing nearer, for a mean is no higher than the
highest of its parts, and a barred pair counts as infinitely far and stays so. So all such pairs of a
round are joined at once, and the result is that of joining the nearest two again and again, but where
two pairs are equally near.

Source: Murtagh, "A Survey of Recent Advances in Hierarchical Clustering Algorithms", The Computer
Journal 1983, for joining each other's nearest.

Letters: N rows, D dimensions, C clusters.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gracl.errors import ShapeError
from gracl.links import Labels, Links, Pairs, must_groups, number_by_first
from gracl.neighbors import MEMORY, check_features, rows_in_block


def link_features(
    features: Tensor, *, threshold: float, links: Links | None = None, memory: int = MEMORY
) -> Labels:
    """Average linkage of unit rows by cosine similarity, cannot-links inside the merging.

    Must-linked rows are one cluster from the start. Then the two clusters with the highest mean
    similarity of all pairs between them are joined, of those that no cannot-link bars, until that mean
    is below `threshold`. It is the product of their mean rows, so no matrix of pairs is kept: memory
    holds (N, D) and the cannot-links. Time is that of the product of all rows with all, N^2 D, and then
    round by round that of the rows whose nearest was joined with the C clusters left.

    Args:
        features: (N, D) unit rows; those of zeros are joined by must-links alone, and have no say.
        threshold: lowest mean similarity at which two clusters become one, the bound included.
        links: pairs of rows.
        memory: bytes that one block of similarities may take.

    Returns:
        (N,) int64 labels 0 .. C - 1, by first row.

    Raises:
        LinkConflict: must-linked rows cannot share a cluster.

    >>> rows = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.2], [1, 0.3], [0, 1]]))
    >>> link_features(rows, threshold=0.5).tolist()
    [0, 0, 0, 1]
    >>> link_features(rows, threshold=0.5, links=Links(cannot=np.array([[0, 2]]))).tolist()
    [0, 1, 1, 2]
    """
    features, links = check_features(features), links or Links()
    member = number_by_first(must_groups(links, len(features)))
    is_row = features.norm(dim=1).cpu().numpy() > 0
    n = int(member.max(initial=-1)) + 1
    rows = torch.from_numpy(member).to(features.device)
    sums = features.new_zeros(n, features.shape[1]).index_add_(0, rows, features)
    clusters = _OfRows(np.bincount(member[is_row], minlength=n), _barred(member, links), sums, memory)
    clusters.join(threshold)
    return number_by_first(clusters.root[member])


def link_graph(distance: sparse.csr_array, *, eps: float, links: Links | None = None) -> Labels:
    """Average linkage of a sparse graph of distances, cannot-links inside the merging.

    As `link_features`, by mean distance: clusters are joined up to `eps`. Without links it is
    `gracl.clustering.agglomerative` with clusters of one, but where distances are equal. Memory and
    time of a round are those of the stored pairs.

    Args:
        distance: (N, N) as of `gracl.clustering.cluster`; pairs not stored are at distance 1.
        eps: largest mean distance at which two clusters become one, the bound included, in [0, 1).
        links: pairs of rows.

    Returns:
        (N,) int64 labels 0 .. C - 1, by first row.

    Raises:
        LinkConflict: must-linked rows cannot share a cluster.

    >>> near = sparse.csr_array(np.array([[.0, .2, .9], [.2, .0, .4], [.9, .4, .0]]) + 1e-9)
    >>> link_graph(near, eps=0.7).tolist()
    [0, 0, 0]
    >>> link_graph(near, eps=0.7, links=Links(cannot=np.array([[0, 1]]))).tolist()
    [0, 1, 1]
    """
    if not 0 <= eps < 1:
        raise ShapeError(
            f"eps is {eps}; expected it in [0, 1), 1 being the distance of pairs not stored"
        )
    links, n = links or Links(), distance.shape[0]
    member = number_by_first(must_groups(links, n))
    counts = np.bincount(member)
    rows = np.repeat(member, np.diff(distance.indptr))
    near = 1 - distance.data.astype(np.float64)
    # The bound as the distances have it: 0.6 as a float32 is above 0.6, and is within it nevertheless.
    least = 1 - float(distance.dtype.type(eps))
    shape = (len(counts), len(counts))
    similarity = sparse.csr_array((near, (rows, member[distance.indices])), shape=shape)
    clusters = _OfGraph(counts, _barred(member, links), similarity)
    clusters.join(least)
    return number_by_first(clusters.root[member])


class _Clusters:
    """Clusters while they grow. Of two that are joined, the first keeps its number."""

    def __init__(self, counts: NDArray[np.int64], barred: sparse.csr_array) -> None:
        n = len(counts)
        self.counts = counts
        """Rows that have a say."""
        self.barred = barred
        """(C, C) pairs that must not be joined, both ways."""
        self.root = np.arange(n)
        """The cluster that each has been joined to; itself while it stands."""
        self.best = np.full(n, -np.inf)
        self.nearest = np.full(n, -1, dtype=np.int64)
        """The nearest that is not barred, and how similar it is."""
        self.growing = np.flatnonzero(counts > 0)
        """Those that may still be joined."""
        self.stale = self.growing
        """Those whose nearest is not known, or no longer there."""

    def join(self, least: float) -> None:
        """Joins until the mean similarity of no two that may be joined is `least` or above."""
        while len(self.growing):
            self.find_nearest()
            self.growing = self.growing[self.best[self.growing] >= least]
            pairs = self._each_others_nearest()
            if not len(pairs):
                return
            kept, gone = pairs.T
            to = np.arange(len(self.root))
            to[gone] = kept
            self.root = to[self.root]
            self.counts[kept] += self.counts[gone]
            self.barred = _renumbered(self.barred, to)
            self.merge(to)
            self.growing = np.setdiff1d(self.growing, gone)
            self.stale = self.growing[np.isin(self.nearest[self.growing], pairs)]

    def find_nearest(self) -> None:
        """Sets `best` and `nearest` of the stale ones; of the equally near, the lowest number."""
        raise NotImplementedError

    def merge(self, to: Labels) -> None:
        """Each cluster becomes part of another, or stays."""
        raise NotImplementedError

    def _each_others_nearest(self) -> Pairs:
        """(M, 2) the lower number first.

        Of those that are equally near there may be none, by rounding: then it is the nearest pair of
        all.
        """
        own, other = self.growing, self.nearest[self.growing]
        mutual = (self.nearest[other] == own) & (own < other)
        if len(own) and not mutual.any():
            first = self.best[own].argmax()
            return np.sort([[own[first], other[first]]], axis=1)
        return np.stack([own[mutual], other[mutual]], axis=1)


class _OfRows(_Clusters):
    """By the products of mean rows."""

    def __init__(
        self, counts: NDArray[np.int64], barred: sparse.csr_array, sums: Tensor, memory: int
    ) -> None:
        super().__init__(counts, barred)
        self.sums = sums
        self.memory = memory

    def find_nearest(self) -> None:
        counts = torch.from_numpy(self.counts[self.growing]).to(self.sums)
        means = self.sums[self.growing] / counts[:, None]
        place = np.searchsorted(self.growing, self.stale)
        step = rows_in_block(means, self.memory)
        for start in range(0, len(place), step):
            at, stale = place[start : start + step], self.stale[start : start + step]
            block = means[at] @ means.T
            rows, columns = self.barred[stale][:, self.growing].nonzero()
            block[rows, columns] = -torch.inf
            block[np.arange(len(at)), at] = -torch.inf
            best, where = block.max(dim=1)
            self.best[stale] = best.double().cpu().numpy()
            self.nearest[stale] = self.growing[where.cpu().numpy()]

    def merge(self, to: Labels) -> None:
        gone = np.flatnonzero(to != np.arange(len(to)))
        self.sums[to[gone]] += self.sums[gone]  # each takes in one


class _OfGraph(_Clusters):
    """By the sums of stored similarities, of pairs that are not barred."""

    def __init__(
        self, counts: NDArray[np.int64], barred: sparse.csr_array, similarity: sparse.csr_array
    ) -> None:
        super().__init__(counts, barred)
        self.similarity = _without(similarity, barred)

    def find_nearest(self) -> None:
        rows, columns = self.similarity.nonzero()
        mean = self.similarity.data / (self.counts[rows] * self.counts[columns])
        order = np.lexsort((columns, -mean, rows))
        rows, first = np.unique(rows[order], return_index=True)
        self.best[:] = -np.inf
        self.best[rows] = mean[order][first]
        self.nearest[rows] = columns[order][first]

    def merge(self, to: Labels) -> None:
        self.similarity = _without(_renumbered(self.similarity, to), self.barred)


def _barred(member: Labels, links: Links) -> sparse.csr_array:
    n = int(member.max(initial=-1)) + 1
    a, b = member[links.cannot].T
    places = np.concatenate([a, b]), np.concatenate([b, a])
    return sparse.csr_array((np.ones(2 * len(a), dtype=bool), places), shape=(n, n))


def _renumbered(matrix: sparse.csr_array, to: Labels) -> sparse.csr_array:
    """Rows and columns that become one are added up."""
    rows, columns = matrix.nonzero()
    return sparse.csr_array((matrix.data, (to[rows], to[columns])), shape=matrix.shape)


def _without(similarity: sparse.csr_array, barred: sparse.csr_array) -> sparse.csr_array:
    """Only pairs of different clusters that may be joined, and that have anything in common."""
    pairs = similarity.tocoo()
    rows, columns = pairs.coords
    kept = (rows != columns) & (pairs.data > 0)
    kept[kept] &= ~_holds(barred, rows[kept], columns[kept])
    places = rows[kept], columns[kept]
    return sparse.csr_array((pairs.data[kept], places), shape=similarity.shape)


def _holds(matrix: sparse.csr_array, rows: Labels, columns: Labels) -> NDArray[np.bool_]:
    """Which of these places the matrix stores."""
    n = matrix.shape[0]
    own_rows, own_columns = matrix.nonzero()
    return np.isin(rows.astype(np.int64) * n + columns, own_rows.astype(np.int64) * n + own_columns)
