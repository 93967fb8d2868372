"""CAP: a proxy for each camera of a cluster, so that one person may look different to each.

Source: Wang et al., "Camera-aware Proxies for Unsupervised Person Re-Identification", AAAI 2021,
arXiv:2012.10674, section 3: memory, intra-camera contrast, inter-camera contrast. Its successor is
O2CAP (TIP 2022, arXiv:2201.05820), which associates proxies online as well.

L = L_intra + inter_weight * L_inter

The paper adds up a mean for each camera of a batch; here each image counts the same. It begins with
L_inter after five epochs; here L_inter is there from the first.

Letters: N images, D dimensions, M proxies, B images of a group. Features are float32 unit rows.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gracl.clustering import Labels
from gracl.errors import DataError
from gracl.methods.groups import turns
from gracl.methods.memory import means_of_clusters, move
from gracl.methods.protocol import Batch, Known, Need
from gracl.methods.pseudo_labels import PseudoLabels, require_choice

Positives = Literal["all", "others"]


class CAP(PseudoLabels):
    """The method: its settings, and the memory of the epoch it is in.

    Args:
        known: of the images; their cameras.
        positives: of the inter-camera contrast: all proxies of the image's cluster, as the authors'
            code has it, or those of other cameras than its own.
        hardest: how many proxies of other clusters the inter-camera contrast pushes from, the most
            similar ones.
        momentum: share of the OLD row that is kept.
        temperature: of both contrasts.
        inter_weight: of the inter-camera contrast.
        labels: k1, k2, eps, min_samples, clustering, search: see `PseudoLabels`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"cameras"})

    def __init__(
        self,
        known: Known | None = None,
        *,
        positives: Positives = "all",
        hardest: int = 50,
        momentum: float = 0.2,
        temperature: float = 0.07,
        inter_weight: float = 0.5,
        **labels: Any,
    ) -> None:
        super().__init__(known, **labels)
        require_choice(positives, Positives)
        self.positives, self.hardest, self.momentum = positives, hardest, momentum
        self.temperature, self.inter_weight = temperature, inter_weight
        self.proxy_of = self.cluster_of = self.camera_of = torch.empty(0, dtype=torch.int64)
        """(N,) the proxy of each image, -1 for outliers; (M,) cluster and camera of each proxy."""

    def build_memory(self, features: Tensor, labels: Labels, **_: object) -> dict[str, Tensor]:
        """(M, D) means of the images of each cluster and camera."""
        if self.known.cameras is None:
            raise DataError("the method cap needs the camera of each image, and none is known")
        camera = self.known.cameras
        # Two images of unknown cameras may be of two: such images are a camera for each cluster.
        camera = np.where(camera < 0, camera.max() + 1 + labels, camera)
        member = labels >= 0
        pairs, proxies = np.unique(
            np.stack([labels[member], camera[member]]), axis=1, return_inverse=True
        )
        proxy_of = np.full(len(labels), -1)
        proxy_of[member] = proxies.ravel()
        self.proxy_of, self.cluster_of, self.camera_of = (
            torch.from_numpy(a.copy()).to(features.device) for a in (proxy_of, pairs[0], pairs[1])
        )
        return {"proxy": means_of_clusters(features, proxy_of)}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The two contrasts, the second weighted."""
        logits = batch.features.float() @ self.banks["proxy"].T / self.temperature
        own = self.proxy_of[batch.rows]
        intra, inter = self.intra_camera(logits, own), self.inter_camera(logits, own)
        return {"intra": intra, "inter": self.inter_weight * inter}

    def intra_camera(self, logits: Tensor, own: Tensor) -> Tensor:
        """Pulls each image to its proxy, from the other proxies of its camera.

        Args:
            logits: (B, M) similarities to all proxies, divided by the temperature.
            own: (B,) the proxy of each image.
        """
        elsewhere = self.camera_of[own, None] != self.camera_of
        return F.cross_entropy(logits.masked_fill(elsewhere, -torch.inf), own)

    def inter_camera(self, logits: Tensor, own: Tensor) -> Tensor:
        """Pulls each image to its cluster's proxies, from the hardest proxies of other clusters.

        -mean over p in P of log ( exp(l_p) / (sum over P of exp(l) + sum over Q of exp(l)) )

        with P the positives and Q the hardest negatives. An image without positives has 0, and counts
        in the mean over the images.
        """
        same = self.cluster_of[own, None] == self.cluster_of
        here = self.camera_of[own, None] == self.camera_of
        positive = same & ~here if self.positives == "others" else same
        foreign = logits.masked_fill(same, -torch.inf)
        negatives = foreign.topk(min(self.hardest, foreign.shape[1]), dim=1).values
        pulled = logits.masked_fill(~positive, -torch.inf)
        below = torch.cat([pulled, negatives], dim=1).logsumexp(dim=1, keepdim=True)
        surprise = (below - logits).masked_fill(~positive, 0.0).sum(dim=1)
        return (surprise / positive.sum(dim=1).clamp(min=1)).mean()

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """Moves the proxies towards the batch's images, one after the other."""
        features, own = batch.features.detach().float(), self.proxy_of[batch.rows]
        for turn in turns(own):
            move(self.banks["proxy"], own[turn], features[turn], self.momentum)
