"""Exact nearest neighbours for less than the full product, on the CPU.

Features of images have a spectrum that falls: a few hundred leading principal directions hold nearly
all of each row. Write f_i = h_i + r_i, its part in these directions and the rest. Then, by
Cauchy-Schwarz on the rest,

    f_i . f_j  =  h_i . h_j + r_i . r_j  <=  h_i . h_j + |r_i| |r_j|

and the right side is one product of rows that are much shorter: (h_i, |r_i|) . (h_j, |r_j|). A pair is
multiplied out in full only where this bound reaches the least similarity that the row has kept so far.
What is found is what the full product finds; only pairs that cannot be among the k nearest are passed
over.

The short product may run in bfloat16, for its rounding is bounded too, and joins as two further
coordinates. All similarities given out are float32 sums of full rows, whatever the bound ran in.

Letters: N rows, D dimensions, m leading directions, k neighbours.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gracl._threads import as_many_as_torch

CHUNK = 64
"""Bounds that are looked at together; most chunks hold nothing and cost a few instructions."""
TILE = 1024
"""Gallery rows whose features are used by many rows in turn."""
SAMPLE = 128
"""Rows that a plan is made from."""
WORTH_IT = 0.7
"""Pruning is chosen where its forecast is below this share of the full product's cost."""
RESCORE = 16.0
"""Cost of a row multiplied out alone, against its share of a blocked product."""
NARROW = 0.5
"""Cost of a term in bfloat16, where the processor has it, against one in float32."""
PREPARATION = 1.0
"""Cost of the directions, in rows of the full product a dimension."""


@dataclass(frozen=True)
class Plan:
    """How a set of rows will be searched, and what that should cost."""

    directions: Tensor
    """(D, m) orthonormal."""
    survivors: float
    """Rows that a row is expected to be multiplied with in full."""
    cost: float
    """Forecast, as a share of the full product's cost."""


def plan(features: Tensor, k: int, *, always: bool = False, seed: int = 0) -> Plan | None:
    """The number of directions that should cost least, or None where the full product does.

    Args:
        features: (N, D) float32 rows on the CPU.
        k: neighbours, the row itself included.
        always: give the best plan even so.
        seed: of the sample of rows.
    """
    n, dimensions = features.shape
    if not always and (n < 32 * SAMPLE or dimensions < 64 or k >= n // 8):
        return None
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    basis, queries = features[order[: 2 * dimensions]], features[order[:SAMPLE]]
    gallery = features[order[-16 * SAMPLE :]]
    directions = torch.linalg.eigh(basis.T @ basis).eigenvectors.flip(1)
    threshold = (queries @ features.T).topk(k, dim=1).values[:, -1:]
    price = NARROW if bfloat16_pays() else 1.0
    plans = []
    for m in sorted({max(1, dimensions // share) for share in (32, 16, 8, 4, 2)}):
        mine, theirs = queries @ directions[:, :m], gallery @ directions[:, :m]
        rest, rest_of_mine = _norm_of_rest(gallery, theirs), _norm_of_rest(queries, mine)
        passed = mine @ theirs.T + rest_of_mine[:, None] * rest >= threshold
        survivors = n * float(passed.float().mean())
        cost = price * m / dimensions + (RESCORE * survivors + PREPARATION * dimensions) / n
        plans.append(Plan(directions[:, :m].contiguous(), survivors, cost))
    best = min(plans, key=lambda plan: plan.cost)
    return best if always or best.cost < WORTH_IT else None


@as_many_as_torch()
def search(
    features: Tensor, k: int, directions: Tensor, *, memory: int, narrow: bool | None = None
) -> tuple[Tensor, Tensor]:
    """(N, k) indices and float32 similarities of the k nearest rows, the row itself first.

    Args:
        features: (N, D) float32 rows on the CPU.
        k: in [1, N], the row itself included. Among equals the lower index stands first.
        directions: (D, m) orthonormal columns; any will do, leading ones cost least.
        memory: bytes that one block of bounds may take.
        narrow: bound in bfloat16; None tries whether this processor is faster so.
    """
    narrow = bfloat16_pays() if narrow is None else narrow
    short = _short_rows(features, directions, narrow)
    return _search(features, k, short, sign=1.0, memory=memory)


@as_many_as_torch()
def farthest(
    features: Tensor, directions: Tensor, *, memory: int, narrow: bool | None = None
) -> Tensor:
    """(N,) the lowest similarity of each row to any row: what is nearest to its opposite."""
    narrow = bfloat16_pays() if narrow is None else narrow
    mine, theirs, slack = _short_rows(features, directions, narrow)
    m = directions.shape[1]
    opposite = torch.cat([-mine[:, :m], mine[:, m:]], dim=1)
    # One more coordinate lifts all bounds by 1, for they are compared where they are positive.
    one = torch.ones_like(mine[:, :1])
    short = torch.cat([opposite, one], dim=1), torch.cat([theirs, one], dim=1), slack
    _, similarities = _search(features, min(2, len(features)), short, sign=-1.0, memory=memory)
    # The row itself is among them where it is alone, or where all rows are alike.
    return -similarities.amax(dim=1)


def _search(
    features: Tensor,
    k: int,
    short: tuple[Tensor, Tensor, NDArray[np.float32]],
    *,
    sign: float,
    memory: int,
) -> tuple[Tensor, Tensor]:
    if k == 1:  # a heap of nobody else has no last entry to compare with
        return torch.arange(len(features))[:, None], sign * features.square().sum(1, keepdim=True)
    mine, theirs, slack = short
    lift = np.float32(0.0 if sign > 0 else 1.0)
    n, rows, threads = len(features), features.contiguous().numpy(), torch.get_num_threads()
    indices, similarities = np.empty((n, k), dtype=np.int64), np.empty((n, k), dtype=np.float32)
    block = max(1, memory // (mine.element_size() * n))
    for start in range(0, n, block):
        part = slice(start, min(n, start + block))
        bound = mine[part] @ theirs.T
        bits = bound.view(torch.int16 if bound.dtype == torch.bfloat16 else torch.int32).numpy()
        _nearest(
            rows, np.float32(sign), lift, bits, start, slack, indices[part], similarities[part], threads
        )
        del bound, bits  # before the next is made, so that there is one at a time
    return torch.from_numpy(indices), torch.from_numpy(similarities)


def _short_rows(
    features: Tensor, directions: Tensor, narrow: bool
) -> tuple[Tensor, Tensor, NDArray[np.float32]]:
    """Two sets of rows whose products bound those of the features, and what rounding takes away.

    The rounding is (relative, absolute): a bound is trusted down to its value less these.
    """
    head = features @ directions
    rest = _norm_of_rest(features, head)[:, None]
    if not narrow:
        short = torch.cat([head, rest], dim=1)
        return short, short, np.array([0.0, 1e-5], dtype=np.float32)
    rounded = head.bfloat16()
    error = (head - rounded.float()).norm(dim=1, keepdim=True)
    # |h.h' - g.g'| <= |e||g'| + |g||e'| + |e||e'| with g the rounded head and e its error, and the
    # last two of the three are at most |e'| times the largest |g| + |e|
    size = head.norm(dim=1).amax() + 2 * error.amax() if len(head) else 1.0
    rest, error = _rounded_up(rest), _rounded_up(error * size)
    one = torch.ones_like(error)
    mine = torch.cat([rounded, rest, error, one], dim=1)
    theirs = torch.cat([rounded, rest, one, error], dim=1)
    # bfloat16 has eight significant bits: a product may be rounded by 2^-8 of itself
    return mine, theirs, np.array([2**-8, 1e-4], dtype=np.float32)


def _norm_of_rest(features: Tensor, head: Tensor) -> Tensor:
    """What the directions leave of each row; a little too large rather than too small."""
    whole, part = (torch.linalg.vector_norm(rows, dim=1) for rows in (features, head))
    square: Tensor = (whole.square() - part.square()).clamp(min=0)
    return (square + 1e-6).sqrt()


def _rounded_up(values: Tensor) -> Tensor:
    return (values * (1 + 2**-7)).bfloat16()


_narrow: bool | None = None


def bfloat16_pays() -> bool:
    """Whether this processor multiplies bfloat16 clearly faster than float32; tried once."""
    global _narrow
    if _narrow is None:
        wide = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
        _narrow = _seconds(wide.bfloat16()) < 0.75 * _seconds(wide)
    return _narrow


def _seconds(block: Tensor) -> float:
    """Least of a few products' times."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        block @ block.T
        times.append(time.perf_counter() - start)
    return min(times)


@numba.njit(cache=True, fastmath={"reassoc", "nsz", "contract"})
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for d in range(len(a)):
        total += a[d] * b[d]
    return total


@numba.njit(cache=True)
def _comes_after(similarity, index, other_similarity, other_index):  # type: ignore[no-untyped-def]
    """Whether the first stands behind the second: less similar, or as similar and of higher index."""
    if similarity != other_similarity:
        return similarity < other_similarity
    return index > other_index


@numba.njit(cache=True)
def _sink(similarities, indices, place, size):  # type: ignore[no-untyped-def]
    """Restores a heap, the last of the kept at its root, after its entry at `place` was changed."""
    while True:
        last, left = place, 2 * place + 1
        for child in (left, left + 1):
            if child < size and _comes_after(
                similarities[child], indices[child], similarities[last], indices[last]
            ):
                last = child
        if last == place:
            return
        similarities[place], similarities[last] = similarities[last], similarities[place]
        indices[place], indices[last] = indices[last], indices[place]
        place = last


@numba.njit(cache=True)
def _guess(bound, own, values, places):  # type: ignore[no-untyped-def]
    """Fills a heap with the entries of one row of bounds that are largest, its own left out."""
    size, kept, j = len(values), 0, 0
    n = len(bound)
    while kept < size:
        if j != own:
            values[kept], places[kept] = bound[j], j
            kept += 1
        j += 1
    for place in range(size // 2 - 1, -1, -1):
        _sink(values, places, place, size)
    while j < n:
        end = min(n, j + CHUNK)
        root = values[0]
        hit = False
        for c in range(j, end):
            hit |= bound[c] > root
        if hit:
            for c in range(j, end):
                if bound[c] > values[0] and c != own:
                    values[0], places[0] = bound[c], c
                    _sink(values, places, 0, size)
        j = end


@numba.njit(cache=True)
def _as_bound(similarity, lift, slack, narrow):  # type: ignore[no-untyped-def]
    """The least integer that a bound of this similarity, lifted, may read as.

    Positive floating-point numbers are ordered like the integers of the same bits, and negative ones
    read as negative integers. So a threshold above zero is compared as an integer, and one below
    lets everything pass.
    """
    threshold = similarity + lift
    threshold -= slack[0] * abs(threshold) + slack[1]
    if threshold <= 0:
        return np.int64(-(2**31))
    bits = np.int64(np.float32(threshold).view(np.int32))
    return bits >> 16 if narrow else bits


@numba.njit(cache=True, parallel=True)
def _nearest(  # type: ignore[no-untyped-def]
    features, sign, lift, bounds, first, slack, indices, similarities, groups
):
    rows, n = bounds.shape
    others = indices.shape[1] - 1
    narrow = bounds.itemsize == 2
    size = (rows + groups - 1) // groups
    for group in numba.prange(groups):
        begin, stop = min(rows, group * size), min(rows, (group + 1) * size)
        thresholds = np.empty(stop - begin, dtype=np.int64)
        guessed = np.empty((stop - begin, others), dtype=np.int64)
        passed = np.zeros(stop - begin, dtype=np.int64)
        values = np.empty(others, dtype=bounds.dtype)
        # Rows of the largest bounds are multiplied out first: whatever they are, the nearest are at
        # least as similar as the last of them.
        for row in range(begin, stop):
            own = first + row
            kept_i, kept_s = indices[row, 1:], similarities[row, 1:]
            _guess(bounds[row], own, values, kept_i)
            guessed[row - begin] = np.sort(kept_i)
            for entry in range(others):
                kept_s[entry] = sign * _dot(features[own], features[kept_i[entry]])
            for place in range(others // 2 - 1, -1, -1):
                _sink(kept_s, kept_i, place, others)
            thresholds[row - begin] = _as_bound(kept_s[0], lift, slack, narrow)
        # Tiles of the gallery outside, rows inside, so that a tile's features stay in the cache.
        for tile in range(0, n, TILE):
            for row in range(begin, stop):
                own, here = first + row, row - begin
                kept_i, kept_s = indices[row, 1:], similarities[row, 1:]
                for start in range(tile, min(n, tile + TILE), CHUNK):
                    end = min(n, start + CHUNK)
                    hit = False
                    for j in range(start, end):
                        hit |= bounds[row, j] >= thresholds[here]
                    if not hit:
                        continue
                    for j in range(start, end):
                        if bounds[row, j] < thresholds[here] or j == own:
                            continue
                        while passed[here] < others and guessed[here, passed[here]] < j:
                            passed[here] += 1
                        if passed[here] < others and guessed[here, passed[here]] == j:
                            continue
                        similarity = sign * _dot(features[own], features[j])
                        if _comes_after(kept_s[0], kept_i[0], similarity, j):
                            kept_s[0], kept_i[0] = similarity, j
                            _sink(kept_s, kept_i, 0, others)
                            thresholds[here] = _as_bound(kept_s[0], lift, slack, narrow)
        # A heap gives up its last entry first, which frees the place where that entry belongs.
        for row in range(begin, stop):
            kept_i, kept_s = indices[row, 1:], similarities[row, 1:]
            for left in range(others - 1, 0, -1):
                kept_i[0], kept_i[left] = kept_i[left], kept_i[0]
                kept_s[0], kept_s[left] = kept_s[left], kept_s[0]
                _sink(kept_s, kept_i, 0, left)
            indices[row, 0] = first + row
            similarities[row, 0] = sign * _dot(features[first + row], features[first + row])
