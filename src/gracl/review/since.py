"""What changed between two sets of clusters of the same images.

Letters: N images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gracl.agreement import compare_labels
from gracl.links import OUTLIER, Labels


@dataclass(frozen=True)
class Since:
    """How clusters differ from earlier ones."""

    n_images: int
    """That both speak of."""
    n_clusters_before: int
    n_clusters: int
    n_moved: int
    """Images that were in a cluster and are in one that comes mostly from another."""
    n_joined: int
    """Images that were in no cluster, and are."""
    n_left: int
    """Images that were in a cluster, and are in none."""
    ari_before: float | None = None
    """Where the truth is known; outliers count as clusters of one."""
    ari: float | None = None

    def __str__(self) -> str:
        """In words."""
        text = (
            f"{self.n_clusters_before} clusters became {self.n_clusters}; of {self.n_images:,} images "
            f"{self.n_moved:,} moved to another cluster, {self.n_joined:,} joined one and "
            f"{self.n_left:,} left"
        )
        if self.ari is None or self.ari_before is None:
            return text
        return f"{text}; ARI {100 * self.ari_before:.1f} -> {100 * self.ari:.1f} %"


def compare(earlier: Labels, labels: Labels, pids: NDArray[np.int64] | None = None) -> Since:
    """Compares clusters with earlier ones.

    Args:
        earlier: (N,) clusters; `OUTLIER` is none, and less an image that there was not.
        labels: (N,) clusters.
        pids: (N,) true identities, -1 unknown, where any is known.

    >>> compare(np.array([0, 0, 0, 1, 1, -1]), np.array([5, 5, 7, 7, 7, 7])).n_moved
    1
    """
    there = earlier >= OUTLIER
    before, now = earlier[there], labels[there]
    both = (before != OUTLIER) & (now != OUTLIER)
    moved = before[both] != _mostly(before[both], now[both])
    known = None if pids is None else pids[there]
    return Since(
        n_images=int(there.sum()),
        n_clusters_before=_count(before),
        n_clusters=_count(now),
        n_moved=int(moved.sum()),
        n_joined=int(((before == OUTLIER) & (now != OUTLIER)).sum()),
        n_left=int(((before != OUTLIER) & (now == OUTLIER)).sum()),
        ari_before=None if known is None else compare_labels(_numbered(before), known).ari,
        ari=None if known is None else compare_labels(_numbered(now), known).ari,
    )


def _mostly(before: Labels, now: Labels) -> Labels:
    """The earlier cluster that each image's cluster has most images of; the lower number on a tie."""
    pairs, counts = np.unique(np.stack([now, before]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    numbers, first = np.unique(pairs[0][order], return_index=True)
    most = pairs[1][order][first]
    found: Labels = most[np.searchsorted(numbers, now)]
    return found


def _count(labels: Labels) -> int:
    return len(np.unique(labels[labels != OUTLIER]))


def _numbered(labels: Labels) -> Labels:
    """Clusters 0, 1, ... without gaps."""
    numbers = np.unique(labels[labels != OUTLIER])
    return np.where(labels == OUTLIER, OUTLIER, np.searchsorted(numbers, labels))
