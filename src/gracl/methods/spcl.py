"""SpCL: all images are remembered, and those in no reliable cluster are classes of their own.

Source: Ge et al., "Self-paced Contrastive Learning with Hybrid Memory for Domain Adaptive Object
Re-ID", NeurIPS 2020, arXiv:2006.02713: the unsupervised case, which has no source domain. Section 3.1:
the contrast (equation 1), centroids (3), memory (4). Section 3.2: independence (5), compactness (6).

Once an epoch:   remembered features -> three clusterings -> reliable clusters, and images alone
At each step:    batch features -> contrast with all centroids -> (optimiser) -> memory moves

How the thresholds are read here:
    alpha   of the first epoch's clusters, by falling independence, it is the score at place
            round(0.9 C) (the last where that is past the end), so about nine in ten are kept; it stays
            for all epochs. A cluster's independence is the highest of its images'.
    beta    the highest compactness in the cluster, so only its most compact images are kept.
    A score that equals its threshold passes: with beta a maximum, nothing would be kept otherwise.
    A cluster that has one image left is an image alone.

Letters: N images, D dimensions, C classes (clusters, then images alone), B images of a batch. Features
and memory are float32 unit rows; centroids are plain means, as in equation 3, so they are shorter.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gracl.clustering import OUTLIER, Labels, outliers_as_singletons, require_clusters
from gracl.linked_clusters import honour
from gracl.links import number_by_first
from gracl.methods.groups import cluster_sums, turns
from gracl.methods.memory import contrast, move
from gracl.methods.protocol import Batch, Known, Stage
from gracl.methods.pseudo_labels import PseudoLabels

Scores = NDArray[np.float64]

INDEPENDENT = 0.9
"""Share of the first epoch's clusters that count as independent, about."""
FLOAT = 4
"""Bytes."""
AVERAGING = 3
"""(N, D) tensors that centroids are averaged by: rows of the members, their sums, the means."""
CONTRASTING = 5
"""(B, C) tensors of a step: products, logits, their log-softmax, and the gradients of two of them."""
BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))
"""The largest eps: distances are float32, and pairs at distance 1 are not stored."""


class SpCL(PseudoLabels):
    """The method: its settings, and the memory, which lasts over all epochs.

    Args:
        known: of the images, besides their features.
        eps_gap: added to eps, and taken from it, for a looser and a tighter clustering.
        momentum: share of the OLD row that is kept.
        temperature: of the contrast.
        labels: k1, k2, eps, min_samples, clustering, search: see `PseudoLabels`. With "hdbscan",
            which has no eps, all clusters are reliable.
    """

    def __init__(
        self,
        known: Known | None = None,
        *,
        eps_gap: float = 0.02,
        momentum: float = 0.2,
        temperature: float = 0.05,
        **labels: Any,
    ) -> None:
        super().__init__(known, **labels)
        self.eps_gap, self.momentum, self.temperature = eps_gap, momentum, temperature
        self.alpha: float | None = None
        """Least independence of a reliable cluster, since the first epoch."""
        self.classes = self.centroids = torch.empty(0)
        """(N,) class of each image and (C, D) means of their memory rows, in this epoch."""

    # -- once an epoch ----------------------------------------------------------------------------

    def needed_memory(self, n: int, dimensions: int, *, parts: int, group: int) -> int:  # noqa: ARG002
        """Bytes of memory and centroids, each as large as the features where all images are alone.

        Beside them, the copies that centroids are averaged by at the start of an epoch, or what a step
        makes of the similarities of a group and all centroids.
        """
        rows, similarities = FLOAT * n * dimensions, FLOAT * group * n
        return 2 * rows + max(AVERAGING * rows, CONTRASTING * similarities)

    def remembered(self) -> Tensor | None:
        """(N, D) memory rows, after the first epoch."""
        return self.banks.get("instances")

    def start_epoch(
        self, features: Tensor, stage: Stage = nullcontext, *, parts: Tensor | None = None
    ) -> Labels:
        """Clusters the features in the first epoch, later what is remembered.

        Arguments and labels are those of `PseudoLabels.start_epoch`; no image is an outlier.
        """
        remembered = self.remembered()
        if remembered is not None:
            features = remembered.to(features.device)
        labels = super().start_epoch(features, stage, parts=parts)
        bank = self.banks["instances"]
        self.classes = torch.from_numpy(labels).to(bank.device)
        n_classes = int(labels.max()) + 1
        self.centroids = bank.new_empty(n_classes, bank.shape[1])
        self._average(torch.arange(n_classes, device=bank.device))
        return labels

    def choose(self, labels: Labels, distance: sparse.csr_array) -> Labels:
        """The reliable clusters, then each other image as a class of one.

        Images that must share a cluster still do where theirs was not reliable.
        """
        require_clusters(labels)
        loose = self.cluster(distance, eps=min(self.eps + self.eps_gap, BELOW_ONE))
        tight = self.cluster(distance, eps=max(self.eps - self.eps_gap, 0.0))
        independence = best_of_clusters(overlap(labels, loose), labels)
        if self.alpha is None:
            self.alpha = independence_to_keep(independence)
        kept = reliable(labels, independence, overlap(labels, tight), self.alpha)
        links = self.known.links
        return outliers_as_singletons(kept if links is None else honour(kept, distance, links))

    def build_memory(
        self,
        features: Tensor,
        labels: Labels,  # noqa: ARG002
        **_: object,
    ) -> dict[str, Tensor]:
        """(N, D) rows of all images."""
        return {"instances": features.clone()}

    # -- at each step -----------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Pulls each image to the centroid of its class, from all others (equation 1).

        An image alone is its own centroid, so one bank holds the positives and both kinds of negatives.
        """
        features = batch.features.float()
        return {"contrast": contrast(features, self.centroids, batch.labels, self.temperature)}

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """Moves the rows of the batch's images (equation 4), then the centroids they count in.

        An image that is in the batch more than once moves its row each time, in order.
        """
        features = batch.features.detach().float()
        for turn in turns(batch.rows):
            move(self.banks["instances"], batch.rows[turn], features[turn], self.momentum)
        self._average(torch.unique(batch.labels))

    def _average(self, classes: Tensor) -> None:
        """Takes the centroids of some classes, by rising number, anew (equation 3)."""
        member = torch.nonzero(torch.isin(self.classes, classes)).flatten()
        position = torch.searchsorted(classes, self.classes[member])
        sums, sizes = cluster_sums(self.banks["instances"][member], position)
        self.centroids[classes] = sums / sizes[:, None]

    # -- what continues it ------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """The memory and alpha, on the CPU; nothing before the first epoch."""
        if self.alpha is None:
            return {}
        memory = self.banks["instances"].detach().cpu().clone()
        return {"instances": memory, "alpha": torch.tensor(self.alpha, dtype=torch.float64)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continues from a `state`."""
        if state:
            self.banks = {"instances": state["instances"]}  # copied where the epoch starts
            self.alpha = float(state["alpha"])


# -- which clusters are reliable ------------------------------------------------------------------


def overlap(labels: Labels, others: Labels) -> Scores:
    """(N,) how much of an image's clusters in two clusterings is shared: intersection over union.

    With a looser clustering it is the image's independence (equation 5), with a tighter one its
    compactness (6). An outlier is a cluster of itself.

    >>> overlap(np.array([0, 0, 1, 1]), np.array([0, 0, 0, -1])).round(2).tolist()
    [0.67, 0.67, 0.25, 0.5]
    """
    a, b = outliers_as_singletons(labels), outliers_as_singletons(others)
    _, pair, sizes = np.unique(a * (b.max() + 1) + b, return_inverse=True, return_counts=True)
    shared = sizes[pair]
    found: Scores = shared / (np.bincount(a)[a] + np.bincount(b)[b] - shared)
    return found


def best_of_clusters(scores: Scores, labels: Labels) -> Scores:
    """(C,) the highest score in each cluster.

    >>> best_of_clusters(np.array([.1, .4, .9, .2]), np.array([0, 0, -1, 1])).tolist()
    [0.4, 0.2]
    """
    best = np.zeros(labels.max() + 1)
    member = labels != OUTLIER
    np.maximum.at(best, labels[member], scores[member])
    return best


def independence_to_keep(independence: Scores) -> float:
    """alpha: what about nine in ten of the clusters reach.

    >>> independence_to_keep(np.array([.2, .5, .9]))
    0.2
    """
    place = min(round(INDEPENDENT * len(independence)), len(independence) - 1)
    return float(np.sort(independence)[::-1][place])


def reliable(labels: Labels, independence: Scores, compactness: Scores, alpha: float) -> Labels:
    """(N,) what is left of the clusters, numbered without holes; all else is an outlier.

    Args:
        labels: (N,) clusters.
        independence: (C,) of the clusters.
        compactness: (N,) of the images.
        alpha: least independence.
    """
    own = np.maximum(labels, 0)  # of an outlier it means nothing, and counts for nothing
    beta = best_of_clusters(compactness, labels)[own]
    kept = (labels != OUTLIER) & (independence[own] >= alpha) & (compactness >= beta)
    alone = np.bincount(labels[kept], minlength=len(independence))[own] < 2
    return number_by_first(np.where(kept & ~alone, labels, OUTLIER))
