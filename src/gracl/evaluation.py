"""A model's scores on a data set, under a named protocol."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gracl import jaccard, metrics, openset, rerank
from gracl.agreement import Agreement, compare_labels
from gracl.calibration import Calibration
from gracl.clustering import Labels
from gracl.config import EvaluateConfig
from gracl.data import protocols
from gracl.data.protocols import Protocol
from gracl.data.records import Dataset, Records, codes
from gracl.data.store import ImageStore, OnBad, open_store
from gracl.errors import ConfigError, EvaluationError
from gracl.extraction import extract
from gracl.forecast import GIB, Forecast, product_seconds
from gracl.metrics import Ranking, Scores, Side, Similarity
from gracl.models.embedder import Embedder
from gracl.models.fingerprint import require_same_model
from gracl.openset import OpenSetScores
from gracl.tracklets import group

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

    Args:
        model: scored as it is.
        dataset: its query and gallery.
        settings: the protocol, whether sequences search sequences (see `gracl.tracklets`), and how the
            ranking is changed.
        batch_size: images at a time while features are extracted.
        on_bad: "skip" or "refuse".

    Raises:
        EvaluationError: identities, sequences for tracklets, or the fact that the protocol needs,
            are not known; or no query has a match.
        DataError: for tracklets, a sequence of two identities or cameras.
    """
    settings = settings or EvaluateConfig()
    if settings.protocol == "auto" and dataset.protocol in protocols.BENCHMARKS:
        settings = dataclasses.replace(settings, protocol=dataset.protocol)  # type: ignore[arg-type]
    query, gallery = _identified(dataset, model.size, on_bad)
    sets = [query] if gallery is query else [query, gallery]
    if settings.tracklets and not all(images.records.has("sequence") for images in sets):
        raise EvaluationError(
            f"{dataset.name} names no sequence on one side or both, and scoring tracklets needs them. "
            "Add a column 'sequence', or switch evaluate.tracklets off"
        )
    groups = [group(images.records) for images in sets] if settings.tracklets else []
    records = [found.records for found in groups or sets]
    plan = _plan(records[0], records[-1], settings)  # refuses what it must before anything is extracted
    forecast_scores(len(records[0]), len(records[-1]), model.dim, settings).announce()
    features = [extract(model, images, batch_size=batch_size) for images in sets]
    if groups:
        features = [found.mean(rows) for found, rows in zip(groups, features, strict=True)]
    scores = _score(plan, features[0], features[-1], settings)
    return dataclasses.replace(scores, protocol=f"{scores.protocol} tracklets") if groups else scores


def score_features(
    query: Records,
    gallery: Records,
    query_features: Tensor,
    gallery_features: Tensor,
    settings: EvaluateConfig | None = None,
) -> Scores:
    """mAP, mINP and CMC of features, whatever they come from.

    Args:
        query, gallery: what is known of the Q queries and G gallery images.
        query_features: (Q, D) unit rows.
        gallery_features: (G, D) unit rows; the very same tensor where images search each other.
        settings: the protocol, and how the ranking is changed.

    Raises:
        EvaluationError: no query has a match, or the fact that the protocol needs is not known.

    >>> import torch
    >>> from pathlib import Path
    >>> from gracl.data.records import Record
    >>> people = Records(tuple(Record(Path(name), identity=name[0]) for name in ("a1", "a2", "b1")))
    >>> features = torch.eye(2)[[0, 0, 1]]
    >>> score_features(people, people, features, features).mAP
    1.0
    """
    settings = settings or EvaluateConfig()
    return _score(_plan(query, gallery, settings), query_features, gallery_features, settings)


def evaluate_open_set(
    model: Embedder,
    dataset: Dataset,
    *,
    protocol: str = "any",
    threshold: float | Calibration | None = None,
    batch_size: int = 256,
    on_bad: OnBad = "skip",
) -> tuple[OpenSetScores, Records, list[str]]:
    """How well a model tells known individuals from new ones; see `gracl.openset`.

    Args:
        model: scored as it is.
        dataset: with queries of individuals that its gallery holds, and of some that it does not.
        protocol: what is junk, by name; nothing is drawn. A query without a valid match under it is
            one of a new individual.
        threshold: similarity from which a query is taken for a known individual, or a calibration of
            this model; None finds it in the gallery, with no look at the queries.
        batch_size: images at a time while features are extracted.
        on_bad: "skip" leaves out images that cannot be decoded, "refuse" raises.

    Returns:
        The scores, the queries, and the identity that each is given or `NEW_INDIVIDUAL`.

    Raises:
        EvaluationError: there are no identities, no new or no known individuals, or the gallery is
            the query and would show its labels to the choice of the threshold.
        FingerprintError: the calibration is another model's.
        ConfigError: the threshold is NaN.
    """
    if isinstance(threshold, Calibration):
        require_same_model(model, threshold)
        threshold = threshold.threshold
    if threshold is not None and math.isnan(threshold):
        raise ConfigError("threshold is NaN; expected a similarity, such as 0.6")
    query, gallery = _identified(dataset, model.size, on_bad)
    if gallery is query and threshold is None:
        raise EvaluationError(
            f"the images of {dataset.name} search each other, so a threshold chosen in the gallery "
            "would be chosen on the queries' labels. Give query and gallery of their own, or a "
            "threshold"
        )
    if protocols.find(protocol).draw is not None:
        raise EvaluationError(
            f"protocol '{protocol}' draws its queries and gallery, and open-set scores draw nothing. "
            "Use cross-camera, date, sequence or any"
        )
    queries, held = protocols.sides(query.records, gallery.records, protocol)
    query_features = extract(model, query, batch_size=batch_size)
    gallery_features = query_features
    if gallery is not query:
        gallery_features = extract(model, gallery, batch_size=batch_size)
    if threshold is None:
        threshold = openset.choose_threshold(metrics.cosine(gallery_features, gallery_features), held)
    found = openset.nearest(metrics.cosine(query_features, gallery_features), queries, held)
    scores = openset.score_open_set(
        found, queries, held, threshold=threshold, protocol=str(protocols.find(protocol))
    )
    given = openset.answers(found, gallery.records.values("identity"), threshold=threshold)
    return scores, query.records, given


class _Plan(NamedTuple):
    """Who is ranked against whom, known before there are features."""

    protocol: Protocol
    queries: Side
    gallery: Side
    note: str


def _plan(query: Records, gallery: Records, settings: EvaluateConfig) -> _Plan:
    name, notes = str(settings.protocol), []
    if name == "auto":
        name = protocols.choose(query, gallery)
        notes.append(protocols.why_not_stricter(query, gallery, name))
    protocol = protocols.find(name)
    sides = protocols.sides(query, gallery, name)
    if settings.tpr and not protocol.one_gallery:
        raise EvaluationError(
            f"protocol '{name}' ranks its queries in several galleries, and a true positive rate needs "
            "one threshold for all. Switch evaluate.tpr off"
        )
    metrics.require_match(metrics.has_match(*sides), str(protocol))
    if protocol.distractors:
        notes.append(f"{(sides[1].pids < 0).sum()} distractors in the gallery")
    return _Plan(protocol, *sides, "; ".join(filter(None, notes)))


def _score(
    plan: _Plan, query_features: Tensor, gallery_features: Tensor, settings: EvaluateConfig
) -> Scores:
    protocol, queries, gallery, note = plan
    fprs = FALSE_POSITIVE_RATES if settings.tpr else ()
    changed = [" expanded"] * bool(settings.expand) + [" re-ranked"] * settings.rerank
    name = "".join([str(protocol), *changed])

    def ranked(
        queries: Side, gallery: Side, query_features: Tensor, gallery_features: Tensor
    ) -> Ranking:
        similarity = _similarity(query_features, gallery_features, settings)
        return metrics.rank(similarity, queries, gallery, fprs=fprs, memory=_bytes(settings))

    if protocol.draw is None:
        return ranked(queries, gallery, query_features, gallery_features).scores(name, note=note)
    scores = []
    for parts in protocols.draws(queries, gallery, protocol):
        found = [  # re-ranking and expansion see no more of the gallery than was drawn
            ranked(
                queries.take(rows),
                gallery.take(columns),
                query_features[rows],
                gallery_features[columns],
            )
            for rows, columns in parts
        ]
        scores.append(metrics.join(found).scores(name, note=note))
    return metrics.mean_scores(scores)


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


def _identified(
    dataset: Dataset, size: tuple[int, int], on_bad: OnBad
) -> tuple[ImageStore, ImageStore]:
    """(query, gallery) decoded, or an `EvaluationError` where no identity is known."""
    if not all(side.has("identity") for side in dataset.test):
        raise EvaluationError(
            f"{dataset.name} has no identities, and scoring needs them: one folder an identity, or a "
            "CSV with the column 'identity'"
        )
    return readable(dataset, size, on_bad)


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


def identities_of(records: Records, known: Records) -> NDArray[np.int64]:
    """(N,) the identities that the same images have among `known`, as numbers; -1 is unknown."""
    identities = {(record.path, record.box): record.identity for record in known}
    truth = (dataclasses.replace(r, identity=identities.get((r.path, r.box))) for r in records)
    (pids,) = codes("identity", Records(tuple(truth)))
    return pids


def agreement_with_truth(labels: Labels, records: Records, known: Records) -> Agreement | None:
    """Pseudo labels of records against the identities that the same images have among `known`.

    None where no identity is known.
    """
    pids = identities_of(records, known)
    return compare_labels(labels, pids) if bool(np.any(pids >= 0)) else None
