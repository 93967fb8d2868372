"""DCMIP: two discrepant proxies a cluster to pull by, and images of each cluster to push away from.

Source: Zou et al., "Discrepant and Multi-Instance Proxies for Unsupervised Person Re-Identification",
ICCV 2023, pages 11058-11068. What its abstract states:

    Discrepant cluster proxies   each represents a part of the cluster, together all of it; in the
                                 cluster contrast they are hard positives, against the spread in it.
    Multi-instance proxies       stand for single images of the cluster; in the instance contrast hard
                                 negatives are mined among all of them, against similar clusters.

What is inferred here, since only the abstract and a reproduction by others could be read:

    * Two discrepant proxies: one follows the cluster's hardest image, one its mean (as in HHCL). The
      reproduction moves the first by the hardest image for Market-1501, and by each image in turn for
      MSMT17: `update`.
    * The mean's contrast is min_loss less, and never below 0: an image that is near the mean is left
      in peace. The reproduction has 0.2. By its names it is the mean's, as here; by the order of its
      rows it would be the hard one's. It is taken image by image, for a group must not depend on what
      else is in its batch.
    * In the instance contrast an image's class scores as its LEAST similar proxy, every other class as
      its MOST similar one.
    * A cluster's instance proxies are of a fixed number, and are replaced by the batch's images of the
      cluster. Which of more images are taken is random there; here they lie evenly spread in order, so
      that all devices take the same. A cluster with fewer repeats them.
    * The reproduction trains in two stages, and starts the instance proxies from a mean teacher in the
      second. Here there is one stage, and the model's own features.

Letters: N images, D dimensions, C clusters, M instance proxies of a cluster, B images of a batch.
Features are float32 unit rows.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gracl.clustering import Labels
from gracl.methods.groups import turns
from gracl.methods.memory import (
    contrast,
    means_of_clusters,
    move,
    move_to_hardest,
    move_to_plain_means,
)
from gracl.methods.protocol import Batch, Known
from gracl.methods.pseudo_labels import PseudoLabels, require_choice

Update = Literal["hardest", "each"]


class DCMIP(PseudoLabels):
    """The method: its settings, and the memory of the epoch it is in.

    Args:
        known: of the images, besides their features.
        update: which of a cluster's images in the batch moves its hard proxy: the one least similar
            to it, or each in turn.
        instances: M.
        min_loss: what the mean's contrast may be without being lowered any further.
        hard_weight: of the contrast with the hard proxies, in [0, 1]; the means have the rest.
        instance_weight: of the instance contrast.
        momentum: share of the OLD row that a cluster proxy keeps.
        temperature: of all contrasts.
        labels: k1, k2, eps, min_samples, clustering, search: see `PseudoLabels`.
    """

    def __init__(
        self,
        known: Known | None = None,
        *,
        update: Update = "hardest",
        instances: int = 16,
        min_loss: float = 0.2,
        hard_weight: float = 0.5,
        instance_weight: float = 1.0,
        momentum: float = 0.1,
        temperature: float = 0.05,
        **labels: Any,
    ) -> None:
        super().__init__(known, **labels)
        require_choice(update, Update)
        self.update_rule, self.instances, self.min_loss = update, instances, min_loss
        self.hard_weight, self.instance_weight = hard_weight, instance_weight
        self.momentum, self.temperature = momentum, temperature

    def build_memory(self, features: Tensor, labels: Labels, **_: object) -> dict[str, Tensor]:
        """(C, D) means of the clusters for both cluster proxies, and (C, M, D) of their images."""
        means = means_of_clusters(features, labels)
        y = torch.from_numpy(labels).to(features.device)
        member = torch.nonzero(y >= 0).flatten()
        instances = features[member[spread_rows(y[member], self.instances)]]
        return {"hard": means, "mean": means.clone(), "instances": instances}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted cluster contrasts, "hard" and "mean", and the instance contrast."""
        features, labels = batch.features.float(), batch.labels
        hard = contrast(features, self.banks["hard"], labels, self.temperature)
        to_means = features @ self.banks["mean"].T / self.temperature
        mean = F.relu(F.cross_entropy(to_means, labels, reduction="none") - self.min_loss).mean()
        return {
            "hard": self.hard_weight * hard,
            "mean": (1 - self.hard_weight) * mean,
            "instance": self.instance_weight * self.contrast_instances(features, labels),
        }

    def contrast_instances(self, features: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of the hardest proxies: the least similar of the own, the nearest of others."""
        bank = self.banks["instances"]
        similarity = (features @ bank.flatten(0, 1).T).view(-1, *bank.shape[:2])
        own = F.one_hot(labels, len(bank)).bool()
        hardest = torch.where(own, similarity.amin(dim=2), similarity.amax(dim=2))
        return F.cross_entropy(hardest / self.temperature, labels)

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """Moves the cluster proxies, each by its own rule, and replaces the instance proxies."""
        features, labels = batch.features.detach().float(), batch.labels
        if self.update_rule == "hardest":
            move_to_hardest(self.banks["hard"], features, labels, self.momentum)
        else:
            for turn in turns(labels):
                move(self.banks["hard"], labels[turn], features[turn], self.momentum)
        move_to_plain_means(self.banks["mean"], features, labels, self.momentum)
        present, position = torch.unique(labels, return_inverse=True)
        # What the model gives in half precision is a unit row to three digits only.
        chosen = F.normalize(features)[spread_rows(position, self.instances)]
        self.banks["instances"][present] = chosen


def spread_rows(labels: Tensor, count: int) -> Tensor:
    """(C, count) rows of each cluster 0 .. C - 1: evenly spread, in order; repeated where too few.

    >>> spread_rows(torch.tensor([1, 0, 0, 0, 0]), 2).tolist()
    [[1, 3], [0, 0]]
    """
    order, sizes = torch.argsort(labels, stable=True), torch.bincount(labels)
    begins = torch.cumsum(sizes, 0) - sizes
    steps = torch.arange(count, device=labels.device) * sizes[:, None] // count
    return order[begins[:, None] + steps]
