"""DBSCAN's loop over a sparse graph, compiled by numba. `gracl.clustering` gives the same without."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gracl.links import OUTLIER


def label(distance: sparse.csr_array, eps: float, min_samples: int) -> NDArray[np.int64]:
    """(N,) labels as `gracl.clustering.dbscan` defines them, by one thread."""
    bound = distance.dtype.type(eps)  # compared in the graph's own precision
    return np.asarray(_label(distance.indptr, distance.indices, distance.data, bound, min_samples))


@numba.njit(cache=True)
def _root(parent, node):  # type: ignore[no-untyped-def]
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@numba.njit(cache=True)
def _label(starts, columns, distances, eps, min_samples):  # type: ignore[no-untyped-def]
    n = len(starts) - 1
    core = np.empty(n, dtype=np.bool_)
    for i in range(n):
        near = np.int32(0)
        for entry in range(starts[i], starts[i + 1]):
            near += np.int32(distances[entry] <= eps)
        core[i] = near >= min_samples

    # Of two sets that are joined the lower root remains, so a root is its cluster's first core point.
    parent = np.arange(n)
    for i in range(n):
        if core[i]:
            mine = i  # a root all along: rows before this one were only joined with each other
            for entry in range(starts[i], starts[i + 1]):
                j = columns[entry]
                if j >= i:
                    continue  # seen from the other side
                if distances[entry] <= eps and core[j]:
                    other = _root(parent, j)
                    if other < mine:
                        parent[mine] = other
                        mine = other
                    else:
                        parent[other] = mine

    labels = np.full(n, OUTLIER, dtype=np.int64)
    clusters = 0
    for i in range(n):
        if core[i]:
            root = _root(parent, i)
            if root == i:
                labels[i] = clusters
                clusters += 1
            else:
                labels[i] = labels[root]
    for i in range(n):
        if not core[i]:
            lowest = clusters
            for entry in range(starts[i], starts[i + 1]):
                j = columns[entry]
                if distances[entry] <= eps and core[j] and labels[j] < lowest:
                    lowest = labels[j]
            if lowest < clusters:
                labels[i] = lowest
    return labels
