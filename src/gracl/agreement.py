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
from scipy.sparse.csgraph import connected_components

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


@dataclass(frozen=True)
class Identification:
    """How well global identities follow true ones, as multi-camera tracking scores them."""

    idf1: float
    """2 IDTP / (boxes of truth + boxes given an identity), in [0, 1]."""
    idp: float
    """Share of the boxes given an identity that have the right one."""
    idr: float
    """Share of the true identities' boxes that were given the right one."""


def score_identification(
    labels: Labels, pids: NDArray[np.int64], boxes: NDArray[np.int64] | None = None
) -> Identification:
    """IDF1, IDP and IDR of identities given to boxes, or to tracklets of so many boxes.

    Each true identity is matched with at most one of those given, and each of these with at most one
    true one, so that as many boxes as can be, IDTP, are of a matched pair. The boxes are the truth's
    own here: a detector's misses and false alarms are no part of it.

    Args:
        labels: (N,) identities given; `OUTLIER` = -1 is none.
        pids: (N,) true identities, negative where unknown; these are left out.
        boxes: (N,) how many boxes each stands for; one if not given.

    Source: Ristani et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera
    Tracking", ECCV 2016 workshops, section 3.

    >>> score_identification(np.array([1, 1, 2, 2]), np.array([7, 7, 7, 9])).idf1
    0.75
    """
    from scipy.optimize import linear_sum_assignment

    boxes = np.ones(len(labels), dtype=np.int64) if boxes is None else boxes
    if not labels.shape == pids.shape == boxes.shape or labels.ndim != 1:
        raise ShapeError(
            f"labels {labels.shape}, pids {pids.shape} and boxes {boxes.shape}; expected the same (N,)"
        )
    known = pids >= 0
    given = known & (labels != OUTLIER)
    table = _contingency(labels[given], pids[given], boxes[given])
    # What has no box in common need not be matched, so parts that share none are worked one by one.
    matched, n_true = 0, table.shape[0]
    true, own = table.nonzero()
    edges = np.ones(len(true), dtype=np.int8), (true, n_true + own)
    n_nodes = n_true + table.shape[1]
    _, part = connected_components(coo_array(edges, shape=(n_nodes, n_nodes)), directed=False)
    for number in np.unique(part[:n_true]):
        inner = table[part[:n_true] == number][:, part[n_true:] == number].toarray()
        matched += int(inner[linear_sum_assignment(inner, maximize=True)].sum())
    n_given, n_known = int(boxes[given].sum()), int(boxes[known].sum())
    return Identification(
        idf1=2 * matched / (n_given + n_known) if n_given + n_known else 0.0,
        idp=matched / n_given if n_given else 0.0,
        idr=matched / n_known if n_known else 0.0,
    )


def _contingency(
    labels: Labels, pids: NDArray[np.int64], weights: NDArray[np.int64] | None = None
) -> csr_array:
    """(identities, clusters) counts."""
    identities, rows = np.unique(pids, return_inverse=True)
    clusters, columns = np.unique(labels, return_inverse=True)
    shape = len(identities), len(clusters)
    weights = np.ones(len(rows), dtype=np.int64) if weights is None else weights
    return coo_array((weights, (rows, columns)), shape=shape).tocsr()


def _pairs(sizes: NDArray[np.int64]) -> int:
    return int((sizes * (sizes - 1) // 2).sum())
