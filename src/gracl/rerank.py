"""k-reciprocal re-ranking of a gallery for each query, by the encoding that clustering uses.

Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.
Its neighbourhoods take k1 + 1 ranks (k1 besides the image itself) and its squared distances are
scaled by that of the farthest image, unlike those of `gracl.jaccard_distance`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gracl import jaccard, neighbors
from gracl.errors import ShapeError
from gracl.metrics import Similarity


def k_reciprocal(
    query_features: Tensor,
    gallery_features: Tensor,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    memory: int = neighbors.MEMORY,
) -> Similarity:
    """Similarities to rank by: minus the re-ranked distance.

    The distance is (1 - lambda) * Jaccard + lambda * d^2 / (largest d^2 of the query), taken over
    queries and gallery together. It is given a block of queries at a time.

    Args:
        query_features: (Q, D) unit rows.
        gallery_features: (G, D) unit rows; the very same tensor where images search each other.
        k1: neighbours besides the image itself.
        k2: rows averaged, the image itself included.
        lambda_value: weight of the original distance, in [0, 1].
        memory: bytes that one block of similarities may take.

    >>> q, g = torch.eye(3)[:1], torch.eye(3)
    >>> k_reciprocal(q, g, k1=1, k2=1)(0, 1).argmax().item()
    0
    """
    if k1 < 1 or k2 < 1 or not 0 <= lambda_value <= 1:
        raise ShapeError(
            f"k1 {k1}, k2 {k2}, lambda {lambda_value}; expected k1, k2 >= 1 and lambda in [0, 1]"
        )
    n_queries = len(query_features)
    if query_features is gallery_features:  # each image searches all others: one set, not two
        features, in_gallery = gallery_features, slice(None)
    else:
        features = torch.cat([query_features, gallery_features])
        in_gallery = slice(n_queries, None)
    found = neighbors.search(features, max(k1 + 1, k2), memory=memory)
    # Where all images are alike, rounding (some 1e-7) is all that is left of a distance; divided by
    # less than this it would overflow in exp.
    farthest = (2 - 2 * found.farthest).clamp(min=1e-5)
    encoding = jaccard.encode(
        features,
        found,
        reach=k1 + 1,
        half_reach=round(k1 / 2) + 1,
        expand=k2,
        scale=np.ascontiguousarray(farthest.cpu().numpy()),
    )
    distance = jaccard.overlap(encoding)[:n_queries, in_gallery].tocsr()

    def block(start: int, stop: int) -> Tensor:
        original = 2 - 2 * query_features[start:stop] @ gallery_features.T
        original /= farthest[start:stop, None]
        # What is not stored has Jaccard distance 1, and what is stored lies below it.
        part = distance[start:stop].copy()
        part.data = 1 - part.data
        nearness = torch.from_numpy(part.toarray()).to(original.device)
        return (1 - lambda_value) * (nearness - 1) - lambda_value * original

    return block
