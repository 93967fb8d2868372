"""How doubtful it is that an image belongs to its cluster: what to look at first.

Letters: N images, C clusters, D feature dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gracl.errors import ShapeError
from gracl.links import OUTLIER, Labels

QUARTER = 0.25
"""Share of a cluster's images, the most doubtful ones, whose mean is the doubt of the cluster."""
ALONE = 0.5
"""Doubt of an image that has nothing to be compared with."""
BLOCK = 4096
"""Images multiplied with all clusters at a time."""


@dataclass(frozen=True)
class Doubts:
    """Numbers in [0, 1], larger for more doubt; 0.5 is as near to another cluster as to its own."""

    image: NDArray[np.float32]
    """(N,) of each image within its cluster; 1 for outliers."""
    cluster: NDArray[np.float32]
    """(C,) of each cluster: the mean of its most doubtful quarter, rounded up."""


def doubts(features: Tensor, labels: Labels) -> Doubts:
    """The doubt of images and clusters, from features and labels alone.

    The doubt of an image is (1 - s) / 2 with its simplified silhouette s = (b - a) / max(a, b), where
    a is the cosine distance to the mean of its cluster's *other* images and b that to the nearest mean
    of another cluster. An image that is alone in its cluster, or in the only cluster, has doubt 0.5.

    Args:
        features: (N, D) unit rows.
        labels: (N,) clusters 0 .. C - 1; `OUTLIER` is none.

    Raises:
        ShapeError: they do not fit each other.

    Source: the silhouette of Rousseeuw, 1987, with means in the place of all pairs (Hruschka et al.,
    2004).

    >>> pairs = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [1.0, 0.9]]))
    >>> found = doubts(pairs, np.array([0, 0, 1, 1, 1]))
    >>> int(found.image.argmax()), int(found.cluster.argmax())
    (4, 1)
    """
    if features.ndim != 2 or labels.shape != (len(features),):
        raise ShapeError(
            f"features {tuple(features.shape)} and labels {labels.shape}; expected (N, D) and (N,)"
        )
    n_clusters = int(labels.max(initial=OUTLIER)) + 1
    sums = cluster_sums(features, labels, n_clusters)
    own = own_similarity(features, labels, sums)
    foreign, _ = foreign_similarity(features, labels, F.normalize(sums))
    image = doubt_of(own, foreign)
    image[labels == OUTLIER] = 1
    return Doubts(image, cluster_doubts(image, labels, n_clusters))


def cluster_sums(features: Tensor, labels: Labels, n_clusters: int) -> Tensor:
    """(C, D) the sum of each cluster's rows."""
    inside = np.flatnonzero(labels != OUTLIER)
    rows, y = torch.from_numpy(inside), torch.from_numpy(labels[inside])
    return torch.zeros(n_clusters, features.shape[1]).index_add_(0, y, features[rows])


def own_similarity(features: Tensor, labels: Labels, sums: Tensor) -> NDArray[np.float32]:
    """(N,) cosine of each image and the mean of its cluster's other images; NaN where it is alone."""
    own = np.full(len(labels), np.nan, dtype=np.float32)
    inside = np.flatnonzero(labels != OUTLIER)
    sizes = np.bincount(labels[inside], minlength=len(sums))
    rows = inside[sizes[labels[inside]] > 1]
    for part in np.split(rows, range(BLOCK, len(rows), BLOCK)):
        images = features[torch.from_numpy(part)]
        others = F.normalize(sums[torch.from_numpy(labels[part])] - images)
        own[part] = (images * others).sum(1).numpy()
    return own


def foreign_similarity(
    features: Tensor, labels: Labels, means: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(N,) the greatest cosine of each image and another cluster's mean, and (N,) which; NaN, -1: none.

    Args:
        features: (N, D) unit rows.
        labels: (N,) the cluster that is not another's.
        means: (C, D) unit rows; a row of zeros is no cluster.
    """
    nearest = np.full(len(labels), np.nan, dtype=np.float32)
    which = np.full(len(labels), OUTLIER, dtype=np.int64)
    empty = ~means.any(dim=1)
    if not len(means):
        return nearest, which
    for start in range(0, len(labels), BLOCK):
        rows = slice(start, start + BLOCK)
        similarity = features[rows] @ means.T
        similarity[:, empty] = -torch.inf
        y = torch.from_numpy(labels[rows])
        inside = torch.nonzero(y >= 0).flatten()
        similarity[inside, y[inside]] = -torch.inf
        best, at = similarity.max(dim=1)
        there = torch.isfinite(best).numpy()
        nearest[rows] = np.where(there, best.numpy(), np.nan)
        which[rows] = np.where(there, at.numpy(), OUTLIER)
    return nearest, which


def doubt_of(own: NDArray[np.float32], foreign: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) doubts of similarities to the own cluster and to the nearest other; NaN is none there."""
    a, b = 1 - own, 1 - foreign
    widest = np.maximum(np.maximum(a, b), 1e-6)
    silhouette = np.clip((b - a) / widest, -1, 1)
    return np.where(np.isnan(silhouette), ALONE, (1 - silhouette) / 2).astype(np.float32)


def cluster_doubts(image: NDArray[np.float32], labels: Labels, n_clusters: int) -> NDArray[np.float32]:
    """(C,) the mean doubt of each cluster's most doubtful quarter, rounded up; 0 of an empty one."""
    inside = np.flatnonzero(labels != OUTLIER)
    order = inside[np.lexsort((-image[inside], labels[inside]))]
    y = labels[order]
    sizes = np.bincount(y, minlength=n_clusters)
    place = np.arange(len(y)) - np.searchsorted(y, y)  # within the cluster, from 0
    worst = np.ceil(sizes * QUARTER)
    counted = place < worst[y]
    sums = np.bincount(y[counted], weights=image[order[counted]], minlength=n_clusters)
    found: NDArray[np.float32] = (sums / np.maximum(worst, 1)).astype(np.float32)
    return found
