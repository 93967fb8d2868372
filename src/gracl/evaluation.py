"""A model's scores on a data set, under a named protocol."""

from __future__ import annotations

import dataclasses

import numpy as np
from torch import Tensor

from gracl import jaccard, metrics, rerank
from gracl.agreement import Agreement, compare_labels
from gracl.clustering import Labels
from gracl.config import EvaluateConfig
from gracl.data import protocols
from gracl.data.records import Dataset, Records, codes
from gracl.data.store import ImageStore, OnBad, open_store
from gracl.errors import EvaluationError
from gracl.extraction import extract
from gracl.forecast import GIB, Forecast, product_seconds
from gracl.metrics import Ranking, Scores, Similarity
from gracl.models.embedder import Embedder

FALSE_POSITIVE_RATES = (1e-4, 1e-3, 1e-2)
"""Where the true positive rate is read off."""


def evaluate(
    model: Embedder,
    dataset: Dataset,
    settings: EvaluateConfig | None = None,
    *,
    batch_size: int = 256,
    on_bad: OnBad = "skip",
) -> Scores:
    """mAP, mINP and CMC of a model on the data set's query and gallery.

    Where a data set has neither, its training images search each other. Images that cannot be
    decoded are left out, or refused, as `on_bad` says.

    Raises:
        EvaluationError: identities, or the fact that the protocol needs, are not known.
    """
    settings = settings or EvaluateConfig()
    if not all(side.has("identity") for side in dataset.test):
        raise EvaluationError(
            f"{dataset.name} has no identities, and scoring needs them: one folder an identity, or a "
            "CSV with the column 'identity'"
        )
    query, gallery = readable(dataset, model.size, on_bad)
    ranking, protocol = rank(model, query, gallery, settings, batch_size=batch_size)
    changed = [" expanded"] * bool(settings.expand) + [" re-ranked"] * settings.rerank
    return ranking.scores("".join([protocol, *changed]))


def rank(
    model: Embedder,
    query: ImageStore,
    gallery: ImageStore,
    settings: EvaluateConfig,
    *,
    batch_size: int = 256,
) -> tuple[Ranking, str]:
    """The ranks of all matches, and the protocol that was used."""
    protocol = settings.protocol
    if protocol == "auto":
        protocol = protocols.choose(query.records, gallery.records)  # type: ignore[assignment]
    sides = protocols.sides(query.records, gallery.records, protocol)
    forecast_scores(len(query), len(gallery), model.dim, settings).announce()
    query_features = extract(model, query, batch_size=batch_size)
    gallery_features = query_features
    if gallery is not query:
        gallery_features = extract(model, gallery, batch_size=batch_size)
    similarity = _similarity(query_features, gallery_features, settings)
    fprs = FALSE_POSITIVE_RATES if settings.tpr else ()
    return metrics.rank(similarity, *sides, fprs=fprs, memory=_bytes(settings)), protocol


def _similarity(
    query_features: Tensor, gallery_features: Tensor, settings: EvaluateConfig
) -> Similarity:
    """What images are ranked by."""
    memory = _bytes(settings)
    if settings.expand:
        expanded = rerank.expand_queries(
            query_features,
            gallery_features,
            k=settings.expand,
            alpha=settings.expand_alpha,
            memory=memory,
        )
        if gallery_features is query_features:  # one set stays one set
            gallery_features = expanded
        query_features = expanded
    if settings.rerank:
        return rerank.k_reciprocal(
            query_features,
            gallery_features,
            k1=settings.rerank_k1,
            k2=settings.rerank_k2,
            lambda_value=settings.rerank_lambda,
            memory=memory,
        )
    return metrics.cosine(query_features, gallery_features)


def forecast_scores(
    n_queries: int, n_gallery: int, dimensions: int, settings: EvaluateConfig
) -> Forecast:
    """What ranking so many images will need, their features among it."""
    remedy = "Lower evaluate.memory, switch evaluate.rerank off, or score fewer images"
    if settings.rerank:
        both = n_queries + n_gallery
        search = jaccard.forecast_distance(
            both, dimensions, k=settings.rerank_k1 + 1, memory=_bytes(settings), remedy=remedy
        )
        return dataclasses.replace(search, stage=f"re-ranking {both} images")
    products = n_queries * n_gallery * dimensions * (2 if settings.expand else 1)
    kept = int(max(FALSE_POSITIVE_RATES) * n_queries * n_gallery) if settings.tpr else 0
    return Forecast(
        stage=f"ranking {n_gallery} images for {n_queries} queries",
        seconds=product_seconds(products),
        memory=min(_bytes(settings), 4 * n_queries * n_gallery)
        + 4 * (n_queries + n_gallery) * dimensions
        + 16 * kept,
        remedy=remedy,
    )


def _bytes(settings: EvaluateConfig) -> int:
    return int(settings.memory * GIB)


def readable(
    dataset: Dataset, size: tuple[int, int], on_bad: OnBad = "skip"
) -> tuple[ImageStore, ImageStore]:
    """(query, gallery) decoded; the same object twice where each image searches all others."""
    query, gallery = dataset.test
    first = open_store(query, size=size, on_bad=on_bad)
    return first, first if gallery == query else open_store(gallery, size=size, on_bad=on_bad)


def can_be_scored(dataset: Dataset) -> bool:
    """Whether any query has another image of its identity to find, under some protocol."""
    query, gallery = dataset.test
    protocol = protocols.choose(query, gallery)
    return bool(metrics.has_match(*protocols.sides(query, gallery, protocol)).any())


def agreement_with_truth(labels: Labels, records: Records, known: Records) -> Agreement | None:
    """Pseudo labels of records against the identities that the same images have among `known`.

    None where no identity is known.
    """
    identities = {(record.path, record.box): record.identity for record in known}
    truth = (dataclasses.replace(r, identity=identities.get((r.path, r.box))) for r in records)
    (pids,) = codes("identity", Records(tuple(truth)))
    return compare_labels(labels, pids) if bool(np.any(pids >= 0)) else None
