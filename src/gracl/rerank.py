"""Better rankings from the gallery itself: k-reciprocal re-ranking, and query expansion.

Letters: Q queries, G gallery images, D dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
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
    """Similarities to rank by: minus the re-ranked distance, by the encoding that clustering uses.

    The distance is (1 - lambda) * Jaccard + lambda * d^2 / (largest d^2 of the query), taken over
    queries and gallery together. It is given a block of queries at a time, and beside the features
    nothing is larger than the neighbours of all images and the Jaccard distances of the queries.

    Args:
        query_features: (Q, D) unit rows.
        gallery_features: (G, D) unit rows; the very same tensor where images search each other.
        k1: neighbours besides the image itself.
        k2: rows averaged, the image itself included.
        lambda_value: weight of the original distance, in [0, 1].
        memory: bytes that one block of similarities may take.

    Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.
    Its neighbourhoods take k1 + 1 ranks (k1 besides the image itself) and its squared distances are
    scaled by that of the farthest image, unlike those of `gracl.jaccard_distance`.

    >>> q, g = torch.eye(3)[:1], torch.eye(3)
    >>> k_reciprocal(q, g, k1=1, k2=1)(0, 1).argmax().item()
    0
    """
    if k1 < 1 or k2 < 1 or not 0 <= lambda_value <= 1:
        raise ShapeError(
            f"k1 {k1}, k2 {k2}, lambda {lambda_value}; expected k1, k2 >= 1 and lambda in [0, 1]"
        )
    one_set = query_features is gallery_features  # each image searches all others
    query_features = neighbors.check_features(query_features)
    gallery_features = query_features if one_set else neighbors.check_features(gallery_features)
    n_queries = len(query_features)
    if one_set:
        features, in_gallery = gallery_features, slice(None)
    else:
        features = torch.cat([query_features, gallery_features])
        in_gallery = slice(n_queries, None)
    found = neighbors.search(features, max(k1 + 1, k2), farthest=True, memory=memory)
    assert found.farthest is not None
    # Where all images are alike, rounding (some 1e-7) is all that is left of a distance; divided by
    # less than this it would overflow in exp.
    farthest = (2 - 2 * found.farthest).clamp(min=1e-5)
    encoding = jaccard.encode(
        features,
        found,
        reach=k1 + 1,
        half_reach=round(k1 / 2) + 1,
        expand=k2,
        scale=farthest,
    )
    distance = jaccard.overlap(encoding, rows=n_queries, device=features.device)
    distance = distance[:, in_gallery].tocsr()

    def block(start: int, stop: int) -> Tensor:
        similarity = query_features[start:stop] @ gallery_features.T
        weight = lambda_value / farthest[start:stop, None]
        similarity.sub_(1).mul_(2 * weight)  # -lambda d^2 / farthest, with d^2 = 2 - 2 cos
        # What is not stored has Jaccard distance 1, and what is stored lies below it.
        stored = distance[start:stop].tocoo()
        place = torch.from_numpy(stored.row).long(), torch.from_numpy(stored.col).long()
        nearer = torch.from_numpy((1 - lambda_value) * (1 - stored.data)).to(similarity)
        similarity.sub_(1 - lambda_value)
        similarity[place[0].to(similarity.device), place[1].to(similarity.device)] += nearer
        return similarity

    return block


def expand_queries(
    query_features: Tensor,
    gallery_features: Tensor,
    *,
    k: int = 10,
    alpha: float = 0.0,
    memory: int = neighbors.MEMORY,
) -> Tensor:
    """Average query expansion: each query moved towards the k gallery images nearest to it.

    A query becomes the unit vector along q + sum of s^alpha * g over its k nearest gallery images g,
    with s their similarity, those below 0 taken as 0. It is the plain mean for alpha = 0.

    Args:
        query_features: (Q, D) unit rows.
        gallery_features: (G, D) unit rows. Where images search each other, each is its own nearest.
        k: gallery images taken in; all of them where there are fewer.
        alpha: how much nearer images count for more, at least 0.
        memory: bytes that one block of similarities may take.

    Returns:
        (Q, D) unit rows.

    Source: Chum et al., "Total Recall", ICCV 2007, section 4; Radenović et al., "Fine-tuning CNN
    Image Retrieval with No Human Annotation", TPAMI 2019, section 3.3, for alpha.

    >>> expand_queries(torch.eye(2)[:1], torch.eye(2), k=1).tolist()
    [[1.0, 0.0]]
    """
    if k < 1 or not alpha >= 0:
        raise ShapeError(f"k {k}, alpha {alpha}; expected k >= 1 and alpha >= 0")
    gallery = neighbors.check_features(gallery_features)
    queries = neighbors.check_features(query_features)
    expanded = queries.clone()
    if len(gallery):
        for start, block in neighbors.similarity_blocks(queries, gallery, memory=memory):
            nearest = block.topk(min(k, len(gallery)), dim=1)
            weight = nearest.values.clamp(min=0) ** alpha  # 0 ** 0 is 1: the plain mean
            part = slice(start, start + len(block))
            expanded[part] += torch.einsum("qk,qkd->qd", weight, gallery[nearest.indices])
    return F.normalize(expanded)
