"""GRACL: Global Relation-Aware Contrast Learning, from features to losses, in running order.

Source: "Global Relation-Aware Contrast Learning for Unsupervised Person Re-Identification", IEEE
TCSVT 2022, https://doi.org/10.1109/TCSVT.2022.3194084. Its abstract is what is public; what it leaves
open is an argument of `GRACL`.

Once an epoch:   features -> labels -> two proxies a cluster -> memory
At each step:    batch features -> two contrasts with the memory -> (optimiser) -> memory moves

Letters: N images, D dimensions, C clusters, B images of a batch. Features are float32 unit rows. A
relation s_ij is a similarity of images i and j, taken over the whole data set.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gracl import distributed, neighbors
from gracl.clustering import OUTLIER, Labels, outliers_as_singletons, require_clusters
from gracl.methods.groups import cluster_means, cluster_sums, lowest_per_cluster, turns
from gracl.methods.memory import move, move_to_means
from gracl.methods.protocol import Batch, Known
from gracl.methods.pseudo_labels import PseudoLabels, require_choice
from gracl.neighbors import Neighbors

Relation = Literal["cosine", "jaccard"]
Intra = Literal["mean", "min"]
Update = Literal["criterion", "each", "mean", "sample", "none"]
Negatives = Literal["own", "all"]
Outliers = Literal["dropped", "others", "singletons"]
Start = Literal["sample", "mean"]


class GRACL(PseudoLabels):
    """The method: its settings, and the memory of the epoch it is in.

    Args:
        known: of the images, besides their features.
        relation: what s_ij is; "jaccard" is 1 - the distance that clustering used.
        inter_nearest: how many of the nearest foreign images R_inter is the mean of; 1 is the
            nearest alone, 0 is all. All cosines together are a trap: their mean is the product with
            one vector that all clusters share, so it picks the same direction everywhere.
        intra: R_intra is the mean, or the minimum, of the relations to the own cluster.
        update: which of a cluster's images in the batch moves its memory: the one that meets the
            criterion the proxy was selected by; each in turn; their mean; the selected sample itself,
            where the batch has it; none.
        start: a memory row starts as the selected sample, or as the mean of the cluster.
        inter_momentum, intra_momentum, centroid_momentum: share of the OLD row that is kept; the first
            two where `update` is not "none".
        negatives: contrast with the other clusters' rows of the same bank, or of all.
        outliers: take no part; count as others in R_inter; or are clusters of one image.
        temperature: of both contrasts.
        inter_weight, intra_weight, centroid_weight: of the losses; a centroid weight above 0 adds a
            contrast with the clusters' means.
        labels: k1, k2, eps, min_samples, clustering, search: see `PseudoLabels`.
    """

    def __init__(
        self,
        known: Known | None = None,
        *,
        relation: Relation = "jaccard",
        inter_nearest: int = 1,
        intra: Intra = "mean",
        update: Update = "none",
        start: Start = "sample",
        inter_momentum: float = 0.1,
        intra_momentum: float = 0.1,
        centroid_momentum: float = 0.1,
        negatives: Negatives = "own",
        outliers: Outliers = "dropped",
        temperature: float = 0.05,
        inter_weight: float = 0.25,
        intra_weight: float = 0.25,
        centroid_weight: float = 0.5,
        **labels: Any,
    ) -> None:
        super().__init__(known, **labels)
        choices = (relation, Relation), (intra, Intra), (update, Update), (start, Start)
        for value, kind in (*choices, (negatives, Negatives), (outliers, Outliers)):
            require_choice(value, kind)
        self.relation, self.inter_nearest, self.intra = relation, inter_nearest, intra
        self.update_rule, self.start, self.negatives = update, start, negatives
        self.outliers, self.temperature = outliers, temperature
        self.weights = {"inter": inter_weight, "intra": intra_weight, "centroid": centroid_weight}
        self.momentum = {
            "inter": inter_momentum,
            "intra": intra_momentum,
            "centroid": centroid_momentum,
        }
        self.proxies: dict[str, Tensor] = {}
        """(C,) by bank: which of the N images is the proxy of each cluster."""

    # -- once an epoch ----------------------------------------------------------------------------

    def choose(self, labels: Labels, distance: sparse.csr_array) -> Labels:  # noqa: ARG002
        """The clusters, if there are two; outliers as clusters of one if that is the rule."""
        labels = require_clusters(labels)
        return outliers_as_singletons(labels) if self.outliers == "singletons" else labels

    def build_memory(
        self,
        features: Tensor,
        labels: Labels,
        *,
        distance: sparse.csr_array,
        found: Neighbors,
        **_: object,
    ) -> dict[str, Tensor]:
        """The two proxies of each cluster, by the relations of its images over the whole data set."""
        inter, intra = self.relations(features, labels, distance, found)
        return self.remember(features, torch.from_numpy(labels), inter, intra)

    def relations(
        self,
        features: Tensor,
        labels: Labels,
        distance: sparse.csr_array,
        found: Neighbors | None = None,
    ) -> tuple[Tensor, Tensor]:
        """R_inter and R_intra of all images, (N,) each; those of outliers mean nothing.

        Over the whole data set, and without an N x N matrix. An image that has its nearest foreign
        images among its known neighbours is not searched for again.
        """
        others = (labels != OUTLIER) | (self.outliers == "others")
        if self.relation == "jaccard":
            inter, intra = jaccard_relations(
                distance, labels, others, nearest=self.inter_nearest, intra=self.intra
            )
            return torch.from_numpy(inter), torch.from_numpy(intra)
        y, counts_as_other = (torch.from_numpy(a).to(features.device) for a in (labels, others))
        if self.inter_nearest:
            inter_scores = neighbors.mean_of_nearest_foreign(
                features,
                y,
                self.inter_nearest,
                counts_as_other=counts_as_other,
                known=found if found is not None and found.recall == 1 else None,
                memory=self.known.memory,
            )
        else:
            inter_scores = mean_foreign_cosine(features, y, counts_as_other)
        return inter_scores.cpu(), own_cosine(features, y, self.intra, memory=self.known.memory).cpu()

    def remember(
        self, features: Tensor, labels: Tensor, inter: Tensor, intra: Tensor
    ) -> dict[str, Tensor]:
        """The memory: banks of (C, D) unit rows, row k for cluster k.

        The inter-ID proxy of a cluster is its sample most different from the other clusters', the
        intra-ID proxy its sample least similar to its own: both are where a relation is lowest.
        """
        member = torch.nonzero(labels >= 0).flatten()
        y = labels[member]
        means = cluster_means(features[member.to(features.device)], y.to(features.device))
        banks = {"inter": means, "intra": means, "centroid": means}
        for name, scores in (("inter", inter), ("intra", intra)):
            proxies = member[lowest_per_cluster(scores[member], y)].to(features.device)
            self.proxies[name] = distributed.of_first(proxies)
            if self.start == "sample":
                banks[name] = features[self.proxies[name]]
        return {name: bank.clone() for name, bank in banks.items() if self.weights[name]}

    # -- at each step -----------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted contrasts of a batch; their sum is what is minimised.

        Returns:
            Scalars by name: "inter", "intra", and "centroid" where its weight is not 0; each a mean
            over the rows.
        """
        return {
            name: self.weights[name] * self.contrast(batch.features.float(), batch.labels, name)
            for name in self.banks
        }

    def contrast(self, features: Tensor, labels: Tensor, name: str) -> Tensor:
        """Cross entropy that pulls each image to its own row of a bank, from all other rows."""
        logits = features @ self.banks[name].T / self.temperature
        if self.negatives == "all":
            own = F.one_hot(labels, logits.shape[1]).bool()
            further = [features @ bank.T for other, bank in self.banks.items() if other != name]
            foreign = [(more / self.temperature).masked_fill(own, -torch.inf) for more in further]
            logits = torch.cat([logits, *foreign], dim=1)
        return F.cross_entropy(logits, labels)

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """Moves the memory towards a batch's features, as they were in its losses.

        bank_y <- normalise(momentum * bank_y + (1 - momentum) * f*)

        with f* chosen from the cluster's images in the batch by the rule `update`. The criterion is
        judged against the memory: the other clusters' rows of the inter bank, the cluster's own row
        of the intra bank; `inter_nearest` counts rows here, as it counts images in selection. The
        centroid bank always follows the mean.
        """
        features, labels = batch.features.detach().float(), batch.labels
        for name, bank in self.banks.items():
            momentum = self.momentum[name]
            rule: Update = "mean" if name == "centroid" else self.update_rule
            if rule == "mean":
                move_to_means(bank, features, labels, momentum)
            elif rule == "sample":
                is_proxy = batch.rows == self.proxies[name][labels]
                move_to_means(bank, features[is_proxy], labels[is_proxy], momentum)
            elif rule == "each":
                for turn in turns(labels):
                    move(bank, labels[turn], features[turn], momentum)
            elif rule == "criterion":
                similarity = features @ bank.T
                own = similarity.gather(1, labels[:, None])[:, 0]
                scores = own if name == "intra" else self._nearest_rows(similarity, labels)
                chosen = lowest_per_cluster(scores, labels)
                move(bank, labels[chosen], features[chosen], momentum)

    def _nearest_rows(self, similarity: Tensor, labels: Tensor) -> Tensor:
        """Mean similarity to the nearest rows of other clusters, as many as in R_inter."""
        foreign = similarity.scatter(1, labels[:, None], -torch.inf)
        n_foreign = similarity.shape[1] - 1
        m = min(self.inter_nearest or n_foreign, n_foreign)
        return foreign.topk(m, dim=1).values.mean(dim=1)


# -- relations ------------------------------------------------------------------------------------


def own_cosine(
    features: Tensor, labels: Tensor, aggregate: Intra, *, memory: int = neighbors.MEMORY
) -> Tensor:
    """R_intra with cosines: mean or minimum over the other images of the own cluster, (N,).

    The mean has a closed form in the cluster's sum S: (f . S - f . f) / (n - 1). A cluster of one
    image, and an outlier, has 1: nothing of its own is less similar than itself.
    """
    result = torch.ones(len(features), device=features.device)
    member = labels >= 0
    y = labels[member]
    if aggregate == "mean":
        sums, sizes = cluster_sums(features[member], y)
        with_itself = (features[member] * sums[y]).sum(dim=1)
        itself = features[member].square().sum(dim=1)
        others = sizes[y] - 1
        result[member] = torch.where(
            others > 0, (with_itself - itself) / others.clamp(min=1), torch.ones_like(itself)
        )
    else:
        places = torch.nonzero(member).flatten()
        by_cluster = places[torch.argsort(y, stable=True)]
        for group in torch.split(by_cluster, torch.bincount(y).tolist()):
            for start, block in neighbors.similarity_blocks(
                features[group], features[group], memory=memory
            ):
                result[group[start : start + len(block)]] = block.amin(dim=1).clamp(max=1)
    return result


def mean_foreign_cosine(features: Tensor, labels: Tensor, counts_as_other: Tensor) -> Tensor:
    """R_inter as the mean of all foreign cosines, (N,): f . (sum of others) / (number of others)."""
    member = labels >= 0
    sums, sizes = cluster_sums(features[member], labels[member])
    total = features[counts_as_other].sum(dim=0)
    own_sum, own_size = sums[labels.clamp(min=0)], sizes[labels.clamp(min=0)]
    n_foreign = (counts_as_other.sum() - own_size).clamp(min=1)
    return (features * (total - own_sum)).sum(dim=1) / n_foreign


def jaccard_relations(
    distance: sparse.csr_array,
    labels: Labels,
    counts_as_other: NDArray[np.bool_],
    *,
    nearest: int,
    intra: Intra,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """R_inter and R_intra with s = 1 - distance, (N,) each; pairs that are not stored have s = 0."""
    n = len(labels)
    rows = np.repeat(np.arange(n), np.diff(distance.indptr))
    columns, similarity = distance.indices, 1.0 - distance.data
    same = (labels[rows] == labels[columns]) & (labels[rows] != OUTLIER)
    own, foreign = same & (rows != columns), ~same & counts_as_other[columns] & (rows != columns)
    sizes = np.bincount(labels[labels != OUTLIER])[np.maximum(labels, 0)]
    n_own, n_foreign = sizes - 1, counts_as_other.sum() - sizes

    m = np.minimum(nearest or n, np.maximum(n_foreign, 1))
    r, s = rows[foreign], similarity[foreign]
    order = np.lexsort((-s, r))
    r, s = r[order], s[order]
    position = np.arange(len(r)) - np.searchsorted(r, r)
    among = position < m[r]
    inter_scores = np.bincount(r[among], s[among], minlength=n) / m

    if intra == "mean":
        totals = np.bincount(rows[own], similarity[own], minlength=n)
        intra_scores = np.where(n_own > 0, totals / np.maximum(n_own, 1), 1.0)
    else:
        stored = np.bincount(rows[own], minlength=n)
        intra_scores = np.where(n_own > 0, np.inf, 1.0)
        np.minimum.at(intra_scores, rows[own], similarity[own])
        intra_scores[stored < n_own] = 0.0
    return inter_scores, intra_scores
