"""The loops of `gracl.jaccard`, compiled by numba. `_jaccard_torch` gives the same results.

Rows are worked in blocks: each block owns an array of N stamps, so that "is j in the set of i?" is
one look-up, and the blocks are independent of each other and run on all threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gracl._threads import as_many_as_torch

ROWS = 2048
"""Rows a block: enough to make N stamps a block cheap, few enough to share among threads."""

Arrays = tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]
"""Values, columns and row starts of a sparse matrix."""


@as_many_as_torch()
def encode(
    features: Tensor, ranks: Tensor, similarities: Tensor, reach: int, half_reach: int, scale: Tensor
) -> Arrays:
    """Row-normalised weights of the expanded k-reciprocal neighbours; see `gracl.jaccard.encode`."""
    tables = [table.contiguous().numpy() for table in (features, ranks, similarities)]
    n = len(ranks)
    full = _reciprocal(tables[1], reach)
    half = _reciprocal(tables[1], half_reach)
    # Widest possible row: the full set, and less than a third of each candidate's half set.
    width = reach * (1 + (half_reach + 2) // 3)
    columns, values, counts = [], [], np.empty(n, dtype=np.int64)
    for start in range(0, n, ROWS * 8):
        stop = min(n, start + ROWS * 8)
        block_columns = np.empty((stop - start, width), dtype=np.int32)
        block_values = np.empty((stop - start, width), dtype=np.float32)
        _expand(
            tables[0], tables[1], tables[2], full, half, scale.numpy(), start,
            block_columns, block_values, counts[start:stop],
        )  # fmt: skip
        used = np.arange(width) < counts[start:stop, None]
        columns.append(block_columns[used])
        values.append(block_values[used])
    starts = np.concatenate([[0], np.cumsum(counts)])
    return np.concatenate(values), np.concatenate(columns), starts


@as_many_as_torch()
def overlap(
    encoding: sparse.csr_array, stop: int, device: torch.device, allow: Callable[[int], None]
) -> Arrays:
    """Jaccard distances below 1 of the rows before `stop`; see `gracl.jaccard.overlap`."""
    assert device.type == "cpu"
    by_column = sparse.csr_array(encoding.T)
    rows, columns = (encoding.indptr, encoding.indices), (by_column.indptr, by_column.indices)
    counts = np.zeros(stop, dtype=np.int64)
    _count_overlaps(*rows, *columns, counts)
    starts = np.concatenate([[0], np.cumsum(counts)])
    allow(int(starts[-1]))
    found = np.empty(starts[-1], dtype=np.int32)
    distances = np.empty(starts[-1], dtype=np.float32)
    _fill_overlaps(*rows, encoding.data, *columns, by_column.data, starts, found, distances)
    return distances, found, starts


@numba.njit(cache=True, parallel=True)
def _reciprocal(ranks: NDArray[np.int64], reach: int) -> NDArray[np.bool_]:
    """(N, reach) whether rank r of row i has i among its own first `reach` ranks."""
    n = ranks.shape[0]
    mutual = np.zeros((n, reach), dtype=np.bool_)
    for i in numba.prange(n):
        for r in range(reach):
            j = ranks[i, r]
            for s in range(reach):
                if ranks[j, s] == i:
                    mutual[i, r] = True
                    break
    return mutual


@numba.njit(cache=True, parallel=True, fastmath={"reassoc", "nsz", "contract"})
def _expand(  # type: ignore[no-untyped-def]
    features, ranks, similarities, full, half, scale, first, columns, values, counts
):
    n, dimensions = features.shape
    rows, reach, half_reach = len(columns), full.shape[1], half.shape[1]
    for block in numba.prange((rows + ROWS - 1) // ROWS):
        in_full = np.full(n, -1, dtype=np.int32)  # stamp i: in R(i, reach)
        in_set = np.full(n, -1, dtype=np.int32)  # stamp i: in the expanded set
        rank_of = np.empty(n, dtype=np.int32)  # valid where in_full or ranked carries i's stamp
        ranked = np.full(n, -1, dtype=np.int32)
        for row in range(block * ROWS, min(rows, (block + 1) * ROWS)):
            i = first + row
            for r in range(ranks.shape[1]):
                ranked[ranks[i, r]] = i
                rank_of[ranks[i, r]] = r
            size = 0
            for r in range(reach):
                if full[i, r]:
                    j = ranks[i, r]
                    in_full[j] = i
                    in_set[j] = i
                    columns[row, size] = j
                    size += 1
            for candidate in range(size):  # the loop's bound is read once: R(i, reach) alone
                c = columns[row, candidate]
                members, shared = 0, 0
                for s in range(half_reach):
                    if half[c, s]:
                        members += 1
                        shared += in_full[ranks[c, s]] == i
                if 3 * shared > 2 * members:
                    for s in range(half_reach):
                        j = ranks[c, s]
                        if half[c, s] and in_set[j] != i:
                            in_set[j] = i
                            columns[row, size] = j
                            size += 1
            total = 0.0
            for entry in range(size):
                j = columns[row, entry]
                if ranked[j] == i:
                    similarity = similarities[i, rank_of[j]]
                else:
                    similarity = np.float32(0.0)
                    for d in range(dimensions):
                        similarity += features[i, d] * features[j, d]
                weight = np.exp(-(2 - 2 * np.float64(similarity)) / scale[i])
                values[row, entry] = weight
                total += weight
            for entry in range(size):
                values[row, entry] /= total
            counts[row] = size


@numba.njit(cache=True, parallel=True)
def _count_overlaps(row_starts, row_items, column_starts, column_items, counts):  # type: ignore[no-untyped-def]
    stop, n = len(counts), len(column_starts) - 1
    for block in numba.prange((stop + ROWS - 1) // ROWS):
        seen = np.full(n, -1, dtype=np.int32)
        for i in range(block * ROWS, min(stop, (block + 1) * ROWS)):
            for a in range(row_starts[i], row_starts[i + 1]):
                j = row_items[a]
                for b in range(column_starts[j], column_starts[j + 1]):
                    other = column_items[b]
                    if seen[other] != i:
                        seen[other] = i
                        counts[i] += 1


@numba.njit(cache=True, parallel=True)
def _fill_overlaps(  # type: ignore[no-untyped-def]
    row_starts, row_items, row_values, column_starts, column_items, column_values,
    starts, columns, distances,
):  # fmt: skip
    stop, n = len(starts) - 1, len(column_starts) - 1
    for block in numba.prange((stop + ROWS - 1) // ROWS):
        shared = np.zeros(n, dtype=np.float32)
        for i in range(block * ROWS, min(stop, (block + 1) * ROWS)):
            size = starts[i]
            # Neighbours are visited in rising order from either side of a pair, so the two sums
            # have the same terms in the same order and the result is symmetric to the last bit.
            for a in range(row_starts[i], row_starts[i + 1]):
                j, value = row_items[a], row_values[a]
                for b in range(column_starts[j], column_starts[j + 1]):
                    other = column_items[b]
                    if shared[other] == 0:
                        columns[size] = other
                        size += 1
                    shared[other] += min(value, column_values[b])
            columns[starts[i] : size].sort()
            for entry in range(starts[i], size):
                other = columns[entry]
                minima = shared[other]
                shared[other] = 0
                distances[entry] = 1 - minima / (2 - minima)
                if distances[entry] < 0:  # by rounding; max() would make a NaN look identical
                    distances[entry] = 0
                if other == i:
                    distances[entry] = 0
