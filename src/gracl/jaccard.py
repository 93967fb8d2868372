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

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gracl import forecast, neighbors
from gracl.errors import ShapeError
from gracl.neighbors import Neighbors

TYPICAL_PAIRS = 150
"""Distances below 1 that an image has with a trained model; with an untrained one it may be 2,000."""
SECONDS_A_NEIGHBOR = 1e-6
"""Of encoding, distances and clusters, measured on one core."""


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
    _check_k(k1, k2)
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
        neighbors.check_features(features),
        found,
        reach=k1,
        # round() here and in numpy is half to even: k1 = 30 gives 15, k1 = 25 gives 12
        half_reach=round(k1 / 2) + 1,
        expand=k2,
        scale=None,
    )
    return overlap(encoding, device=features.device)


def forecast_distance(
    n: int, dimensions: int, *, k: int, memory: int, remedy: str
) -> forecast.Forecast:
    """What the search and the distances of n images need, their features among it.

    How many distances lie below 1 is known only once the neighbours are: 150 an image is usual for a
    trained model. They are counted before they are stored, so a graph that does not fit is refused
    then (see `overlap`).
    """
    pairs = n * min(n, TYPICAL_PAIRS)
    return forecast.Forecast(
        stage=f"the labels of {n} images",
        seconds=forecast.product_seconds(n * n * dimensions) + n * k * SECONDS_A_NEIGHBOR,
        memory=min(memory, 4 * n * n) + 6 * n * dimensions + 12 * n * min(k, n) + 24 * pairs,
        remedy=remedy,
    )


def encode(
    features: Tensor,
    found: Neighbors,
    *,
    reach: int,
    half_reach: int,
    expand: int,
    scale: Tensor | None,
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
    needed = min(n, max(reach, half_reach, expand))
    shape = tuple(found.indices.shape)
    if shape[0] != n or shape[1] < needed:
        raise ShapeError(
            f"neighbours have shape {shape}; expected ({n}, {needed}) or wider. Search with k={needed}"
        )
    if n == 0:
        return sparse.csr_array(np.zeros((0, 0), dtype=np.float32))
    low, high = (int(bound) for bound in torch.aminmax(found.indices))
    if low < 0 or high >= n:  # compiled loops would read and write where nothing is
        raise ShapeError(
            f"neighbours are rows {low} to {high} of {n} images; expected rows 0 to {n - 1}. "
            "Search the images among themselves: gracl.neighbors.search(features, k)"
        )
    parts = _kernels(features.device).encode(
        features.detach().float(),
        found.indices,
        found.similarities.float(),
        min(reach, n),
        min(half_reach, n),
        torch.ones(n, device=features.device) if scale is None else scale,
    )
    weights = _assembled(parts, n)
    weights.sort_indices()
    return _average_rows(weights, found.indices[:, : min(expand, n)].cpu().numpy())


def overlap(
    encoding: sparse.csr_array, *, rows: int | None = None, device: torch.device | str = "cpu"
) -> sparse.csr_array:
    """Jaccard distance of rows of an encoding to all rows: 1 - sum of minima / sum of maxima.

    Rows sum to 1, so with t the sum of minima the sum of maxima is 2 - t. Only pairs that share a
    neighbour have t > 0, and only these are visited and stored.

    Args:
        encoding: (N, N), what `encode` gives.
        rows: the first so many rows alone; all of them if not given.
        device: where to compute.

    Returns:
        (rows, N) sparse float32 on the CPU with sorted indices, as `jaccard_distance` says.

    Raises:
        OutOfMemory: the distances, which are counted first, do not fit.
    """
    n = encoding.shape[0]
    if n == 0 or rows == 0:
        return encoding[:rows]
    device = torch.device(device)
    encoding.sort_indices()
    return _assembled(_kernels(device).overlap(encoding, rows or n, device, _allow), n)


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
    if not (isinstance(k1, int | np.integer) and isinstance(k2, int | np.integer)):
        raise ShapeError(f"k1 is {k1} and k2 is {k2}; both are counts of images, whole numbers")
    if k1 < 1 or k2 < 1:
        raise ShapeError(
            f"k1 is {k1} and k2 is {k2}; both count the image itself, so both are at least 1"
        )


def _allow(pairs: int) -> None:
    """Refuses a graph that does not fit, before it is filled."""
    forecast.require_memory(
        f"a graph of {pairs} distances",
        8 * pairs,
        "Lower method.k1 or method.k2, which bring the pairs, or work on fewer images",
    )


def _assembled(
    parts: tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]], n: int
) -> sparse.csr_array:
    """A sparse matrix of n columns whose indices take four bytes where they can."""
    values, columns, starts = parts
    kind = _index_type(len(values))
    narrow = values, columns.astype(kind, copy=False), starts.astype(kind, copy=False)
    return sparse.csr_array(narrow, shape=(len(starts) - 1, n))


def _index_type(stored: int) -> type[np.int32 | np.int64]:
    return np.int32 if stored < 2**31 else np.int64


def _kernels(device: torch.device) -> ModuleType:
    """Compiled loops on a CPU where numba can be imported, else the same results from tensors."""
    if device.type == "cpu" and importlib.util.find_spec("numba") is not None:
        from gracl import _jaccard_numba

        return _jaccard_numba
    from gracl import _jaccard_torch

    return _jaccard_torch
