"""HHCL: two proxies a cluster, one that follows its mean and one that follows its hardest images.

Source: Hu et al., "Hard-sample Guided Hybrid Contrast Learning for Unsupervised Person
Re-Identification", IC-NIDC 2021, arXiv:2109.12333: the cluster centroid contrast, the hard instance
contrast, and their weighted sum.

What differs elsewhere: the authors' own program puts a bracket of that sum in another place, which
makes it hard_weight * (L_hard + (1 - hard_weight) * L_mean), so the mean counts half as much. Here it
is the weighted sum. Both banks start as the clusters' means, as they do there.

Letters: N images, D dimensions, C clusters, B images of a batch. Features are float32 unit rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gracl.clustering import Labels
from gracl.methods.memory import contrast, means_of_clusters, move_to_hardest, move_to_plain_means
from gracl.methods.protocol import Batch, Known
from gracl.methods.pseudo_labels import PseudoLabels


class HHCL(PseudoLabels):
    """The method: its settings, and the memory of the epoch it is in.

    Args:
        known: of the images, besides their features.
        hard_weight: of the contrast with the hard bank, in [0, 1]; the mean bank has the rest.
        momentum: share of the OLD row that is kept, in both banks.
        temperature: of both contrasts.
        labels: k1, k2, eps, min_samples, clustering, search: see `PseudoLabels`.
    """

    def __init__(
        self,
        known: Known | None = None,
        *,
        hard_weight: float = 0.5,
        momentum: float = 0.1,
        temperature: float = 0.05,
        **labels: Any,
    ) -> None:
        super().__init__(known, **labels)
        self.weights = {"hard": hard_weight, "mean": 1 - hard_weight}
        self.momentum, self.temperature = momentum, temperature

    def build_memory(self, features: Tensor, labels: Labels, **_: object) -> dict[str, Tensor]:
        """(C, D) means of the clusters, once for each bank."""
        means = means_of_clusters(features, labels)
        return {"hard": means, "mean": means.clone()}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """hard_weight * L_hard + (1 - hard_weight) * L_mean, by name."""
        features = batch.features.float()
        return {
            name: weight * contrast(features, self.banks[name], batch.labels, self.temperature)
            for name, weight in self.weights.items()
        }

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """Moves each bank by its own rule."""
        features, labels = batch.features.detach().float(), batch.labels
        move_to_hardest(self.banks["hard"], features, labels, self.momentum)
        move_to_plain_means(self.banks["mean"], features, labels, self.momentum)
