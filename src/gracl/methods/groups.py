"""Rows of a batch or of a data set, taken cluster by cluster, without a loop over clusters.

Letters: N rows, D dimensions, C clusters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def lowest_per_cluster(scores: Tensor, labels: Tensor) -> Tensor:
    """The row with the lowest score of each label present, by rising label; the first of equals.

    >>> lowest_per_cluster(torch.tensor([.3, .1, .2, .2]), torch.tensor([1, 1, 0, 0])).tolist()
    [2, 1]
    """
    order = torch.argsort(scores, stable=True)
    order = order[torch.argsort(labels[order], stable=True)]
    sorted_labels = labels[order]
    is_first = torch.ones_like(sorted_labels, dtype=torch.bool)
    is_first[1:] = sorted_labels[1:] != sorted_labels[:-1]
    return order[is_first]


def turns(labels: Tensor) -> list[Tensor]:
    """Rows in rounds: the first of each label, then the second of each, and so on.

    >>> [turn.tolist() for turn in turns(torch.tensor([4, 4, 7]))]
    [[0, 2], [1]]
    """
    order = torch.argsort(labels, stable=True)
    sorted_labels = labels[order]
    position = torch.arange(len(labels), device=labels.device)
    position = position - torch.searchsorted(sorted_labels, sorted_labels)
    return [order[position == turn] for turn in range(int(position.max()) + 1)]


def cluster_sums(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(C, D) sums and (C,) sizes of the clusters 0 .. C - 1.

    Each sum is taken row after row, on a GPU too, where adding by index would take the rows as they
    come: the memory must be the same to the digit on all devices that train together.
    """
    sizes = torch.bincount(labels)
    by_cluster = features[torch.argsort(labels, stable=True)]
    return torch.segment_reduce(by_cluster, "sum", lengths=sizes, unsafe=True), sizes


def cluster_means(features: Tensor, labels: Tensor) -> Tensor:
    """(C, D) means of the clusters, of unit length."""
    return F.normalize(cluster_sums(features, labels)[0])
