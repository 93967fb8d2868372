"""Clusters to look at: the largest, the most doubtful, and images that are in none.

Letters: N images, C clusters.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gracl.data.records import Records
from gracl.doubt import doubts
from gracl.links import OUTLIER, Labels
from gracl.report.album import Album, Shot
from gracl.report.figures import percent

SHOWN = 8
"""Clusters of each kind, and images of each cluster."""
OUTLIERS = 24


@dataclass(frozen=True)
class ClusterCard:
    """A cluster with some of its images, from the least to the most doubtful."""

    number: int
    """As in labels.csv."""
    size: int
    doubt: float
    shots: tuple[Shot, ...]
    image_doubts: tuple[float, ...]
    truth: str
    """How many identities are in it, and the share of the most frequent; "" where none is known."""


@dataclass(frozen=True)
class Clusters:
    """What is shown of a run's clusters."""

    count: int
    largest: tuple[ClusterCard, ...]
    doubtful: tuple[ClusterCard, ...]
    outliers: tuple[Shot, ...]
    n_outliers: int


def show_clusters(
    features: Tensor, labels: Labels, pids: NDArray[np.int64], records: Records, album: Album, seed: int
) -> Clusters:
    """The clusters to look at.

    Args:
        features: (N, D) unit rows.
        labels: (N,) clusters.
        pids: (N,) true identities, -1 unknown.
        records: of the N images.
        album: where pictures are asked for.
        seed: of the outliers that are drawn.
    """
    found = doubts(features, labels)
    sizes = np.bincount(labels[labels != OUTLIER], minlength=len(found.cluster))

    def card(number: int) -> ClusterCard:
        rows = np.flatnonzero(labels == number)
        rows = rows[np.argsort(found.image[rows], kind="stable")]
        ends = np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).round().astype(np.int64)
        return ClusterCard(
            number,
            len(rows),
            float(found.cluster[number]),
            tuple(album.place(records[int(row)]) for row in rows[ends]),
            tuple(found.image[rows[ends]].tolist()),
            truth_of(pids[rows]),
        )

    largest = np.argsort(-sizes, kind="stable")[:SHOWN]
    doubtful = np.argsort(-found.cluster, kind="stable")[:SHOWN]
    outside = np.flatnonzero(labels == OUTLIER)
    drawn = np.sort(np.random.default_rng(seed).permutation(outside)[:OUTLIERS])
    return Clusters(
        int((sizes > 0).sum()),
        tuple(card(int(number)) for number in largest if sizes[number]),
        tuple(card(int(number)) for number in doubtful if sizes[number]),
        tuple(album.place(records[int(row)]) for row in drawn),
        len(outside),
    )


def truth_of(pids: NDArray[np.int64]) -> str:
    """What the truth says of one cluster.

    >>> truth_of(np.array([3, 3, 3, 7])), truth_of(np.array([3, 3])), truth_of(np.array([-1]))
    ('2 identities, 75.0% of one', 'one identity', '')
    """
    counts = Counter(pids[pids >= 0].tolist())
    if not counts:
        return ""
    if len(counts) == 1:
        return "one identity"
    share = max(counts.values()) / sum(counts.values())
    return f"{len(counts)} identities, {percent(share)} of one"
