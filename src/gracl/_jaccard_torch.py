"""The steps of `gracl.jaccard` as tensor operations: the road of a GPU, and of a CPU without numba.

Gives what `_jaccard_numba` gives, up to the rounding of float32 sums. Sets are rows of a table padded
with N, and "is j in the set of i?" is a search in the sorted row of i. Rows are worked in blocks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

ENTRIES = {"cpu": 2**22, "cuda": 2**26}
"""Entries of the largest table of a block (some 30 bytes each)."""

Arrays = tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]
"""Values, columns and row starts of a sparse matrix."""


def encode(
    features: Tensor, ranks: Tensor, similarities: Tensor, reach: int, half_reach: int, scale: Tensor
) -> Arrays:
    """Row-normalised weights of the expanded k-reciprocal neighbours; see `gracl.jaccard.encode`."""
    n = len(ranks)
    full = _reciprocal(ranks, reach)
    half = _reciprocal(ranks, half_reach)
    columns, values, counts = [], [], []
    for rows in _blocks(n, reach * (1 + half_reach), ranks):
        sets = _expanded(full, half, rows, n)
        inside = sets < n
        row, column = rows[inside.nonzero()[:, 0]], sets[inside]
        similarity = _similarities(features, ranks, similarities, row, column)
        weight = torch.exp(-(2 - 2 * similarity.double()) / scale[row])
        table = torch.zeros(sets.shape, dtype=torch.float64, device=sets.device)
        table[inside] = weight
        table /= table.sum(dim=1, keepdim=True)
        columns.append(column.int().cpu().numpy())
        values.append(table[inside].float().cpu().numpy())
        counts.append(inside.sum(dim=1).cpu().numpy())
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return np.concatenate(values), np.concatenate(columns), starts


def overlap(
    encoding: sparse.csr_array, stop: int, device: torch.device, allow: Callable[[int], None]
) -> Arrays:
    """Jaccard distances below 1 of the rows before `stop`; see `gracl.jaccard.overlap`."""
    n = encoding.shape[0]
    items, values, starts = _tensors(encoding, device)
    column_items, column_values, column_starts = _tensors(sparse.csr_array(encoding.T), device)
    lengths = column_starts.diff()[items]
    terms_before = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])[starts]
    columns, distances, counts = [], [], []
    first = 0
    while first < stop:
        budget = terms_before[first] + ENTRIES[device.type]
        fits = int(torch.searchsorted(terms_before, budget, right=True)) - 1
        last = min(stop, max(first + 1, fits))
        part = slice(int(starts[first]), int(starts[last]))
        rows = torch.repeat_interleave(starts[first : last + 1].diff())
        of_entry = torch.repeat_interleave(lengths[part])
        before = lengths[part].cumsum(0) - lengths[part]
        where = torch.arange(len(of_entry), device=device)
        where += (column_starts[items[part]] - before)[of_entry]
        minima = torch.minimum(values[part][of_entry], column_values[where])
        # A stable sort keeps the terms of a pair in rising order of the shared neighbour, as seen
        # from either side, so that both sums are equal to the last bit.
        keys, order = torch.sort(rows[of_entry] * n + column_items[where], stable=True)
        pairs, sizes = torch.unique_consecutive(keys, return_counts=True)
        total = torch.segment_reduce(minima[order], "sum", lengths=sizes)
        distance = (1 - total / (2 - total)).clamp(min=0)
        row, column = pairs // n, pairs % n
        distance[row + first == column] = 0
        columns.append(column.int().cpu().numpy())
        distances.append(distance.cpu().numpy())
        counts.append(torch.bincount(row, minlength=last - first).cpu().numpy())
        allow(sum(map(len, columns)) * stop // last)
        first = last
    bounds = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return np.concatenate(distances), np.concatenate(columns), bounds


def _reciprocal(ranks: Tensor, reach: int) -> Tensor:
    """(N, reach) of R(i, reach): the neighbours that have i among their own, others replaced by N."""
    n = len(ranks)
    result = ranks[:, :reach].clone()
    for rows in _blocks(n, reach * reach, ranks):
        theirs = ranks[ranks[rows, :reach]][:, :, :reach]
        mutual = (theirs == rows[:, None, None]).any(dim=2)
        result[rows] = result[rows].masked_fill(~mutual, n)
    return result


def _expanded(full: Tensor, half: Tensor, rows: Tensor, n: int) -> Tensor:
    """(B, E) the expanded sets of some rows, rising, each member once, padded with N."""
    core = full[rows].sort(dim=1).values
    padded = torch.cat([half, half.new_full((1, half.shape[1]), n)])
    brought = padded[core]  # (B, reach, half_reach): what each candidate brings along
    present = brought < n
    shared = (_contains(core, brought.flatten(1)).view_as(brought) & present).sum(dim=2)
    accepted = 3 * shared > 2 * present.sum(dim=2)
    brought = brought.masked_fill(~accepted[:, :, None], n).flatten(1)
    everyone = torch.cat([core, brought], dim=1).sort(dim=1).values
    again = torch.zeros_like(everyone, dtype=torch.bool)
    again[:, 1:] = everyone[:, 1:] == everyone[:, :-1]
    everyone = everyone.masked_fill(again, n).sort(dim=1).values
    return everyone[:, : int((everyone < n).sum(dim=1).max())]


def _contains(rising: Tensor, wanted: Tensor) -> Tensor:
    """Whether each wanted entry occurs in the same row of a table whose rows rise."""
    place = torch.searchsorted(rising, wanted).clamp(max=rising.shape[1] - 1)
    return rising.gather(1, place) == wanted


def _similarities(
    features: Tensor, ranks: Tensor, similarities: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """Cosines of pairs: looked up where the search found them, else multiplied out."""
    result = torch.empty(len(rows), device=features.device)
    width = max(ranks.shape[1], features.shape[1])
    for part in _blocks(len(rows), width, rows):
        row, column = rows[part], columns[part]
        listed = ranks[row] == column[:, None]
        found, place = listed.max(dim=1)
        values = similarities[row].gather(1, place[:, None])[:, 0]
        missing = (~found).nonzero().flatten()
        values[missing] = (features[row[missing]] * features[column[missing]]).sum(dim=1)
        result[part] = values
    return result


def _blocks(n: int, width: int, like: Tensor) -> tuple[Tensor, ...]:
    """Row numbers in blocks whose tables of this width stay within `ENTRIES`."""
    rows = max(1, ENTRIES[like.device.type] // width)
    return torch.split(torch.arange(n, device=like.device), rows)


def _tensors(matrix: sparse.csr_array, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(columns, values, row starts) of a sparse matrix with sorted rows."""
    parts: tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]] = (
        matrix.indices.astype(np.int64), matrix.data, matrix.indptr.astype(np.int64)
    )  # fmt: skip
    columns, values, starts = (torch.from_numpy(part).to(device) for part in parts)
    return columns, values, starts
