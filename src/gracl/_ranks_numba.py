"""The counting loop of `gracl.metrics`, compiled by numba. Sorting tensors gives the same counts."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gracl._threads import as_many_as_torch

TILE = 2048
"""Similarities that are compared with all thresholds while they are in the nearest cache."""
SORT_FROM = 512
"""Thresholds in a row from which sorting the row costs less than comparing with each of them."""


@as_many_as_torch()
def count_at_least(
    similarities: Tensor, thresholds: NDArray[np.float32], starts: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """How many of a row's similarities reach each of its thresholds; None where there is NaN.

    Args:
        similarities: (B, G) float32 on the CPU.
        thresholds: (T,) row after row.
        starts: (B + 1,) where each row's thresholds start.
    """
    counts = np.zeros(len(thresholds), dtype=np.int64)
    is_nan = np.zeros(len(similarities), dtype=np.bool_)
    _count(similarities.contiguous().numpy(), thresholds, starts, counts, is_nan)
    return None if is_nan.any() else counts


@numba.njit(cache=True, parallel=True)
def _count(similarities, thresholds, starts, counts, is_nan):  # type: ignore[no-untyped-def]
    rows, n = similarities.shape
    for row in numba.prange(rows):
        low, high = starts[row], starts[row + 1]
        values = similarities[row]
        bad = False
        for j in range(n):
            bad |= values[j] != values[j]
        is_nan[row] = bad
        if high - low >= SORT_FROM:
            rising = np.sort(values)
            for t in range(low, high):
                counts[t] = n - np.searchsorted(rising, thresholds[t])
            continue
        for start in range(0, n, TILE):
            tile = values[start : start + TILE]
            for t in range(low, high):
                threshold = thresholds[t]
                reached = np.int32(0)
                for j in range(len(tile)):
                    reached += np.int32(tile[j] >= threshold)
                counts[t] += reached
