"""The loops that the field uses, written from the papers' definitions: what gracl is measured against.

Dense N x N matrices in float32, one Python iteration a row; and the per-query sort of a whole distance
matrix, compiled. They give what gracl gives (`benchmarks/labels.py` and the others check it).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]


def dense_jaccard(features: Floats, ranks: Codes, k1: int, k2: int) -> Floats:
    """(N, N) Jaccard distance of k-reciprocal neighbourhoods for clustering.

    Source: Zhong et al., CVPR 2017, section 3, with k1 ranks, the image itself included, and weights
    exp(-d^2), as the unsupervised methods of the field use it.
    """
    n = len(features)
    full, half = (_reciprocal(ranks[:, :k]) for k in (k1, round(k1 / 2) + 1))
    weights = np.zeros((n, n), dtype=np.float32)
    for i in range(n):
        expanded = _expanded(full[i], half)
        squared = 2 - 2 * features[expanded] @ features[i]
        weight = np.exp(-squared)
        weights[i, expanded] = weight / weight.sum()
    weights = _averaged(weights, ranks, k2)  # the first matrix is freed here, as the field does
    return _dense_overlap(weights, n)


def dense_rerank(queries: Floats, gallery: Floats, k1: int, k2: int, lambda_value: float) -> Floats:
    """(Q, G) re-ranked distance.

    Source: Zhong et al., CVPR 2017: k1 + 1 ranks, squared distances divided by the row's largest.
    """
    features = np.concatenate([queries, gallery])
    squared = features @ features.T
    squared *= -2
    squared += 2
    squared /= squared.max(axis=1, keepdims=True)
    width = max(k1 + 1, k2)
    ranks = np.argpartition(squared, range(1, width), axis=1)[:, :width].copy()
    full, half = (_reciprocal(ranks[:, :k]) for k in (k1 + 1, round(k1 / 2) + 1))
    weights = np.zeros_like(squared)
    for i in range(len(features)):
        expanded = _expanded(full[i], half)
        weight = np.exp(-squared[i, expanded])
        weights[i, expanded] = weight / weight.sum()
    squared = squared[: len(queries)].copy()
    weights = _averaged(weights, ranks, k2)
    jaccard = _dense_overlap(weights, len(queries))
    blended: Floats = (1 - lambda_value) * jaccard + lambda_value * squared
    return blended[:, len(queries) :]


def _expanded(core: Codes, half: list[Codes]) -> Codes:
    """R(i, k) and the half sets of its members that lie in it by more than two thirds."""
    expanded = core
    for candidate in core:
        members = half[candidate]
        if len(np.intersect1d(members, core)) > 2 / 3 * len(members):
            expanded = np.append(expanded, members)
    return np.unique(expanded)


def _reciprocal(nearest: Codes) -> list[Codes]:
    """R(i, k) of every i, found once, as the field's faster loops do."""
    return [row[np.any(nearest[row] == i, axis=1)] for i, row in enumerate(nearest)]


def _averaged(weights: Floats, ranks: Codes, k2: int) -> Floats:
    """Local query expansion, into a second matrix."""
    if k2 == 1:
        return weights
    averaged = np.empty_like(weights)
    for i, row in enumerate(ranks[:, :k2]):
        averaged[i] = weights[row].mean(axis=0)
    return averaged


def _dense_overlap(weights: Floats, rows: int) -> Floats:
    """1 - sum of minima / sum of maxima, for the first rows."""
    n = len(weights)
    with_weight = [np.flatnonzero(weights[:, column]) for column in range(n)]
    distance = np.empty((rows, n), dtype=np.float32)
    for i in range(rows):
        minima = np.zeros(n, dtype=np.float32)
        for column in np.flatnonzero(weights[i]):
            others = with_weight[column]
            minima[others] += np.minimum(weights[i, column], weights[others, column])
        distance[i] = 1 - minima / (2 - minima)
    return np.maximum(distance, 0, out=distance)


def sorted_scores(
    distance: Floats,
    query_pids: Codes,
    gallery_pids: Codes,
    query_cameras: Codes,
    gallery_cameras: Codes,
) -> tuple[NDArray[np.float64], Codes]:
    """(Q,) average precision and rank of the first match, 0 where there is none: a sort a query.

    As evaluation of re-identification is commonly compiled: numpy sorts whole rows, and a compiled
    loop passes over images of the query's identity and camera and sums precision at each match.
    (numpy's sort, which the field calls, takes half the time of numba's.) The order takes 8 bytes a
    pair. So give it blocks of queries: all of MSMT17 at once would take more than 11 GB.
    """
    order = np.argsort(distance, axis=1)
    precision, first = _scores_of_order(order, query_pids, gallery_pids, query_cameras, gallery_cameras)
    return precision, first


@numba.njit(cache=True)
def _scores_of_order(  # type: ignore[no-untyped-def]
    order, query_pids, gallery_pids, query_cameras, gallery_cameras
) -> Any:
    n_queries = len(order)
    precision, first = np.zeros(n_queries), np.zeros(n_queries, dtype=np.int64)
    for q in range(n_queries):
        place, found, total = 0, 0, 0.0
        for g in order[q]:
            same = gallery_pids[g] == query_pids[q]
            if same and gallery_cameras[g] == query_cameras[q]:
                continue
            place += 1
            if same:
                found += 1
                total += found / place
                if found == 1:
                    first[q] = place
        if found:
            precision[q] = total / found
    return precision, first
