"""Cluster Contrast: one proxy a cluster, its mean, which follows the cluster's images as they are seen.

Source: Dai et al., "Cluster Contrast for Unsupervised Person Re-Identification", ACCV 2022,
arXiv:2103.11568, section 3.2: equations 2 (the contrast) and 3 (the update).

Letters: N images, D dimensions, C clusters, B images of a batch. Features are float32 unit rows.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from gracl.clustering import Labels
from gracl.methods.groups import turns
from gracl.methods.memory import contrast, means_of_clusters, move, move_to_hardest, move_to_means
from gracl.methods.protocol import Batch, Known
from gracl.methods.pseudo_labels import PseudoLabels, require_choice

Update = Literal["each", "mean", "hardest"]


class ClusterContrast(PseudoLabels):
    """The method: its settings, and the memory of the epoch it is in.

    Args:
        known: of the images, besides their features.
        update: which of a cluster's images in the batch moves its row: each in turn, as the paper has
            it; their mean; the one least similar to the row.
        momentum: share of the OLD row that is kept.
        temperature: of the contrast.
        labels: k1, k2, eps, min_samples, clustering, search: see `PseudoLabels`.
    """

    def __init__(
        self,
        known: Known | None = None,
        *,
        update: Update = "each",
        momentum: float = 0.1,
        temperature: float = 0.05,
        **labels: Any,
    ) -> None:
        super().__init__(known, **labels)
        require_choice(update, Update)
        self.update_rule, self.momentum, self.temperature = update, momentum, temperature

    def build_memory(self, features: Tensor, labels: Labels, **_: object) -> dict[str, Tensor]:
        """(C, D) means of the clusters."""
        return {"centroid": means_of_clusters(features, labels)}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Pulls each image to its cluster's row, from all others."""
        bank = self.banks["centroid"]
        return {"contrast": contrast(batch.features.float(), bank, batch.labels, self.temperature)}

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """Moves the rows towards the batch's images of their clusters."""
        bank, features, labels = self.banks["centroid"], batch.features.detach().float(), batch.labels
        if self.update_rule == "mean":
            move_to_means(bank, features, labels, self.momentum)
        elif self.update_rule == "each":
            for turn in turns(labels):
                move(bank, labels[turn], features[turn], self.momentum)
        else:
            move_to_hardest(bank, features, labels, self.momentum)
