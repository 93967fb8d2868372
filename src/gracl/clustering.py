"""Pseudo labels from a sparse graph of distances.

The graph is that of `gracl.jaccard`: symmetric, its diagonal stored as 0; a stored zero is a neighbour,
and a pair that is not stored has distance 1. It is hardly ever connected.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from gracl.errors import ClusterCollapse, ConfigError, OutOfMemory, ShapeError, did_you_mean
from gracl.forecast import GIB, require_memory
from gracl.linked_clusters import honour
from gracl.links import OUTLIER as OUTLIER
from gracl.links import Labels as Labels
from gracl.links import Links, number_by_first

Algorithm = Literal["dbscan", "hdbscan", "agglomerative", "community"]

LEAST = 1e-7
"""Stands for a stored zero where a library takes zeros for pairs that are not there."""
FAR = 1 + 1e-6
"""Joins the lone to the rest in `hdbscan`, after everything that lies at distance 1."""


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
            "hdbscan" does not use it.
        min_samples: least size of a neighbourhood, or of a cluster, *the image itself included*.
        algorithm: "dbscan" (see `dbscan`), "hdbscan" (see `hdbscan`), "agglomerative" (see
            `agglomerative`) or "community" (see `communities`).
        links: pairs that must, or cannot, share a cluster; see `gracl.linked_clusters.honour`.

    Returns:
        (N,) int64 labels 0 .. C - 1, `OUTLIER` = -1, numbered by first core point ("dbscan") or by
        first image (the others, and wherever links change a label).

    Raises:
        LinkConflict: links contradict each other.

    >>> near = sparse.csr_array(np.array([[.0, .2, .9], [.2, .0, .9], [.9, .9, .0]]) + 1e-9)
    >>> cluster(near, eps=0.5, min_samples=2).tolist()
    [0, 0, -1]
    """
    if not sparse.issparse(distance) or distance.format != "csr":
        raise ShapeError(
            f"distance is a {type(distance).__name__}; expected a sparse matrix in CSR form, as "
            "gracl.jaccard_distance gives"
        )
    n = distance.shape[0]
    if distance.shape != (n, n):
        raise ShapeError(f"distance has shape {distance.shape}; expected a square (N, N) matrix")
    if np.isnan(distance.data).any():
        raise ShapeError("distance holds NaN; expected distances in [0, 1]. Check the features")
    if min_samples < 1 or not eps >= 0:
        raise ShapeError(f"eps is {eps} and min_samples {min_samples}; need eps >= 0, >= 1 samples")
    if algorithm not in ALGORITHMS:
        raise ConfigError(f"'{algorithm}' is no clustering; {did_you_mean(algorithm, ALGORITHMS)}")
    labels = ALGORITHMS[algorithm](distance, eps=eps, min_samples=min_samples)
    return labels if links is None else honour(labels, distance, links)


def dbscan(distance: sparse.csr_array, *, eps: float, min_samples: int) -> Labels:
    """Connected components over core points.

    A point is *core* if at least `min_samples` points, *this includes the point itself*, lie within
    `eps`, the bound included. Core points within eps of each other share a cluster. A point that is
    not core joins the lowest-numbered cluster that has a core point within eps of it; otherwise it
    is an outlier. Clusters are numbered by their first core point. These are scikit-learn's labels,
    to the digit. Arguments and labels are those of `cluster`.

    Source: Ester et al., "A Density-Based Algorithm for Discovering Clusters", KDD 1996.

    >>> near = sparse.csr_array(np.array([[.0, .2, .9], [.2, .0, .9], [.9, .9, .0]]) + 1e-9)
    >>> dbscan(near, eps=0.5, min_samples=2).tolist()
    [0, 0, -1]
    """
    if importlib.util.find_spec("numba") is not None:
        from gracl import _dbscan_numba

        return _dbscan_numba.label(distance, eps, min_samples)
    return _dbscan_by_components(distance, eps, min_samples)


def hdbscan(distance: sparse.csr_array, *, min_samples: int) -> Labels:
    """HDBSCAN: the clusters that last longest as eps grows. So there is no eps to choose.

    A point's core distance is that of its `min_samples`-th nearest, *the point itself included*. A
    cluster has max(2, `min_samples`) images or more, and all images are never one cluster.

    These are scikit-learn's clusters of the full matrix where no two reachabilities (the larger of a
    pair's distance and its core distances) are equal. Which of equal ones is joined first is
    arbitrary, except at distance 1: what nothing else is near to is joined last and so stays out,
    while in a full matrix it may form a cluster of strangers.

    Args:
        distance: as of `cluster`.
        min_samples: the place of the neighbour that is the core distance, *the image itself
            included*, and the least size of a cluster.

    Source: Campello et al., "Density-Based Clustering Based on Hierarchical Density Estimates",
    PAKDD 2013.

    >>> pairs = np.kron(np.eye(2), np.full((3, 3), 0.2)) - np.eye(6) * 0.1
    >>> hdbscan(sparse.csr_array(pairs), min_samples=2).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    from sklearn.cluster import HDBSCAN

    n, least = distance.shape[0], max(2, min_samples)
    if n < 2 * least:  # two clusters do not fit, and one of everything is none
        return np.full(n, OUTLIER, dtype=np.int64)
    tree = _reachability_tree(distance, min_samples, least)
    # Core distances are in the tree already; with 1 sample each point is its own core.
    found = HDBSCAN(min_cluster_size=least, min_samples=1, metric="precomputed", copy=True).fit(tree)
    return number_by_first(np.maximum(found.labels_.astype(np.int64), OUTLIER))


def agglomerative(
    distance: sparse.csr_array, *, eps: float, min_samples: int, memory: int = 2 * GIB
) -> Labels:
    """Average linkage cut at eps, the bound included.

    Two clusters that are joined at eps or below hold a stored pair within it, so no cluster reaches
    beyond a connected component of the pairs within eps. Each component is worked densely, pairs not
    stored at distance 1, and the result is that of all pairs.

    Args:
        distance: as of `cluster`.
        eps: largest mean distance at which two clusters become one, in [0, 1).
        min_samples: clusters of fewer images are outliers.
        memory: bytes that all distances within one component may take.

    Raises:
        OutOfMemory: a component takes more.

    >>> chain = sparse.csr_array(np.array([[.0, .2, .9], [.2, .0, .4], [.9, .4, .0]]) + 1e-9)
    >>> agglomerative(chain, eps=0.5, min_samples=1).tolist()    # the third is 0.65 from the pair
    [0, 0, 1]
    """
    # 0.6 as a float32 is above 0.6; a stored 0.6 is within it nevertheless, as it is in `dbscan`.
    eps = float(distance.dtype.type(eps))
    _require_below_one(eps, "agglomerative clustering")
    n = distance.shape[0]
    rows, columns, near = _stored_pairs(distance)
    within = near <= eps
    edges = (np.ones(within.sum(), dtype=np.int8), (rows[within], columns[within]))
    _, component = connected_components(sparse.csr_array(edges, shape=(n, n)), directed=False)
    sizes = np.bincount(component)
    _require_room(int(sizes.max(initial=0)), memory)

    # The members of a component lie side by side in `order`, and so do its pairs in `by_component`.
    order = np.argsort(component, kind="stable")
    starts = np.cumsum(sizes) - sizes
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n) - np.repeat(starts, sizes)
    inside = np.flatnonzero((component[rows] == component[columns]) & (rows < columns))
    by_component = inside[np.argsort(component[rows[inside]], kind="stable")]
    ends = np.searchsorted(component[rows[by_component]], np.arange(len(sizes) + 1))

    labels = starts[component]
    for number in np.flatnonzero(sizes >= max(2, min_samples)):
        start, size = starts[number], sizes[number]
        pairs = by_component[ends[number] : ends[number + 1]]
        parts = _average_linkage(size, place[rows[pairs]], place[columns[pairs]], near[pairs], eps)
        labels[order[start : start + size]] = start + parts - 1  # no other component's numbers
    return _without_small(labels, min_samples)


def communities(distance: sparse.csr_array, *, eps: float, min_samples: int, seed: int = 0) -> Labels:
    """Leiden communities of the constant Potts model, with similarities 1 - d and resolution 1 - eps.

    Two groups are better joined where the mean similarity between them is above the resolution, that
    is, where their mean distance is below eps; pairs not stored count, at distance 1. Needs igraph,
    the extra `community`, whose licence is GPL-2.0-or-later.

    Args:
        distance: as of `cluster`.
        eps: mean distance below which two groups become one, in [0, 1).
        min_samples: communities of fewer images are outliers.
        seed: of the order in which images are visited; the same seed gives the same labels.

    Raises:
        ConfigError: igraph is not installed.

    Source: Traag et al., "From Louvain to Leiden", Scientific Reports 2019; Traag et al., "Narrow
    Scope for Resolution-Limit-Free Community Detection", Physical Review E 2011, for the quality.

    >>> chain = sparse.csr_array(np.array([[.0, .2, .9], [.2, .0, .4], [.9, .4, .0]]) + 1e-9)
    >>> communities(chain, eps=0.5, min_samples=2).tolist()
    [0, 0, -1]
    """
    _require_below_one(eps, "community detection")
    try:
        import igraph
    except ImportError as error:
        raise ConfigError(
            "community detection needs igraph, which is not installed: pip install "
            "'gracl[community]'. Its licence is GPL-2.0-or-later, so gracl does not bring it along"
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
        igraph.set_random_number_generator(random)  # what igraph starts with
    return _without_small(np.array(found.membership, dtype=np.int64), min_samples)


ALGORITHMS: dict[Algorithm, Callable[..., Labels]] = {
    "dbscan": dbscan,
    "hdbscan": lambda distance, eps, min_samples: hdbscan(distance, min_samples=min_samples),  # noqa: ARG005
    "agglomerative": agglomerative,
    "community": communities,
}


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
                f"{self.outlier_share:.0%} of the images are in no cluster: raise method.eps (hdbscan "
                "has none), or lower method.min_samples for fewer images an identity"
            )
        if self.largest_share > 0.5:
            found.append(
                f"the largest cluster holds {self.largest_share:.0%} of the clustered images: "
                "lower method.eps (hdbscan has none) or method.k1"
            )
        return tuple(found)


def health(labels: Labels, previous: Labels | None = None) -> Health:
    """Describes labels; `previous` are those of the same images an epoch ago."""
    _, sizes = np.unique(labels[labels != OUTLIER], return_counts=True)
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
    n, n_clusters = len(labels), len(np.unique(labels[labels != OUTLIER]))
    if n_clusters == 0:
        raise ClusterCollapse(
            f"all {n} images are outliers: no image has enough neighbours within eps. Raise "
            "method.eps (towards 0.7-0.9; hdbscan has none), lower method.min_samples (2 where an "
            "identity has two images), or start from pretrained weights (model.weights)"
        )
    if n_clusters == 1:
        raise ClusterCollapse(
            f"one cluster holds {int((labels != OUTLIER).sum())} of {n} images: there is nothing to "
            "contrast it with. Lower method.eps (towards 0.3-0.5) or method.k1"
        )
    return labels


def _dbscan_by_components(distance: sparse.csr_array, eps: float, min_samples: int) -> Labels:
    n = distance.shape[0]
    near = distance.data <= eps
    # Four bytes a number: the pairs are many, and the images few enough.
    rows = np.repeat(np.arange(n, dtype=np.int32), np.diff(distance.indptr))[near]
    columns = distance.indices[near].astype(np.int32, copy=False)
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


def _reachability_tree(distance: sparse.csr_array, min_samples: int, least: int) -> sparse.csr_matrix:
    """A minimum spanning tree of the mutual reachability of all pairs, stored both ways.

    Pairs that are not stored have distance 1, and nothing is farther. So the tree is the spanning
    forest of the pairs that reach each other below 1, its parts joined at 1. In which order is open,
    and matters to what reads the tree: joined to each other, images that are near nobody would look
    like a cluster. So each part is joined to the largest one, those of fewer than `least` last.
    """
    n = distance.shape[0]
    rows, columns, near = _stored_pairs(distance)
    core = _core_distances(distance, min_samples)
    reach = np.maximum(np.maximum(core[rows], core[columns]), np.maximum(near, LEAST))
    below = reach < 1
    places = rows[below].astype(np.int32), columns[below].astype(np.int32)  # as SciPy before 1.17 asks
    pairs = sparse.csr_array((reach[below], places), shape=(n, n))
    forest = minimum_spanning_tree(pairs).tocoo()
    _, part = connected_components(forest, directed=False)
    _, first, sizes = np.unique(part, return_index=True, return_counts=True)
    hub = int(sizes.argmax())
    others = np.delete(np.arange(len(sizes)), hub)
    every = np.arange(n)
    a = np.concatenate([forest.row, np.full(len(others), first[hub])])
    b = np.concatenate([forest.col, first[others]])
    length = np.concatenate([forest.data, np.where(sizes[others] < least, FAR, 1.0)])
    # scikit-learn wants a diagonal, as near as nothing.
    places = np.concatenate([a, b, every]), np.concatenate([b, a, every])
    values = np.concatenate([length, length, np.full(n, LEAST)])
    return sparse.csr_matrix((values, places), shape=(n, n))


def _average_linkage(
    size: int,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    near: NDArray[np.float64],
    eps: float,
) -> NDArray[np.int32]:
    """Parts of `size` images, given the pairs, rows < columns, that are nearer than 1."""
    from scipy.cluster.hierarchy import fcluster, linkage

    condensed = np.ones(size * (size - 1) // 2)  # the upper triangle, row after row
    condensed[size * rows - rows * (rows + 1) // 2 + columns - rows - 1] = near
    return fcluster(linkage(condensed, method="average"), t=eps, criterion="distance")


def _require_room(size: int, memory: int) -> None:
    """Refuses a component whose distances do not fit in `memory`, or twice in what there is."""
    needed = 4 * size * (size - 1)
    stage = f"average linkage of {size} images that hang together within eps"
    remedy = "Lower method.eps, or set method.clustering to dbscan, hdbscan or community"
    if needed > memory:
        raise OutOfMemory(
            f"{stage} needs {needed / GIB:.1f} GiB and may take {memory / GIB:.1f} GiB. {remedy}"
        )
    require_memory(stage, 2 * needed, remedy)  # scipy works on a copy


def _require_below_one(eps: float, who: str) -> None:
    if not eps < 1:
        raise ShapeError(f"eps is {eps}; {who} needs eps below 1, the distance of pairs not stored")


def _without_small(labels: Labels, min_samples: int) -> Labels:
    """Clusters of fewer images are outliers, the others numbered by their first."""
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    small = sizes[inverse] < min_samples
    return number_by_first(np.where(small, OUTLIER, labels))
