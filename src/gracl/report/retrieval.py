"""What the model finds: rank lists where the truth is known, nearest neighbours where it is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gracl.config import EvaluateConfig
from gracl.data.records import Records
from gracl.links import OUTLIER, Labels
from gracl.metrics import Codes
from gracl.rank_lists import Searched
from gracl.report.album import Album, Shot

QUERIES, MATCHES = 4, 10
"""Lists of each kind, and images of each list."""


@dataclass(frozen=True)
class Found:
    """An image in a list."""

    shot: Shot
    right: bool
    """Of the query's identity; or, where no truth is known, of its cluster."""
    similarity: float


@dataclass(frozen=True)
class Listed:
    """A query's list."""

    query: Shot
    found: tuple[Found, ...]
    words: str
    """What is known of it: its average precision, or its cluster."""


@dataclass(frozen=True)
class Lists:
    """Lists of one kind."""

    title: str
    lists: tuple[Listed, ...]


def rank_lists(searched: Searched, album: Album, *, seed: int) -> list[Lists]:
    """Lists of random queries, and of those with the least and the greatest average precision.

    Args:
        searched: queries and gallery.
        album: where pictures are asked for.
        seed: of the random ones.
    """

    def listed(title: str, rows: Codes) -> Lists:
        lists = searched.lists(rows, matches=MATCHES)
        return Lists(
            title,
            tuple(
                Listed(
                    album.place(one.query),
                    tuple(Found(album.place(m.record), m.right, m.similarity) for m in one.matches),
                    f"AP {searched.average_precision_of(row):.1%}",
                )
                for row, one in zip(rows.tolist(), lists, strict=True)
            ),
        )

    return [
        listed("Queries drawn at random", searched.random(QUERIES, seed=seed)),
        listed("The worst queries", searched.hardest(QUERIES)),
        listed("The best queries", searched.easiest(QUERIES)),
    ]


def neighbours(
    features: Tensor, labels: Labels, records: Records, album: Album, *, seed: int
) -> list[Lists]:
    """The images most similar to some drawn at random.

    Args:
        features: (N, D) unit rows.
        labels: (N,) clusters.
        records: of the N images.
        album: where pictures are asked for.
        seed: of the draw.
    """
    rows = np.random.default_rng(seed).permutation(len(features))[: 2 * QUERIES]
    similarities = features[torch.from_numpy(rows)] @ features.T
    similarities[torch.arange(len(rows)), torch.from_numpy(rows)] = -torch.inf
    lists = []
    for row, values in zip(rows.tolist(), similarities, strict=True):
        nearest = values.argsort(descending=True, stable=True)[: min(MATCHES, len(features) - 1)]
        own = labels[row]
        found = (
            Found(
                album.place(records[at]), bool(own != OUTLIER and labels[at] == own), float(values[at])
            )
            for at in nearest.tolist()
        )
        words = "outlier" if own == OUTLIER else f"cluster {own}"
        lists.append(Listed(album.place(records[row]), tuple(found), words))
    return [Lists("Images drawn at random, and the most similar others", tuple(lists))]


def differences_to_scores(searched: Searched, settings: EvaluateConfig) -> list[str]:
    """What the scores of the run did and its lists do not, in words."""
    said = []
    if settings.rerank or settings.expand:
        said.append(
            "the scores were taken after re-ranking or query expansion, the lists are by cosine"
        )
    if settings.tracklets:
        said.append("the scores are of tracklets, the lists are of single images")
    if searched.protocol.draw is not None:
        said.append(
            f"{searched.protocol} draws its queries and gallery; the lists are of all of both, under "
            "its rule for junk"
        )
    return said
