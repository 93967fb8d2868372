"""Pseudo labels from a sparse graph of distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from gracl.errors import ClusterCollapse, ShapeError

OUTLIER = -1
"""The label of an image that belongs to no cluster."""

Labels = NDArray[np.int64]


def cluster(distance: sparse.csr_array, *, eps: float, min_samples: int = 4) -> Labels:
    """DBSCAN: connected components over core points.

    A point is *core* if at least `min_samples` points, *this includes the point itself*, lie within
    `eps`, the bound included. Core points within eps of each other share a cluster. A point that is
    not core joins the lowest-numbered cluster that has a core point within eps of it; otherwise it
    is an outlier. Clusters are numbered by their first core point. These are scikit-learn's labels,
    to the digit.

    Args:
        distance: (N, N) symmetric sparse matrix; pairs not stored are farther than any eps. The
            diagonal is stored (as 0) and counts. Stored zeros are neighbours.
        eps: largest distance of a neighbour, in [0, 1) for Jaccard distances.
        min_samples: points within eps that make a point core, at least 1.

    Returns:
        (N,) int64 labels 0 .. C - 1, `OUTLIER` = -1.

    Source: Ester et al., "A Density-Based Algorithm for Discovering Clusters", KDD 1996.

    >>> near = sparse.csr_array(np.array([[.0, .2, .9], [.2, .0, .9], [.9, .9, .0]]) + 1e-9)
    >>> cluster(near, eps=0.5, min_samples=2).tolist()
    [0, 0, -1]
    """
    n = distance.shape[0]
    if distance.shape != (n, n):
        raise ShapeError(f"distance has shape {distance.shape}; expected a square (N, N) matrix")
    if min_samples < 1 or not eps >= 0:
        raise ShapeError(f"eps is {eps} and min_samples {min_samples}; need eps >= 0, >= 1 samples")
    near = distance.data <= eps
    rows = np.repeat(np.arange(n), np.diff(distance.indptr))[near]
    columns = distance.indices[near].astype(np.int64)
    core = np.bincount(rows, minlength=n) >= min_samples

    between = core[rows] & core[columns]
    edges = (np.ones(between.sum(), dtype=np.int8), (rows[between], columns[between]))
    _, component = connected_components(sparse.csr_array(edges, shape=(n, n)), directed=False)
    labels = np.full(n, OUTLIER, dtype=np.int64)
    labels[core] = _number_by_first(component[core])

    reached = ~core[rows] & core[columns]
    nearest = np.full(n, n, dtype=np.int64)
    np.minimum.at(nearest, rows[reached], labels[columns[reached]])
    border = nearest < n
    labels[border] = nearest[border]
    return labels


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


def _number_by_first(component: NDArray[np.int32]) -> Labels:
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[inverse]
