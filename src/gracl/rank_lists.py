"""Rank lists: queries, and what a model puts first for each, as the scores count it.

Letters: Q queries, G gallery images, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gracl import metrics
from gracl.config import EvaluateConfig
from gracl.data import protocols
from gracl.data.protocols import Protocol
from gracl.data.records import Dataset, Record, Records
from gracl.errors import EvaluationError
from gracl.evaluation import readable
from gracl.extraction import extract
from gracl.metrics import Codes, Ranking, Side
from gracl.models.embedder import Embedder


@dataclass(frozen=True)
class Match:
    """A gallery image in a query's list."""

    record: Record
    right: bool
    """Whether it is of the query's identity."""
    similarity: float


@dataclass(frozen=True)
class RankList:
    """A query and the images that stand first for it, without junk."""

    query: Record
    matches: tuple[Match, ...]


@dataclass(frozen=True, eq=False)
class Searched:
    """Queries and gallery of a data set with the features of both."""

    query: Records
    gallery: Records
    query_features: Tensor
    """(Q, D) unit rows, as those of the gallery."""
    gallery_features: Tensor
    """(G, D); the very same tensor where images search each other."""
    sides: tuple[Side, Side]
    protocol: Protocol
    """What is junk. Nothing is drawn, even if the protocol does."""

    @cached_property
    def ranking(self) -> Ranking:
        """The ranks of all matches of all queries, by cosine."""
        similarity = metrics.cosine(self.query_features, self.gallery_features)
        return metrics.rank(similarity, *self.sides)

    @cached_property
    def able(self) -> Codes:
        """Rows of the queries that have a match."""
        return np.flatnonzero(metrics.has_match(*self.sides))

    def random(self, count: int, *, seed: int = 0) -> Codes:
        """Rows of so many queries that have a match, drawn at random."""
        return np.random.default_rng(seed).permutation(self.able)[:count]

    def hardest(self, count: int) -> Codes:
        """Rows of the queries with the least average precision, the worst first."""
        return self.able[np.argsort(self.ranking.average_precision, kind="stable")[:count]]

    def easiest(self, count: int) -> Codes:
        """Rows of the queries with the greatest average precision, the best first."""
        return self.able[np.argsort(-self.ranking.average_precision, kind="stable")[:count]]

    def average_precision_of(self, row: int) -> float:
        """Of a query that has a match, as the scores count it."""
        return float(self.ranking.average_precision[np.searchsorted(self.able, row)])

    def lists(self, rows: Codes, *, matches: int = 10) -> list[RankList]:
        """The first images for these queries; of equally near ones the wrong stand first.

        Args:
            rows: of the queries.
            matches: images a list, at most; junk is none.
        """
        index = torch.from_numpy(np.asarray(rows, dtype=np.int64))
        features = self.query_features[index.to(self.query_features.device)]
        similarities = (features @ self.gallery_features.T).float().cpu().numpy()
        similarities[metrics.junk(*self.sides, rows)] = -np.inf
        queries, gallery = self.sides
        found = []
        for row, values in zip(rows.tolist(), similarities, strict=True):
            right = (gallery.pids == queries.pids[row]) & (gallery.pids >= 0)
            order = np.lexsort((right, -values))[:matches]
            found.append(RankList(self.query[row], tuple(self._matches(order, values, right))))
        return found

    def _matches(
        self, order: Codes, values: NDArray[np.float32], right: NDArray[np.bool_]
    ) -> Iterable[Match]:
        for at in order.tolist():
            if np.isfinite(values[at]):
                yield Match(self.gallery[at], bool(right[at]), float(values[at]))


def search(
    model: Embedder,
    dataset: Dataset,
    settings: EvaluateConfig | None = None,
    *,
    features: Tensor | None = None,
) -> Searched:
    """Ranks a data set's gallery for its queries, by cosine; what cannot be decoded is left out.

    Args:
        model: whose features are taken.
        dataset: its query and gallery, or its training images where it has neither.
        settings: names the protocol; how scores change the ranking is not looked at.
        features: (N, D) of the training images that can be decoded, where they search each other and
            it is known; extracted if not.

    Raises:
        EvaluationError: no query has a match.
    """
    query, gallery = readable(dataset, model.size)
    name = protocol_of(dataset, query.records, gallery.records, settings or EvaluateConfig())
    sides = protocols.sides(query.records, gallery.records, name)
    if not metrics.has_match(*sides).any():
        raise EvaluationError(f"no query has a match under the protocol '{name}'; nothing to show")
    known = gallery is query and features is not None and len(features) == len(query)
    first = features if known and features is not None else extract(model, query)
    second = first if gallery is query else extract(model, gallery)
    return Searched(query.records, gallery.records, first, second, sides, protocols.find(name))


def protocol_of(dataset: Dataset, query: Records, gallery: Records, settings: EvaluateConfig) -> str:
    """The protocol's name that scores of these images are taken under."""
    if settings.protocol != "auto":
        return str(settings.protocol)
    if dataset.protocol in protocols.BENCHMARKS:
        return dataset.protocol
    return protocols.choose(query, gallery)
