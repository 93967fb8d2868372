"""The upper bound: the same training with the true classes, which no other method is told.

Sources: the softmax loss of a learnt classifier with the batch-hard triplet loss of Hermans, Beyer,
Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017, arXiv:1703.07737, section 2,
equation 5, on the neck of Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person
Re-identification", CVPR workshops 2019, arXiv:1903.07071, section 3.

L = softmax_weight * L_softmax + triplet_weight * L_triplet

Letters: N images, D dimensions, P parts, C classes, B images of a group. Features are
float32 unit rows.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gracl import distributed
from gracl.clustering import OUTLIER, Labels
from gracl.errors import DataError
from gracl.methods.classifier import Classifier
from gracl.methods.memory import means_of_clusters
from gracl.methods.protocol import Batch, Known, Need, Stage
from gracl.methods.pseudo_labels import PseudoLabels
from gracl.methods.triplet import batch_hard


class Supervised(PseudoLabels):
    """The bound: its settings, and a classifier that is learnt over all epochs.

    Args:
        known: of the images; their classes.
        temperature: of the classifier.
        learning_rate: of the classifier's own Adam, at its highest; it follows the schedule.
        margin: of the triplet loss, in Euclidean distances of unit features.
        softmax_weight, triplet_weight: of the losses.
        labels: k1, k2, eps, min_samples, clustering, search: for `label` alone, see `PseudoLabels`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"classes"})

    def __init__(
        self,
        known: Known | None = None,
        *,
        temperature: float = 0.05,
        learning_rate: float = 3.5e-4,
        margin: float = 0.3,
        softmax_weight: float = 1.0,
        triplet_weight: float = 1.0,
        **labels: Any,
    ) -> None:
        super().__init__(known, **labels)
        self.temperature, self.learning_rate, self.margin = temperature, learning_rate, margin
        self.softmax_weight, self.triplet_weight = softmax_weight, triplet_weight
        self.classifier: Classifier | None = None
        self.carried: dict[str, Tensor] = {}
        """The state of a run that is continued, until the first epoch takes it."""

    def start_epoch(
        self,
        features: Tensor,
        stage: Stage = nullcontext,
        *,
        parts: Tensor | None = None,  # noqa: ARG002
    ) -> Labels:
        """(N,) classes, numbered from 0 without gaps; -1 takes no part. Nothing is clustered.

        Raises:
            DataError: fewer than two classes are known.
        """
        labels = self.numbered()
        if self.classifier is None:
            with stage("proxies"):
                self.classifier = self.begin(features.float(), labels)
        self.banks = {"classifier": self.classifier.rows}
        return labels

    def numbered(self) -> Labels:
        """The known classes as 0 .. C - 1."""
        classes = self.known.classes
        found = np.unique(classes[classes >= 0]) if classes is not None else np.empty(0)
        if classes is None or len(found) < 2:
            raise DataError(
                f"{len(found)} known classes of images are too few: the supervised bound needs two"
            )
        return np.where(classes >= 0, np.searchsorted(found, classes), OUTLIER)

    def begin(self, features: Tensor, labels: Labels) -> Classifier:
        """A classifier that starts as the means of the classes, or where a run left off."""
        rows = distributed.of_first(means_of_clusters(features, labels))
        made = Classifier(rows, temperature=self.temperature, learning_rate=self.learning_rate)
        if self.carried:
            made.load(self.carried)
        return made

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Softmax over all classes, and the hardest triplets of the group."""
        assert self.classifier is not None
        features = batch.features.float()
        softmax = F.cross_entropy(self.classifier.logits(features), batch.labels)
        farthest, nearest = batch_hard(features, batch.labels)
        triplet = (self.margin + farthest - nearest).relu().mean()
        return {"softmax": self.softmax_weight * softmax, "triplet": self.triplet_weight * triplet}

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """A step of the classifier."""
        assert self.classifier is not None
        features = batch.features.detach().float()
        targets = F.one_hot(batch.labels, len(self.classifier.rows)).float()
        self.classifier.step(features, targets, rate=batch.rate)

    def state(self) -> dict[str, Tensor]:
        """The classifier and its moments."""
        return self.carried if self.classifier is None else self.classifier.state()

    def load(self, state: dict[str, Tensor]) -> None:
        """Continues with the classifier of a `state`, at the next start of an epoch."""
        self.carried, self.classifier = state, None
