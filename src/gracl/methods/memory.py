"""What memories have in common: a contrast with the rows of a bank, and a row that moves.

Letters: C rows of a bank, D dimensions, B images of a batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gracl.clustering import Labels
from gracl.methods.groups import cluster_means, cluster_sums, lowest_per_cluster


def means_of_clusters(features: Tensor, labels: Labels) -> Tensor:
    """(C, D) unit rows: the mean of each cluster of all images; those of no cluster are left out."""
    y = torch.from_numpy(labels).to(features.device)
    return cluster_means(features[y >= 0], y[y >= 0])


def contrast(features: Tensor, bank: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Cross entropy that pulls each feature to its row of the bank, from all other rows.

    -log ( exp(f . bank_y / temperature) / sum over k of exp(f . bank_k / temperature) ), as a mean.

    Args:
        features: (B, D) unit rows.
        bank: (C, D) rows, of unit length in most methods.
        labels: (B,) rows of the bank.
        temperature: above 0.

    >>> rows = torch.eye(2)
    >>> round(contrast(rows, rows, torch.tensor([0, 1]), 1.0).item(), 4)  # log(1 + exp(-1))
    0.3133
    """
    return F.cross_entropy(features @ bank.T / temperature, labels)


def move(bank: Tensor, rows: Tensor, towards: Tensor, momentum: float) -> None:
    """bank_r <- normalise(momentum * bank_r + (1 - momentum) * towards), for distinct rows r."""
    bank[rows] = F.normalize(momentum * bank[rows] + (1 - momentum) * towards)


def move_to_means(bank: Tensor, features: Tensor, labels: Tensor, momentum: float) -> None:
    """Moves each row that a batch has images of towards their mean, of unit length."""
    present, position = torch.unique(labels, return_inverse=True)
    move(bank, present, cluster_means(features, position), momentum)


def move_to_hardest(bank: Tensor, features: Tensor, labels: Tensor, momentum: float) -> None:
    """Moves each row towards the one of its images in the batch that is least similar to it."""
    to_own = (features * bank[labels]).sum(dim=1)
    hardest = lowest_per_cluster(to_own, labels)
    move(bank, labels[hardest], features[hardest], momentum)


def move_to_plain_means(bank: Tensor, features: Tensor, labels: Tensor, momentum: float) -> None:
    """Moves each row towards the mean of its images in the batch.

    The mean is taken as it is: images that disagree have a short one, and move the row less.
    """
    present, position = torch.unique(labels, return_inverse=True)
    sums, sizes = cluster_sums(features, position)
    move(bank, present, sums / sizes[:, None], momentum)
