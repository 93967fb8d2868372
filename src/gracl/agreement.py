"""Pseudo labels against the truth.

An outlier is a group of its own in ARI, AMI and the pairs: a method gains nothing by leaving an image
out, and loses nothing by leaving out an image that has no partner. Purity and the number of clusters
are of the clustered images alone, so neither may be read without the share of outliers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from gracl.clustering import (
    OUTLIER,
    Labels,
    adjusted_mutual_information,
    outliers_as_singletons,
)
from gracl.errors import ShapeError


@dataclass(frozen=True)
class Agreement:
    """How well clusters match true identities; 1 is perfect in every share."""

    ari: float
    """Adjusted Rand index, in [-0.5, 1]; 0 is chance."""
    ami: float
    """Adjusted mutual information (arithmetic mean), at most 1; 0 is chance."""
    purity: float
    """Share of clustered images whose identity is the most frequent one of their cluster."""
    pair_precision: float
    """Share of the pairs put together that belong together."""
    pair_recall: float
    """Share of the pairs that belong together that were put together."""
    pair_f1: float
    n_clusters: int
    """Clusters that hold an image of known identity; outliers are none."""
    n_identities: int
    """Known identities, those among the outliers too."""
    cluster_count_error: int
    """Clusters found minus true identities: below 0 too few."""
    relative_cluster_count_error: float
    """The same as a share of the true identities, at least -1; 0 where none is known."""


def compare_labels(labels: Labels, pids: NDArray[np.int64]) -> Agreement:
    """Scores labels against identities; images of unknown identity (pid < 0) are left out.

    Args:
        labels: (N,) pseudo labels, `OUTLIER` = -1.
        pids: (N,) true identities as integers, negative where unknown.

    >>> scores = compare_labels(np.array([0, 0, 1, 1]), np.array([7, 7, 9, 9]))
    >>> scores.ari, scores.purity, scores.pair_f1, scores.cluster_count_error
    (1.0, 1.0, 1.0, 0)
    """
    from sklearn.metrics import adjusted_rand_score

    if labels.shape != pids.shape or labels.ndim != 1:
        raise ShapeError(f"labels {labels.shape} and pids {pids.shape}; expected the same (N,)")
    known = pids >= 0
    labels, pids = labels[known], pids[known]
    clustered = labels != OUTLIER
    table = _contingency(labels[clustered], pids[clustered])
    majority = table.max(axis=0).toarray().sum() if table.nnz else 0
    together = _pairs(table.data)
    put = _pairs(np.bincount(labels[clustered]))
    belong = _pairs(np.unique(pids, return_counts=True)[1])
    alone = outliers_as_singletons(labels)
    n_clusters, n_identities = len(np.unique(labels[clustered])), len(np.unique(pids))
    return Agreement(
        ari=float(adjusted_rand_score(pids, alone)),
        ami=adjusted_mutual_information(alone, pids),
        purity=float(majority / max(1, clustered.sum())),
        pair_precision=together / put if put else 0.0,
        pair_recall=together / belong if belong else 0.0,
        pair_f1=2 * together / (put + belong) if put + belong else 0.0,
        n_clusters=n_clusters,
        n_identities=n_identities,
        cluster_count_error=n_clusters - n_identities,
        relative_cluster_count_error=(n_clusters - n_identities) / max(1, n_identities),
    )


def _contingency(labels: Labels, pids: NDArray[np.int64]) -> csr_array:
    """(identities, clusters) counts."""
    identities, rows = np.unique(pids, return_inverse=True)
    clusters, columns = np.unique(labels, return_inverse=True)
    shape = len(identities), len(clusters)
    counts = coo_array((np.ones(len(rows), dtype=np.int64), (rows, columns)), shape=shape)
    return counts.tocsr()


def _pairs(sizes: NDArray[np.int64]) -> int:
    return int((sizes * (sizes - 1) // 2).sum())
