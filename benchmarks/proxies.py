"""Where GRACL's proxies lie, and how good its clusters look without labels, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gracl.clustering import Labels
from gracl.methods import METHODS
from gracl.methods.gracl import GRACL
from gracl.methods.memory import means_of_clusters

Pids = NDArray[np.int64]


@contextmanager
def watched(pids: Pids) -> Iterator[dict[str, Any]]:
    """While it is open, each epoch of GRACL fills the dictionary that it gives."""
    seen: dict[str, Any] = {}

    class Watched(GRACL):
        def build_memory(self, features: Tensor, labels: Labels, **more: Any) -> dict[str, Tensor]:
            banks = super().build_memory(features, labels, **more)
            seen.clear()
            seen.update(look(features, labels, self.proxies, pids))
            seen["silhouette"] = silhouette(more["distance"], labels)
            return banks

    own = METHODS["gracl"]
    METHODS["gracl"] = Watched
    try:
        yield seen
    finally:
        METHODS["gracl"] = own


def look(features: Tensor, labels: Labels, proxies: dict[str, Tensor], pids: Pids) -> dict[str, Any]:
    """Shares of wrong samples, and means of cosines.

    "wrong": the sample's identity is not its cluster's most frequent one. "mean_norm": length of the
    mean of all features; where it is near 1, a mean over foreign cosines says little.
    """
    n_clusters = int(labels.max()) + 1
    major = np.array([_most_frequent(pids[labels == k]) for k in range(n_clusters)])
    member = np.flatnonzero(labels >= 0)
    y = torch.from_numpy(labels[member])
    centres = means_of_clusters(features, labels)
    found: dict[str, Any] = {
        "mean_norm": float(features.mean(0).norm()),
        "wrong_members": float(np.mean(pids[member] != major[labels[member]])),
        "member_to_centroid": float((features[torch.from_numpy(member)] * centres[y]).sum(1).mean()),
    }
    others = torch.from_numpy(labels)[None]
    for name, rows in proxies.items():
        similarity = features[rows] @ features.T
        own = (others == torch.arange(n_clusters)[:, None]) | (others < 0)
        found[name] = {
            "wrong": float(np.mean(pids[rows.numpy()] != major)),
            "to_centroid": float((features[rows] * centres).sum(1).mean()),
            "to_nearest_foreign": float(similarity.masked_fill(own, -1).amax(1).mean()),
        }
    return found


def silhouette(distance: sparse.csr_array, labels: Labels) -> float:
    """Mean over clustered images of (b - a) / max(a, b), by Jaccard distances; what is not stored is 1.

    a: mean distance to the own cluster's other images; b: to those of the nearest other cluster.

    Source: Rousseeuw, "Silhouettes", Journal of Computational and Applied Mathematics 20, 1987.
    """
    n, member = len(labels), labels >= 0
    near = distance.copy()
    near.data = 1 - near.data
    near.setdiag(0)
    places = (np.flatnonzero(member), labels[member])
    onehot = sparse.csr_array((np.ones(member.sum()), places), shape=(n, int(labels.max()) + 1))
    sums = (near @ onehot).toarray()[member]
    sizes = np.bincount(labels[member])
    rows, y = np.arange(member.sum()), labels[member]
    a = 1 - sums[rows, y] / np.maximum(sizes[y] - 1, 1)
    means = sums / sizes
    means[rows, y] = -np.inf
    b = 1 - means.max(axis=1)
    return float(np.mean(np.where(sizes[y] > 1, (b - a) / np.maximum(np.maximum(a, b), 1e-12), 0.0)))


def _most_frequent(values: Pids) -> int:
    known = values[values >= 0]
    return int(np.bincount(known).argmax()) if len(known) else -1
