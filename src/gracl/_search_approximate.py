"""An approximate index of faiss, for sets too large to compare every pair. It is the extra `faiss`.

An index that was built wrongly, or that looks in too few places, answers all the same, only wrongly.
So a sample of rows is searched exactly too, and the index looks in more places until it finds what
the exact search finds.

Source: Jégou et al., "Product Quantization for Nearest Neighbor Search", TPAMI 2011, section IV: the
inverted file (here without quantisation: similarities are exact, only places are left out).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gracl.errors import ConfigError, SearchError

SAMPLE = 256
"""Rows that are searched exactly as well."""
RECALL = 0.99
"""Share of their true neighbours that has to be found."""


def search(
    features: Tensor, k: int, *, memory: int, seed: int = 0
) -> tuple[Tensor, Tensor, None, float]:
    """(N, k) indices and similarities, no farthest rows, and the recall that was measured.

    Args:
        features: (N, D) float32 rows.
        k: in [1, N], the row itself included and always first.
        memory: bytes that the similarities of the sample may take.
        seed: of the sample.

    Raises:
        SearchError: looking everywhere does not find `RECALL` of the sample's neighbours.
    """
    rows = np.ascontiguousarray(features.cpu().numpy())
    index, n_lists = _build(rows)
    sample = np.random.default_rng(seed).permutation(len(rows))[:SAMPLE]
    sought, others = min(k + 1, len(rows)), k - 1
    truth = _exact_thresholds(features, sample, k, memory)
    index.nprobe = min(n_lists, 8)
    while True:
        _, places = index.search(rows[sample], sought)
        recall = _recall(rows, places, sample, truth, others)
        if recall >= RECALL:
            break
        if index.nprobe >= n_lists:
            raise SearchError(
                f"the approximate index finds {recall:.1%} of the neighbours of {len(sample)} rows "
                f"though it looks everywhere; expected {RECALL:.0%}. Are the rows of unit length? "
                "Search with algorithm='auto' (method.search auto), which is exact"
            )
        index.nprobe = min(n_lists, 2 * index.nprobe)
    similarities, indices = index.search(rows, sought)
    indices, similarities = _itself_first(indices, similarities, rows)
    device = features.device
    return (
        torch.from_numpy(indices[:, :k]).to(device),
        torch.from_numpy(similarities[:, :k]).to(device),
        None,
        recall,
    )


def _build(rows: NDArray[np.float32]) -> tuple[Any, int]:
    """An inverted file of about 4 sqrt(N) lists."""
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            "the approximate search needs faiss: pip install 'gracl[faiss]'. The default search, "
            "auto, is exact and needs nothing more"
        ) from error
    faiss.omp_set_num_threads(torch.get_num_threads())
    n, dimensions = rows.shape
    n_lists = max(1, min(int(4 * math.sqrt(n)), n // 40))
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(dimensions), dimensions, n_lists, faiss.METRIC_INNER_PRODUCT
    )
    step = max(1, n // (64 * n_lists))
    index.train(rows[::step])
    index.add(rows)
    return index, n_lists


def _exact_thresholds(
    features: Tensor, sample: NDArray[np.int64], k: int, memory: int
) -> NDArray[np.float32]:
    """(sample,) similarity of the last of the k true neighbours, the row itself included."""
    chosen = features[torch.from_numpy(sample).to(features.device)]
    parts = torch.split(chosen, max(1, memory // (4 * len(features))))
    last = [(part @ features.T).topk(k, dim=1).values[:, -1] for part in parts]
    return torch.cat(last).cpu().numpy()


def _recall(
    rows: NDArray[np.float32],
    places: NDArray[np.int64],
    sample: NDArray[np.int64],
    truth: NDArray[np.float32],
    others: int,
) -> float:
    """Share of the k - 1 other neighbours found: those as similar as the last true one.

    How similar they are is multiplied out here. What the index says of itself proves nothing.
    """
    if others == 0:
        return 1.0
    similar = np.einsum("nd,nkd->nk", rows[sample], rows[places])
    right = (places >= 0) & (places != sample[:, None]) & (similar >= truth[:, None] - 1e-5)
    return float(np.minimum(right.sum(axis=1), others).mean() / others)


def _itself_first(
    indices: NDArray[np.int64], similarities: NDArray[np.float32], rows: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Moves each row to the front of its own neighbours, where duplicates put it behind or out."""
    own = np.arange(len(rows))
    similarities = np.where(indices < 0, -np.inf, similarities)
    # Places that the index left empty (-1) can only be filled with the row itself.
    indices = np.where(indices < 0, own[:, None], indices)
    is_own = indices == own[:, None]
    order = np.argsort(np.where(is_own, -np.inf, -similarities), axis=1, kind="stable")
    indices = np.take_along_axis(indices, order, axis=1)
    similarities = np.take_along_axis(similarities, order, axis=1)
    missing = indices[:, 0] != own
    indices[missing, 1:] = indices[missing, :-1]
    similarities[missing, 1:] = similarities[missing, :-1]
    indices[:, 0] = own
    similarities[:, 0] = np.einsum("nd,nd->n", rows, rows)
    return indices, similarities.astype(np.float32)
