"""Exact nearest neighbours of unit vectors, a block of queries at a time.

Letters: Q queries, G gallery rows, N rows of one set, D dimensions, k neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gracl.errors import ShapeError

MEMORY = 256 * 2**20
"""Bytes that one block of similarities may take unless the caller says otherwise."""


@dataclass(frozen=True)
class Neighbors:
    """The k nearest gallery rows of each query, nearest first."""

    indices: Tensor
    """(Q, k) int64 rows of the gallery."""
    similarities: Tensor
    """(Q, k) float32 cosine similarities, falling along each row."""
    farthest: Tensor
    """(Q,) float32: the lowest similarity of the query to any gallery row."""

    def __len__(self) -> int:
        return len(self.indices)


def search(features: Tensor, k: int, *, memory: int = MEMORY) -> Neighbors:
    """The k nearest rows of each row among all rows, the row itself always first.

    A row stands first among its own neighbours even where duplicates tie with it, so "k ranks, the
    image itself included" is true of every row. Other ties are broken arbitrarily, but the same way
    each time on one machine.

    Args:
        features: (N, D) float32 unit rows, on any device.
        k: how many, the row itself included; cut to N where it is larger.
        memory: bytes that one block of similarities may take; the result does not depend on it.

    >>> found = search(torch.eye(3), k=2)
    >>> found.indices[:, 0].tolist(), found.similarities[:, 0].tolist()
    ([0, 1, 2], [1.0, 1.0, 1.0])
    """
    features = check_features(features)
    if k < 1:
        raise ShapeError(f"k is {k}; a search needs k >= 1, the row itself included")
    n, k = len(features), min(k, len(features))
    indices = torch.empty((n, k), dtype=torch.int64, device=features.device)
    similarities = torch.empty((n, k), dtype=torch.float32, device=features.device)
    farthest = torch.empty(n, dtype=torch.float32, device=features.device)
    for start, block in similarity_blocks(features, features, memory=memory):
        rows = torch.arange(len(block), device=block.device)
        stop = start + len(block)
        farthest[start:stop] = block.amin(dim=1)
        own = block[rows, rows + start].clone()
        block[rows, rows + start] = torch.inf
        best, where = torch.topk(block, k, dim=1)
        best[:, 0] = own
        indices[start:stop], similarities[start:stop] = where, best
    return Neighbors(indices, similarities, farthest)


def mean_of_nearest_foreign(
    features: Tensor, labels: Tensor, m: int, *, counts_as_other: Tensor, memory: int = MEMORY
) -> Tensor:
    """Mean similarity of each labelled row to its m nearest rows of other groups.

    Args:
        features: (N, D) float32 unit rows.
        labels: (N,) int64 group of each row; rows below 0 belong to no group.
        m: how many foreign rows are averaged; 1 is the nearest alone. Where a row has fewer foreign
            rows than m, all of them are averaged.
        counts_as_other: (N,) bool, which rows may stand on the other side of a relation.
        memory: bytes that one block of similarities may take.

    Returns:
        (N,) float32; -1, the lowest similarity there is, where a row has no foreign row. Rows
        without a group are compared with every row but themselves.
    """
    features = check_features(features)
    others = torch.nonzero(counts_as_other).flatten()
    gallery, groups = features[others], labels[others]
    result = torch.full((len(features),), -1.0, device=features.device)
    if not len(others):
        return result
    for start, block in similarity_blocks(features, gallery, memory=memory):
        rows = slice(start, start + len(block))
        own = labels[rows, None] == groups[None, :]
        own &= labels[rows, None] >= 0
        own |= torch.arange(start, start + len(block), device=own.device)[:, None] == others
        block.masked_fill_(own, -torch.inf)
        best = torch.topk(block, min(m, len(others)), dim=1).values
        valid = torch.isfinite(best)
        mean = best.masked_fill(~valid, 0.0).sum(dim=1) / valid.sum(dim=1).clamp(min=1)
        result[rows] = torch.where(valid.any(dim=1), mean, result[rows])
    return result


def similarity_blocks(
    queries: Tensor, gallery: Tensor, *, memory: int = MEMORY
) -> Iterator[tuple[int, Tensor]]:
    """Yields (first row, (B, G) similarities) so that no Q x G matrix ever exists.

    Each block is a fresh tensor that the caller may write into.
    """
    rows = max(1, memory // (4 * max(1, len(gallery))))
    for start in range(0, len(queries), rows):
        yield start, queries[start : start + rows] @ gallery.T


def check_features(features: Tensor) -> Tensor:
    """The features as float32, or a `ShapeError` for what no distance can be taken of."""
    if features.ndim != 2:
        raise ShapeError(
            f"features have shape {tuple(features.shape)}; expected (N, D), one row an image"
        )
    features = features.float()
    if not torch.isfinite(features).all():
        bad = int((~torch.isfinite(features).all(dim=1)).sum())
        raise ShapeError(
            f"{bad} of {len(features)} feature rows hold NaN or infinity; expected finite unit "
            "rows. Check the model's weights and the images that gave these rows"
        )
    return features
