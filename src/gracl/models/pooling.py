"""From a feature map to one vector an image.

Letters: B images, C channels, h x w cells of the feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GeneralizedMeanPooling(nn.Module):
    """(mean of x^p)^(1/p) over the cells, with p learnt; p = 1 is the mean, p -> inf the maximum.

    Source: Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019,
    section 3.2.

    >>> GeneralizedMeanPooling(p=1.0)(torch.tensor([[[[1.0, 3.0]]]])).tolist()
    [[2.0]]
    """

    def __init__(self, p: float = 3.0, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([p]))
        self.epsilon = epsilon

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C); values below `epsilon` count as `epsilon`."""
        powers = features.float().clamp(min=self.epsilon).pow(self.p)
        return powers.mean(dim=(2, 3)).pow(1 / self.p)


class AveragePooling(nn.Module):
    """The mean over the cells."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C)."""
        return features.float().mean(dim=(2, 3))


def build_pooling(name: str) -> nn.Module:
    """ "gem" or "average"."""
    return GeneralizedMeanPooling() if name == "gem" else AveragePooling()
