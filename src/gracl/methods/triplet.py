"""The hardest pairs of each image in a BatchNorm group.

Source: Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017,
arXiv:1703.07737, section 2, equation 5 ("batch hard").

Letters: B images of a group, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def batch_hard(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Distances to the farthest image of the own cluster and to the nearest of another, (B,) each.

    Euclidean distances of unit rows (B, D). An image alone in its cluster has itself, at distance 0;
    where the group has no other cluster, the nearest is infinitely far.

    >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> [d.tolist() for d in batch_hard(rows[[0, 0, 2]], torch.tensor([0, 0, 1]))]
    [[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]]
    """
    squared = 2 - 2 * features @ features.T
    # At 0 the root has no slope, and rounding leaves about 1e-7 there; such a pair pulls neither way.
    is_apart = squared > 1e-6
    distance = torch.where(is_apart, torch.where(is_apart, squared, 1.0).sqrt(), 0.0)
    same = labels[:, None] == labels
    farthest = distance.masked_fill(~same, 0.0).amax(dim=1)
    nearest = distance.masked_fill(same, torch.inf).amin(dim=1)
    return farthest, nearest
