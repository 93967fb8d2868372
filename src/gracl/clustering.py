"""Pseudo labels from a sparse graph of distances.

The graph is that of `gracl.jaccard`: symmetric, its diagonal stored as 0; a stored zero is a neighbour,
and a pair that is not stored has distance 1. It is hardly ever connected.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from gracl.errors import ClusterCollapse, ConfigError, ShapeError, did_you_mean
from gracl.forecast import require_memory
from gracl.links import OUTLIER as OUTLIER
from gracl.links import Labels as Labels
from gracl.links import Links, honour, number_by_first

Algorithm = Literal["dbscan", "hdbscan", "agglomerative", "community"]

LEAST = 1e-7
"""Stands for a stored zero where a library takes zeros for pairs that are not there."""


def cluster(
    distance: sparse.csr_array,
    *,
    eps: float,
    min_samples: int = 4,
    algorithm: Algorithm = "dbscan",
    links: Links | None = None,
) -> Labels:
    """Pseudo labels of all images.

    Args:
        distance: (N, N) symmetric sparse matrix; pairs not stored are farther than any eps. The
            diagonal is stored (as 0) and counts. Stored zeros are neighbours.
        eps: largest distance of a neighbour, in [0, 1) for Jaccard distances; see each algorithm.
        min_samples: least size of a neighbourhood, or of a cluster, *the image itself included*.
        algorithm: "dbscan" (see `dbscan`), "hdbscan", "agglomerative" or "community".
        links: pairs that must, or cannot, share a cluster; see `gracl.links.honour`.

    Returns:
        (N,) int64 labels 0 .. C - 1, `OUTLIER` = -1.

    >>> near = sparse.csr_array(np.array([[.0, .2, .9], [.2, .0, .9], [.9, .9, .0]]) + 1e-9)
    >>> cluster(near, eps=0.5, min_samples=2).tolist()
    [0, 0, -1]
    """
    n = distance.shape[0]
    if distance.shape != (n, n):
        raise ShapeError(f"distance has shape {distance.shape}; expected a square (N, N) matrix")
    if min_samples < 1 or not eps >= 0:
        raise ShapeError(f"eps is {eps} and min_samples {min_samples}; need eps >= 0, >= 1 samples")
    if algorithm not in ALGORITHMS:
        raise ConfigError(f"'{algorithm}' is no clustering; {did_you_mean(algorithm, ALGORITHMS)}")
    labels = ALGORITHMS[algorithm](distance, eps, min_samples)
    return labels if links is None else honour(labels, distance, links)


def dbscan(distance: sparse.csr_array, eps: float, min_samples: int) -> Labels:
    """Connected components over core points.

    A point is *core* if at least `min_samples` points, *this includes the point itself*, lie within
    `eps`, the bound included. Core points within eps of each other share a cluster. A point that is
    not core joins the lowest-numbered cluster that has a core point within eps of it; otherwise it
    is an outlier. Clusters are numbered by their first core point. These are scikit-learn's labels,
    to the digit.

    Source: Ester et al., "A Density-Based Algorithm for Discovering Clusters", KDD 1996.
    """
    n = distance.shape[0]
    near = distance.data <= eps
    rows = np.repeat(np.arange(n), np.diff(distance.indptr))[near]
    columns = distance.indices[near].astype(np.int64)
    core = np.bincount(rows, minlength=n) >= min_samples

    between = core[rows] & core[columns]
    edges = (np.ones(between.sum(), dtype=np.int8), (rows[between], columns[between]))
    _, component = connected_components(sparse.csr_array(edges, shape=(n, n)), directed=False)
    labels = number_by_first(np.where(core, component, OUTLIER))

    reached = ~core[rows] & core[columns]
    nearest = np.full(n, n, dtype=np.int64)
    np.minimum.at(nearest, rows[reached], labels[columns[reached]])
    border = nearest < n
    labels[border] = nearest[border]
    return labels


def hdbscan(distance: sparse.csr_array, eps: float, min_samples: int) -> Labels:  # noqa: ARG001
    """HDBSCAN of the whole set, clusters of at least max(2, `min_samples`) images; no eps is used.

    A point's core distance is that of its `min_samples`-th neighbour, *the point itself included*.
    Pairs that are not stored have distance 1, and so no mutual reachability is above it. The minimum
    spanning tree of all pairs is therefore the spanning forest of the stored ones, joined by edges
    of 1; scikit-learn, which refuses a graph in parts, is given this tree.

    Source: Campello et al., "Density-Based Clustering Based on Hierarchical Density Estimates",
    PAKDD 2013.
    """
    from sklearn.cluster import HDBSCAN

    n = distance.shape[0]
    least = max(2, min_samples)
    if n < 2 * least:  # one cluster of everything is no clustering
        return np.full(n, OUTLIER, dtype=np.int64)
    rows, columns, near = _stored_pairs(distance)
    core = _core_distances(distance, min_samples)
    reach = np.maximum(np.maximum(core[rows], core[columns]), np.maximum(near, LEAST))
    pairs = sparse.csr_array((reach, (rows, columns)), shape=(n, n))
    forest = minimum_spanning_tree(pairs).tocoo()
    _, component = connected_components(forest, directed=False)
    _, first = np.unique(component, return_index=True)
    a = np.concatenate([forest.row, first[:-1]])
    b = np.concatenate([forest.col, first[1:]])
    length = np.concatenate([forest.data, np.ones(len(first) - 1)])
    every = np.arange(n)
    places = np.concatenate([a, b, every]), np.concatenate([b, a, every])
    values = np.concatenate([length, length, np.full(n, LEAST)])
    tree = sparse.csr_matrix((values, places), shape=(n, n))
    found = HDBSCAN(min_cluster_size=least, min_samples=1, metric="precomputed", copy=True).fit(tree)
    return number_by_first(np.maximum(found.labels_.astype(np.int64), OUTLIER))


def agglomerative(distance: sparse.csr_array, eps: float, min_samples: int) -> Labels:
    """Average linkage cut at eps < 1; clusters of fewer than `min_samples` images are outliers.

    Two clusters that are joined at eps or below hold a stored pair within it, so no cluster reaches
    beyond a connected component of the pairs within eps. Each component is worked densely, pairs not
    stored at distance 1, and the result is that of all pairs.

    Raises:
        OutOfMemory: the largest component is too large for its dense matrix.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if eps >= 1:
        raise ShapeError(f"eps is {eps}; agglomerative clustering needs eps below 1")
    n = distance.shape[0]
    rows, columns, near = _stored_pairs(distance)
    within = near <= eps
    edges = (np.ones(within.sum(), dtype=np.int8), (rows[within], columns[within]))
    _, component = connected_components(sparse.csr_array(edges, shape=(n, n)), directed=False)
    order = np.argsort(component, kind="stable")
    sizes = np.bincount(component)
    largest = int(sizes.max(initial=0))
    remedy = "Lower method.eps, or set method.clustering to dbscan"
    stage = f"average linkage of {largest} images that hang together within eps"
    # squareform and linkage hold a few matrices of float64
    require_memory(stage, 24 * largest**2, remedy)
    labels = np.full(n, OUTLIER, dtype=np.int64)
    for group in np.split(order, np.cumsum(sizes)[:-1]):
        if len(group) < max(2, min_samples):
            continue
        dense = _dense(distance[group][:, group])
        tree = linkage(squareform(dense, checks=False), method="average")
        parts = fcluster(tree, t=eps, criterion="distance")
        labels[group] = group[0] * n + parts  # any number that no other component has
    return _without_small(labels, min_samples)


def communities(distance: sparse.csr_array, eps: float, min_samples: int, *, seed: int = 0) -> Labels:
    """Leiden communities; those of fewer than `min_samples` images are outliers.

    The quality is the constant Potts model with similarities 1 - d and resolution 1 - eps: two groups
    are better joined where the mean similarity between them is above it, that is, where their mean
    distance is below eps. Needs igraph, the extra `community`, whose licence is GPL-2.0-or-later.

    Source: Traag et al., "From Louvain to Leiden", Scientific Reports 2019; Traag et al., "Narrow
    Scope for Resolution-Limit-Free Community Detection", Physical Review E 2011, for the quality.
    """
    try:
        import igraph
    except ImportError as error:
        raise ConfigError(
            "community detection needs igraph: pip install 'gracl[community]'. Its licence is "
            "GPL-2.0-or-later, which is why it is not installed by default"
        ) from error
    n = distance.shape[0]
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    rows, columns, near = _stored_pairs(distance)
    once = rows < columns
    graph = igraph.Graph(n, np.stack([rows[once], columns[once]], axis=1))
    igraph.set_random_number_generator(random.Random(seed))
    try:
        found = graph.community_leiden(
            objective_function="CPM",
            weights=(1 - near[once]).tolist(),
            resolution=1 - eps,
            n_iterations=-1,
        )
    finally:
        igraph.set_random_number_generator(random)
    return _without_small(np.array(found.membership, dtype=np.int64), min_samples)


ALGORITHMS: dict[str, Callable[[sparse.csr_array, float, int], Labels]] = dict(
    zip(get_args(Algorithm), (dbscan, hdbscan, agglomerative, communities), strict=True)
)


def outliers_as_singletons(labels: Labels) -> Labels:
    """Makes each outlier a cluster of its own, numbered after the others, in record order.

    >>> outliers_as_singletons(np.array([0, -1, 0, -1])).tolist()
    [0, 1, 0, 2]
    """
    outlier = labels == OUTLIER
    result = labels.copy()
    result[outlier] = labels.max(initial=OUTLIER) + 1 + np.arange(outlier.sum())
    return result


@dataclass(frozen=True)
class Health:
    """What one epoch's clustering looks like, to be read at a glance."""

    n_images: int
    n_clusters: int
    outlier_share: float
    """Share of all images that belong to no cluster, in [0, 1]."""
    largest_share: float
    """Share of the clustered images that sit in the largest cluster, in [0, 1]."""
    n_singletons: int
    """Clusters of one image."""
    stability: float | None
    """AMI of these labels with the last epoch's, outliers as one group; None at the first epoch."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is unusual, and the setting that changes it."""
        found = []
        if self.outlier_share > 0.5:
            found.append(
                f"{self.outlier_share:.0%} of the images are in no cluster: raise method.eps, or "
                "lower method.min_samples for fewer images an identity"
            )
        if self.largest_share > 0.5:
            found.append(
                f"the largest cluster holds {self.largest_share:.0%} of the clustered images: "
                "lower method.eps or method.k1"
            )
        return tuple(found)


def health(labels: Labels, previous: Labels | None = None) -> Health:
    """Describes labels; `previous` are those of the same images an epoch ago."""
    sizes = np.bincount(labels[labels != OUTLIER])
    clustered = int(sizes.sum())
    return Health(
        n_images=len(labels),
        n_clusters=len(sizes),
        outlier_share=1 - clustered / max(1, len(labels)),
        largest_share=int(sizes.max(initial=0)) / max(1, clustered),
        n_singletons=int((sizes == 1).sum()),
        stability=None if previous is None else adjusted_mutual_information(labels, previous),
    )


def adjusted_mutual_information(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """AMI of two labelings of the same images; outliers count as one group, like any label."""
    from sklearn.metrics import adjusted_mutual_info_score

    return float(adjusted_mutual_info_score(a, b))


def require_clusters(labels: Labels) -> Labels:
    """The labels as they are, or `ClusterCollapse` when there is nothing to contrast."""
    n, n_clusters = len(labels), int(labels.max(initial=OUTLIER)) + 1
    if n_clusters == 0:
        raise ClusterCollapse(
            f"all {n} images are outliers: no image has enough neighbours within eps. Raise "
            "method.eps (towards 0.7-0.9), lower method.min_samples (2 where an identity has two "
            "images), or start from pretrained weights (model.weights)"
        )
    if n_clusters == 1:
        raise ClusterCollapse(
            f"one cluster holds {int((labels == 0).sum())} of {n} images: there is nothing to "
            "contrast it with. Lower method.eps (towards 0.3-0.5) or method.k1"
        )
    return labels


def _stored_pairs(
    distance: sparse.csr_array,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows, columns and distances of the stored pairs, the diagonal left out."""
    rows = np.repeat(np.arange(distance.shape[0]), np.diff(distance.indptr))
    columns = distance.indices.astype(np.int64)
    off = rows != columns
    return rows[off], columns[off], distance.data[off].astype(np.float64)


def _core_distances(distance: sparse.csr_array, min_samples: int) -> NDArray[np.float64]:
    """(N,) distance of the `min_samples`-th nearest point, itself included; 1 if not stored."""
    n = distance.shape[0]
    lengths = np.diff(distance.indptr)
    rows = np.repeat(np.arange(n), lengths)
    order = np.lexsort((distance.data, rows))
    core = np.ones(n)
    enough = lengths >= min_samples
    core[enough] = distance.data[order[distance.indptr[:-1][enough] + min_samples - 1]]
    return core


def _dense(distance: sparse.csr_array) -> NDArray[np.float64]:
    """Pairs that are not stored have distance 1."""
    result = np.ones(distance.shape)
    rows = np.repeat(np.arange(len(result)), np.diff(distance.indptr))
    result[rows, distance.indices] = distance.data
    return result


def _without_small(labels: Labels, min_samples: int) -> Labels:
    """Clusters of fewer images are outliers, the others numbered by their first."""
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    small = sizes[inverse] < max(2, min_samples)
    return number_by_first(np.where(small, OUTLIER, labels))
