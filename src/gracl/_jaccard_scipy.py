"""The loops of `gracl.jaccard` without a compiler: the same results from sparse products.

Slower than `_jaccard_numba` by about an order of magnitude, and just as sparse.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

PAIRS = 4_000_000
"""Terms of a sum of minima that are spelled out at a time (about 100 MB)."""


def use_threads(threads: int) -> None:
    """Does nothing: these products run on one thread."""


def encode(
    features: NDArray[np.float32],
    ranks: NDArray[np.int64],
    similarities: NDArray[np.float32],
    reach: int,
    half_reach: int,
    scale: NDArray[np.float32],
) -> sparse.csr_array:
    """Row-normalised weights of the expanded k-reciprocal neighbours; see `gracl.jaccard.encode`."""
    n = len(ranks)
    full, half = _reciprocal(ranks, reach), _reciprocal(ranks, half_reach)
    # shared[i, c] = how many of R(c, half_reach) lie in R(i, reach), wanted where c is in R(i, reach)
    shared = (full @ half.T).multiply(full).tocoo()
    members = np.diff(half.indptr)
    kept = 3 * shared.data > 2 * members[shared.col]
    accepted = sparse.csr_array(
        (np.ones(kept.sum(), dtype=np.int32), (shared.row[kept], shared.col[kept])), shape=(n, n)
    )
    expanded = (full + accepted @ half).tocoo()
    similarity = _similarities(features, ranks, similarities, expanded.row, expanded.col)
    weights = np.exp(-(2 - 2 * similarity) / scale[expanded.row])
    totals = np.bincount(expanded.row, weights, minlength=n)
    values = (weights / totals[expanded.row]).astype(np.float32)
    result = sparse.csr_array((values, (expanded.row, expanded.col)), shape=(n, n))
    result.sort_indices()
    return result


def overlap(encoding: sparse.csr_array) -> sparse.csr_array:
    """Jaccard distances below 1 between the rows; see `gracl.jaccard.overlap`."""
    n = encoding.shape[0]
    encoding.sort_indices()
    by_column = sparse.csr_array(encoding.T.tocsr())
    lengths = np.diff(by_column.indptr)[encoding.indices]
    terms_before = np.concatenate([[0], np.cumsum(lengths)])
    blocks = []
    start = 0
    while start < n:
        budget = terms_before[encoding.indptr[start]] + PAIRS
        fits = np.searchsorted(terms_before[encoding.indptr], budget, side="right") - 1
        stop = int(min(n, max(start + 1, fits)))
        blocks.append(_overlap_rows(encoding, by_column, start, stop))
        start = stop
    return sparse.csr_array(sparse.vstack(blocks, format="csr"))


def _overlap_rows(
    encoding: sparse.csr_array, by_column: sparse.csr_array, start: int, stop: int
) -> sparse.csr_array:
    n = encoding.shape[0]
    entries = slice(encoding.indptr[start], encoding.indptr[stop])
    items, values = encoding.indices[entries], encoding.data[entries]
    rows = np.repeat(np.arange(stop - start), np.diff(encoding.indptr[start : stop + 1]))
    lengths = np.diff(by_column.indptr)[items]
    first = np.repeat(by_column.indptr[items] - np.cumsum(lengths) + lengths, lengths)
    where = first + np.arange(lengths.sum())
    minima = np.minimum(np.repeat(values, lengths), by_column.data[where])
    pairs = np.repeat(rows, lengths).astype(np.int64) * n + by_column.indices[where]
    # A stable sort keeps the terms of a pair in rising order of the shared neighbour, as seen from
    # either side, so that both sums are equal to the last bit.
    order = np.argsort(pairs, kind="stable")
    starts = np.flatnonzero(np.diff(pairs[order], prepend=-1))
    total = np.add.reduceat(minima[order], starts)
    pairs = pairs[order][starts]
    distances = np.maximum(0, 1 - total / (2 - total)).astype(np.float32)
    row, column = pairs // n, pairs % n
    distances[row + start == column] = 0
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=stop - start))])
    return sparse.csr_array((distances, column, indptr), shape=(stop - start, n))


def _reciprocal(ranks: NDArray[np.int64], reach: int) -> sparse.csr_array:
    n = len(ranks)
    near = sparse.csr_array(
        (
            np.ones(n * reach, dtype=np.int32),
            ranks[:, :reach].ravel(),
            np.arange(0, n * reach + 1, reach),
        ),
        shape=(n, n),
    )
    return sparse.csr_array(near.multiply(near.T))


def _similarities(
    features: NDArray[np.float32],
    ranks: NDArray[np.int64],
    similarities: NDArray[np.float32],
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
) -> NDArray[np.float64]:
    """Cosines of the pairs: looked up where the search found them, else multiplied out."""
    n, k = ranks.shape
    found = sparse.csr_array(
        # stored as rank + 1, so that "not stored" reads as 0
        (np.tile(np.arange(1, k + 1), n), ranks.ravel(), np.arange(0, n * k + 1, k)),
        shape=(n, n),
    )
    rank = np.asarray(found[rows, columns]).ravel() - 1
    result: NDArray[np.float64] = similarities[rows, rank].astype(np.float64)
    missing = np.flatnonzero(rank < 0)
    step = max(1, PAIRS * 4 // max(1, features.shape[1]))
    for start in range(0, len(missing), step):
        part = missing[start : start + step]
        result[part] = np.einsum("nd,nd->n", features[rows[part]], features[columns[part]])
    return result
