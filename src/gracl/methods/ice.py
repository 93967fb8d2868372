"""ICE: proxies of clusters, and beside them what a teacher makes of the images of a batch.

Source: Chen, Lagadec, Bremond, "ICE: Inter-instance Contrastive Encoding for Unsupervised Person
Re-identification", ICCV 2021, arXiv:2103.16364, section 3, in its camera-agnostic form: the proxy loss
(3.2), hard instance contrast (3.3), soft instance consistency (3.4).

L = L_agnostic + hard_weight * L_hard + soft_weight * L_soft

The rows of a BatchNorm group stand for the paper's batch: the instance losses compare an image with
the others of its group.

Letters: N images, D dimensions, C clusters, B images of a group. Features are float32 unit rows.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gracl.clustering import Labels
from gracl.methods.memory import contrast, means_of_clusters, move_to_means
from gracl.methods.protocol import Batch, Known, Need
from gracl.methods.pseudo_labels import PseudoLabels


class ICE(PseudoLabels):
    """The method: its settings, and the memory of the epoch it is in.

    Args:
        known: of the images, besides their features.
        momentum: share of the OLD row that a batch leaves; 1 keeps the rows for the epoch, as the
            authors do.
        temperature: of the contrast with proxies, for features as long as BatchNorm leaves them.
        hard_temperature, soft_temperature: of the two instance losses, for unit features.
        hard_weight, soft_weight: of the two instance losses.
        labels: k1, k2, eps, min_samples, clustering, search: see `PseudoLabels`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher"})

    def __init__(
        self,
        known: Known | None = None,
        *,
        momentum: float = 1.0,
        temperature: float = 0.5,
        hard_temperature: float = 0.1,
        soft_temperature: float = 0.4,
        hard_weight: float = 1.0,
        soft_weight: float = 10.0,
        **labels: Any,
    ) -> None:
        super().__init__(known, **labels)
        self.momentum, self.temperature = momentum, temperature
        self.hard_temperature, self.soft_temperature = hard_temperature, soft_temperature
        self.hard_weight, self.soft_weight = hard_weight, soft_weight

    def build_memory(self, features: Tensor, labels: Labels, **_: object) -> dict[str, Tensor]:
        """(C, D) means of the clusters; the features of all images are the teacher's."""
        return {"proxy": means_of_clusters(features, labels)}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The proxy loss and the weighted instance losses."""
        assert batch.teacher is not None
        features, teacher = batch.features.float(), batch.teacher.detach().float()
        # The authors' 0.5 is for features that BatchNorm left, whose length is about the root of D;
        # with unit features it would tell no cluster from another.
        temperature = self.temperature / features.shape[1] ** 0.5
        hard = hard_instance(features, teacher, batch.labels, self.hard_temperature)
        soft = soft_instance(features, teacher, self.soft_temperature)
        return {
            "agnostic": contrast(features, self.banks["proxy"], batch.labels, temperature),
            "hard": self.hard_weight * hard,
            "soft": self.soft_weight * soft,
        }

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """Moves the rows towards the mean of the batch's images, unless they stay."""
        if self.momentum < 1:
            features = batch.features.detach().float()
            move_to_means(self.banks["proxy"], features, batch.labels, self.momentum)


def hard_instance(features: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Pulls each image to its hardest positive, from the images of other clusters (section 3.3).

    -log ( exp(f . m+ / temperature) / (exp(f . m+ / temperature) + sum of exp(f . m- / temperature)) )

    with m+ the teacher's feature, among the images of the cluster, that is least similar to f, and m-
    those of the other clusters, as a mean. It is 0 where the group has no other cluster.

    Args:
        features, teacher: (B, D) unit rows of the same images.
        labels: (B,) their clusters.
        temperature: above 0.
    """
    logits = features @ teacher.T / temperature
    same = labels[:, None] == labels
    positive = logits.masked_fill(~same, torch.inf).amin(dim=1)
    negatives = logits.masked_fill(same, -torch.inf)
    below = torch.cat([positive[:, None], negatives], dim=1).logsumexp(dim=1)
    return (below - positive).mean()


def soft_instance(features: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """How far the similarities of f to the group lie from the teacher's own (section 3.4).

    KL(P || Q) with P = softmax(m . m_j / temperature), Q = softmax(f . m_j / temperature) over the
    images j of the group, as a mean.
    """
    target = (teacher @ teacher.T / temperature).softmax(dim=1)
    found = (features @ teacher.T / temperature).log_softmax(dim=1)
    return F.kl_div(found, target, reduction="batchmean")
