"""k-reciprocal encoding and the Jaccard distance, sparse from end to end.

An image is described by whom it is a mutual neighbour of, and two images are near when these
descriptions overlap. With N images and k neighbours nothing here is larger than O(N k).

Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017,
section 3. Two definitions share its symbols: re-ranking (`gracl.rerank`) takes k1 + 1 ranks and
scales distances by the farthest image; clustering, as here, takes k1 ranks, *the image itself
included*, and does not scale. Both are `encode` with other numbers.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gracl import neighbors
from gracl.errors import ShapeError
from gracl.neighbors import Neighbors


def jaccard_distance(
    features: Tensor, *, k1: int = 30, k2: int = 6, memory: int = neighbors.MEMORY
) -> sparse.csr_array:
    """Jaccard distance between the k-reciprocal neighbourhoods of all images.

    Args:
        features: (N, D) float32 unit rows.
        k1: neighbours looked at, *the image itself included*.
        k2: nearest rows whose encodings are averaged (local query expansion), *the image itself
            included*; 1 leaves each row as it is.
        memory: bytes that one block of the neighbour search may take.

    Returns:
        (N, N) symmetric sparse float32. Stored are the distances below 1, in [0, 1), the diagonal
        as an explicit 0; a pair that is not stored has distance 1. A *stored* zero is a neighbour.

    >>> import torch
    >>> two_pairs = torch.nn.functional.normalize(torch.tensor([[1., 0], [1, .1], [0, 1], [.1, 1]]))
    >>> distance = jaccard_distance(two_pairs, k1=2, k2=1)
    >>> distance.nnz                            # 4 on the diagonal, 2 pairs both ways
    8
    >>> distance[[0]].indices.tolist(), bool(distance[0, 1] < 0.01)
    ([0, 1], True)
    """
    found = neighbors.search(features, max(k1, k2), memory=memory)
    return jaccard_from_neighbors(features, found, k1=k1, k2=k2)


def jaccard_from_neighbors(
    features: Tensor, found: Neighbors, *, k1: int = 30, k2: int = 6
) -> sparse.csr_array:
    """The same distance when the max(k1, k2) nearest neighbours are known already.

    The features are still read: an expanded neighbourhood holds a few images that are not among
    the k1 nearest, and their similarities are needed too.
    """
    _check_k(k1, k2)
    encoding = encode(
        features,
        found,
        reach=k1,
        # round() here and in numpy is half to even: k1 = 30 gives 15, k1 = 25 gives 12
        half_reach=round(k1 / 2) + 1,
        expand=k2,
        scale=None,
    )
    return overlap(encoding)


def encode(
    features: Tensor,
    found: Neighbors,
    *,
    reach: int,
    half_reach: int,
    expand: int,
    scale: NDArray[np.float32] | None,
) -> sparse.csr_array:
    """One row an image: the weights of its expanded k-reciprocal neighbours, summing to 1.

    With R(i, k) the images among the k nearest of i (i included) that have i among their own k
    nearest, the neighbourhood of i is R(i, reach) together with R(c, half_reach) of every c in
    R(i, reach) of which more than two thirds lie in R(i, reach). Image j in it weighs
    exp(-d_ij^2 / scale_i), with d^2 = 2 - 2 cos. Then each row becomes the mean of the rows of its
    `expand` nearest images.

    Args:
        features: (N, D) float32 unit rows.
        found: at least max(reach, half_reach, expand) neighbours a row, or all N of them.
        reach: ranks of the full set, the image itself included.
        half_reach: ranks of the set that candidates bring along, the image itself included.
        expand: rows averaged, the image itself included.
        scale: (N,) positive divisor of the squared distances of a row; None divides by 1.

    Returns:
        (N, N) sparse float32 with sorted indices.
    """
    n = len(features)
    ranks = np.ascontiguousarray(found.indices.cpu().numpy())
    needed = min(n, max(reach, half_reach, expand))
    if ranks.shape[0] != n or ranks.shape[1] < needed:
        raise ShapeError(
            f"neighbours have shape {ranks.shape}; expected ({n}, {needed}) or wider. "
            f"Search with k={needed}"
        )
    if n == 0:
        return sparse.csr_array(np.zeros((0, 0), dtype=np.float32))
    weights = _compute(
        "encode",
        np.ascontiguousarray(features.detach().float().cpu().numpy()),
        ranks,
        np.ascontiguousarray(found.similarities.float().cpu().numpy()),
        min(reach, n),
        min(half_reach, n),
        np.ones(n, dtype=np.float32) if scale is None else scale,
    )
    weights.sort_indices()
    return _average_rows(weights, ranks[:, : min(expand, n)])


def overlap(encoding: sparse.csr_array) -> sparse.csr_array:
    """Jaccard distance of the rows of an encoding: 1 - sum of minima / sum of maxima.

    Rows sum to 1, so with t the sum of minima the sum of maxima is 2 - t. Only pairs that share a
    neighbour have t > 0, and only these are visited and stored.
    """
    if encoding.shape[0] == 0:
        return encoding
    return _compute("overlap", encoding)


def _average_rows(encoding: sparse.csr_array, nearest: NDArray[np.int64]) -> sparse.csr_array:
    n, k = nearest.shape
    if k == 1:
        return encoding
    average = sparse.csr_array(
        (
            np.full(n * k, 1.0 / k, dtype=np.float32),
            nearest.ravel(),
            np.arange(0, n * k + 1, k, dtype=np.int64),
        ),
        shape=(n, n),
    )
    result = sparse.csr_array(average @ encoding)
    result.sort_indices()
    return result


def _check_k(k1: int, k2: int) -> None:
    if k1 < 1 or k2 < 1:
        raise ShapeError(
            f"k1 is {k1} and k2 is {k2}; both count the image itself, so both are at least 1"
        )


def _compute(kernel: str, *arguments: Any) -> sparse.csr_array:
    """Runs a kernel on as many threads as torch uses, and leaves torch's number as it was.

    numba and torch can share one OpenMP runtime. numba starting its threads then changes how many
    torch uses, and with it the order of torch's sums: a first epoch would differ from a second.
    """
    threads = torch.get_num_threads()
    kernels = _kernels()
    try:
        kernels.use_threads(threads)
        result: sparse.csr_array = getattr(kernels, kernel)(*arguments)
    finally:
        torch.set_num_threads(threads)
    return result


def _kernels() -> ModuleType:
    """Compiled loops where numba can be imported, else the same results from scipy."""
    if importlib.util.find_spec("numba") is not None:
        from gracl import _jaccard_numba

        return _jaccard_numba
    from gracl import _jaccard_scipy

    return _jaccard_scipy
