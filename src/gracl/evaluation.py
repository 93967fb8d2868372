"""A model's scores on a data set, under a named protocol."""

from __future__ import annotations

import numpy as np

from gracl import metrics, rerank
from gracl.agreement import Agreement, compare_labels
from gracl.clustering import Labels
from gracl.config import EvaluateConfig
from gracl.data import protocols
from gracl.data.records import Dataset, Records, codes
from gracl.data.store import ImageStore, OnBad, open_store
from gracl.errors import EvaluationError
from gracl.extraction import extract
from gracl.metrics import Ranking, Scores
from gracl.models.embedder import Embedder


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
    return ranking.scores(protocol + (" re-ranked" if settings.rerank else ""))


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
    query_side, gallery_side = protocols.sides(query.records, gallery.records, protocol)
    query_features = extract(model, query, batch_size=batch_size)
    gallery_features = query_features
    if gallery is not query:
        gallery_features = extract(model, gallery, batch_size=batch_size)
    similarity = metrics.cosine(query_features, gallery_features)
    if settings.rerank:
        similarity = rerank.k_reciprocal(
            query_features,
            gallery_features,
            k1=settings.rerank_k1,
            k2=settings.rerank_k2,
            lambda_value=settings.rerank_lambda,
        )
    return metrics.rank(similarity, query_side, gallery_side), protocol


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


def agreement_with_truth(labels: Labels, records: Records) -> Agreement | None:
    """Pseudo labels against the identities of their records; None where none is known."""
    (pids,) = codes("identity", records)
    return compare_labels(labels, pids) if bool(np.any(pids >= 0)) else None
