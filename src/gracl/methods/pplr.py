"""PPLR: labels of the whole image refined by its parts, and of the parts by how far they agree with it.

Source: Cho et al., "Part-based Pseudo Label Refinement for Unsupervised Person Re-identification", CVPR
2022, arXiv:2203.14675, section 3, camera-free: cross agreement (3.2), part-guided label refinement and
agreement-aware label smoothing (3.3), softmax-triplet loss.

Once an epoch:   features of images and parts -> labels, agreement of each part, classifiers = means
At each step:    predictions of the parts -> targets of the whole; agreement -> targets of the parts

L = L_refined + L_smoothed + L_triplet

The paper begins to smooth after five epochs; here it does from the first. Its classifiers and distances
take features as BatchNorm leaves them, long ones; here they are unit rows divided by a temperature.

Letters: N images, D dimensions, P parts, C clusters, B images of a group. Features are
float32 unit rows.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gracl import neighbors
from gracl.clustering import Labels
from gracl.errors import ConfigError
from gracl.methods.classifier import Classifier
from gracl.methods.memory import means_of_clusters
from gracl.methods.protocol import Batch, Known, Need, Stage
from gracl.methods.pseudo_labels import PseudoLabels
from gracl.methods.triplet import batch_hard

FLOAT, INTEGER = 4, 8
"""Bytes."""
COMPARING = 6
"""Lists of neighbours that a comparison of two takes: both in one, sorted, and the order of these."""


class PPLR(PseudoLabels):
    """The method: its settings, and the agreements and classifiers of the epoch it is in.

    Args:
        known: of the images, besides their features.
        agreement_nearest: neighbours that are compared, *without the image itself*.
        beta: share of the cluster in the refined label; the parts' predictions have the rest.
        temperature: of all predictions, and of distances in the triplet loss.
        learning_rate: of the classifiers' own Adam, at its highest; it follows the schedule.
        parts_weight, triplet_weight: of the losses beside the refined one.
        labels: k1, k2, eps, min_samples, clustering, search: see `PseudoLabels`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"parts"})

    def __init__(
        self,
        known: Known | None = None,
        *,
        agreement_nearest: int = 20,
        beta: float = 0.5,
        temperature: float = 0.05,
        learning_rate: float = 3.5e-4,
        parts_weight: float = 1.0,
        triplet_weight: float = 1.0,
        **labels: Any,
    ) -> None:
        super().__init__(known, **labels)
        self.agreement_nearest, self.beta = agreement_nearest, beta
        self.temperature, self.learning_rate = temperature, learning_rate
        self.parts_weight, self.triplet_weight = parts_weight, triplet_weight
        self.classifiers: list[Classifier] = []
        """Of the whole image, then of each part; their rows are the banks."""

    def needed_memory(self, n: int, dimensions: int, *, parts: int, group: int) -> int:  # noqa: ARG002
        """Bytes of the parts' features, and of the neighbours by which whole and parts agree.

        The parts are taken with the whole, then copied one by one, so that their rows lie together,
        and once more for their means.
        """
        features = (2 * parts + 1) * FLOAT * n * dimensions
        lists = n * (self.agreement_nearest + 1) * INTEGER
        return features + lists * (1 + parts + COMPARING)

    # -- once an epoch ----------------------------------------------------------------------------

    def start_epoch(
        self, features: Tensor, stage: Stage = nullcontext, *, parts: Tensor | None = None
    ) -> Labels:
        """Clusters the features of the images, and begins the classifiers anew."""
        labels = super().start_epoch(features, stage, parts=parts)
        self.classifiers = [
            Classifier(bank, temperature=self.temperature, learning_rate=self.learning_rate)
            for name, bank in self.banks.items()
            if name != "agreement"
        ]
        return labels

    def build_memory(
        self, features: Tensor, labels: Labels, *, parts: Tensor | None, **_: object
    ) -> dict[str, Tensor]:
        """(C, D) means of the clusters, of the whole and of each part, and (N, P) agreements."""
        if parts is None:
            raise ConfigError("the method pplr needs features of parts. Set model.parts to 3")
        each = [part.contiguous() for part in parts.float().unbind(dim=1)]
        banks = {"whole": means_of_clusters(features, labels)}
        banks |= {f"part {p}": means_of_clusters(part, labels) for p, part in enumerate(each, 1)}
        return {**banks, "agreement": self.agreement(features, each)}

    def agreement(self, features: Tensor, parts: list[Tensor]) -> Tensor:
        """(N, P) cross agreement of each image and part: |A & B| / |A | B|, equation 1.

        A are the nearest images by the whole, B by the part, without the image itself.
        """
        whole, *others = (self.nearest(rows) for rows in (features, *parts))
        k = whole.shape[1]
        columns = []
        for nearest in others:
            both = torch.cat([whole, nearest], dim=1).sort(dim=1).values
            # Neither list names an image twice, so an image that comes twice is in both.
            common = (both[:, 1:] == both[:, :-1]).sum(dim=1)
            columns.append(common / (2 * k - common).clamp(min=1))
        return torch.stack(columns, dim=1)

    def nearest(self, features: Tensor) -> Tensor:
        """(N, k) rows of the nearest images of each, the image itself left out."""
        found = neighbors.search(
            features, self.agreement_nearest + 1, algorithm=self.search, memory=self.known.memory
        )
        return found.indices[:, 1:]

    # -- at each step -----------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The refined loss of the whole, the smoothed one of the parts, and the triplets."""
        whole, *parts = self.predictions(batch)
        refined, smoothed = self.targets([p.detach() for p in parts], batch)
        of_parts = [
            F.cross_entropy(p, t) - entropy_of_smoothing(a, t.shape[1])
            for p, t, a in zip(parts, smoothed, self.agreements(batch).unbind(dim=1), strict=True)
        ]
        farthest, nearest = batch_hard(batch.features.float(), batch.labels)
        # -log ( exp(nearest) / (exp(farthest) + exp(nearest)) )
        triplet = F.softplus((farthest - nearest) / self.temperature).mean()
        return {
            "refined": F.cross_entropy(whole, refined),
            "smoothed": self.parts_weight * torch.stack(of_parts).mean(),
            "triplet": self.triplet_weight * triplet,
        }

    def predictions(self, batch: Batch) -> list[Tensor]:
        """(B, C) logits of the whole, then of each part."""
        assert batch.parts is not None
        rows = batch.features.float(), *batch.parts.float().unbind(dim=1)
        return [c.logits(f) for c, f in zip(self.classifiers, rows, strict=True)]

    def agreements(self, batch: Batch) -> Tensor:
        """(B, P) agreements of the batch's images."""
        return self.banks["agreement"][batch.rows]

    def targets(self, parts: list[Tensor], batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """The refined labels of the whole and the smoothed labels of each part, (B, C) each.

        refined    = beta * y + (1 - beta) * sum over p of softmax(agreement)_p * softmax(logits_p)
        smoothed_p = agreement_p * y + (1 - agreement_p) / C

        with y the cluster as one-hot. They carry no gradient, as in the paper.
        """
        agreement = self.agreements(batch)
        y = F.one_hot(batch.labels, parts[0].shape[1]).float()
        ensemble = torch.stack([p.softmax(dim=1) for p in parts], dim=2)
        ensemble = (ensemble * agreement.softmax(dim=1)[:, None]).sum(dim=2)
        smoothed = [a[:, None] * y + (1 - a[:, None]) / y.shape[1] for a in agreement.unbind(dim=1)]
        return self.beta * y + (1 - self.beta) * ensemble, smoothed

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """A step of each classifier, all by the predictions that the losses were made of.

        Weights of the losses are left out: Adam's step is that of the gradient's direction.
        """
        batch = batch.detach()
        assert batch.parts is not None
        _, *parts = self.predictions(batch)
        refined, smoothed = self.targets(parts, batch)
        rows = batch.features, *batch.parts.unbind(dim=1)
        for classifier, f, t in zip(self.classifiers, rows, (refined, *smoothed), strict=True):
            classifier.step(f, t, rate=batch.rate)


def entropy_of_smoothing(agreement: Tensor, n_clusters: int) -> Tensor:
    """Mean of (1 - a) log C: cross entropy with smoothed labels less this is the paper's equation 5.

    a * H(y, q) + (1 - a) * KL(u || q), with u uniform over C clusters, whose entropy is log C.

    >>> round(entropy_of_smoothing(torch.tensor([0.5, 0.5]), 4).item(), 4)  # 0.5 * log(4)
    0.6931
    """
    return (1 - agreement).mean() * torch.tensor(float(n_clusters)).log().item()
