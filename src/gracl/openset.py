"""Scores where some queries show individuals that the gallery does not hold.

A query is answered by the identity of its nearest gallery image, or by `NEW_INDIVIDUAL` where that
image is not similar enough. A query is *known* where the gallery holds a valid match of it (see
`gracl.metrics.has_match`), else it is *new*.

BAKS and BAUS are those of AnimalCLEF 2025 (https://www.imageclef.org/AnimalCLEF2025, "Evaluation
process"): accuracies balanced over individuals, of which the geometric mean is taken, so that calling
everything new scores 0 and not 50 %. The challenge takes that mean for each species and averages the
species; here it is of what is given, so call once a species.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gracl.clustering import Labels, outliers_as_singletons
from gracl.disk import put
from gracl.errors import DataError, EvaluationError, ShapeError
from gracl.links import number_by_first
from gracl.metrics import Codes, Side, Similarity, has_match, junk
from gracl.neighbors import MEMORY

NEW_INDIVIDUAL = "new_individual"
"""What AnimalCLEF calls the answer that the gallery does not hold the individual."""


@dataclass(frozen=True)
class Nearest:
    """Of each query, the gallery image that answers it."""

    rows: Codes
    """(Q,) its place in the gallery; -1 where no image may answer."""
    similarities: NDArray[np.float64]
    """(Q,) how near it is; -inf where no image may answer."""


@dataclass(frozen=True)
class OpenSetScores:
    """Scores in [0, 1] over the queries whose identity is known to the scorer."""

    auroc: float
    """Chance that a new individual's query is less similar to its nearest gallery image than a known
    one's is; a tie counts half. No threshold has a part in it."""
    baks: float
    """Balanced accuracy on known samples: the mean over known individuals of the share of their queries
    that are given the right identity."""
    baus: float
    """Balanced accuracy on unknown samples: the mean over new individuals of the share of their queries
    that are called new."""
    protocol: str
    """What was junk, by its versioned name."""
    threshold: float
    """Similarity from which a query is taken for a known individual."""
    n_known: int
    """Queries of known individuals."""
    n_new: int
    """Queries of new ones."""

    @property
    def geometric_mean(self) -> float:
        """Of BAKS and BAUS: AnimalCLEF's score."""
        return math.sqrt(self.baks * self.baus)

    def __str__(self) -> str:
        return (
            f"BAKS {self.baks:.1%}  BAUS {self.baus:.1%}  geometric mean {self.geometric_mean:.1%}  "
            f"AUROC {self.auroc:.1%}  [protocol {self.protocol}, {self.n_known} queries of known "
            f"individuals, {self.n_new} of new ones, threshold {self.threshold:.3f}]"
        )


def nearest(similarity: Similarity, queries: Side, gallery: Side, *, memory: int = MEMORY) -> Nearest:
    """The nearest gallery image of each query, but for junk and images of unknown identity.

    Args:
        similarity: gives the similarities of a block of queries, see `gracl.metrics.cosine`.
        queries, gallery: what is known of the Q queries and G gallery images.
        memory: bytes that one block of similarities may take; the result does not depend on it.

    Where several are as near, it is the first of them.

    >>> sides = Side(np.array([5, 6]), np.array([0, 1])), Side(np.array([7, 5]), np.array([2, 3]))
    >>> nearest(lambda start, stop: torch.tensor([[0.1, 0.9], [0.8, 0.2]])[start:stop], *sides).rows
    array([1, 0])
    """
    unnamed = torch.from_numpy(gallery.pids < 0)
    rows, values = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for at, block in _blocks(similarity, len(queries), len(gallery), memory):
        block = _hide(block, torch.from_numpy(junk(queries, gallery, at)) | unnamed)
        best, column = _largest(block)
        rows.append(np.where(best > -np.inf, column, -1))
        values.append(best)
    return Nearest(np.concatenate(rows), np.concatenate(values))


def score_open_set(
    found: Nearest, queries: Side, gallery: Side, *, threshold: float, protocol: str = "any@1"
) -> OpenSetScores:
    """BAKS, BAUS and AUROC of answers; queries of unknown identity are left out.

    Args:
        found: from `nearest`, of these queries in this gallery.
        queries, gallery: true identities.
        threshold: similarity from which a query is taken for a known individual. `choose_threshold`
            finds one without a look at the queries.
        protocol: the versioned name of the rule that `queries` and `gallery` were made by.

    Raises:
        EvaluationError: there is no query of a known individual, or none of a new one.

    >>> queries = Side(np.array([5, 6]), np.array([0, 1]))
    >>> gallery = Side(np.array([7, 5]), np.array([2, 3]))
    >>> found = Nearest(np.array([1, 0]), np.array([0.9, 0.3]))
    >>> print(score_open_set(found, queries, gallery, threshold=0.5))
    BAKS 100.0%  BAUS 100.0%  geometric mean 100.0%  AUROC 100.0%
    [protocol any@1, 1 queries of known individuals, 1 of new ones, threshold 0.500]
    """
    from sklearn.metrics import roc_auc_score

    named = queries.pids >= 0
    known = has_match(queries, gallery) & named
    new = named & ~known
    if not (known.any() and new.any()):
        raise EvaluationError(
            f"open-set scores need queries of known and of new individuals; found {known.sum()} and "
            f"{new.sum()}. Take some identities out of the gallery, or use `gracl evaluate`"
        )
    accepted = (found.similarities >= threshold) & (found.rows >= 0)
    right = accepted & (gallery.pids[found.rows] == queries.pids)
    # Where nothing may answer, any number below all similarities will do: the AUROC asks for ranks.
    similarities = np.where(found.rows >= 0, found.similarities, np.finfo(np.float64).min)
    return OpenSetScores(
        auroc=float(roc_auc_score(known[named], similarities[named])),
        baks=_balanced(right[known], queries.pids[known]),
        baus=_balanced(~accepted[new], queries.pids[new]),
        protocol=protocol,
        threshold=threshold,
        n_known=int(known.sum()),
        n_new=int(new.sum()),
    )


def choose_threshold(similarity: Similarity, gallery: Side, *, memory: int = MEMORY) -> float:
    """The threshold that would serve best were the gallery's own images the queries.

    No label of a query is seen. Each gallery image of known identity is asked for twice: as a known
    individual, among all other images; and as a new one, among the images of others only. The threshold
    with the largest geometric mean of BAKS and BAUS is taken, the lowest of several as good, midway
    between the two similarities that it separates.

    It suits queries that are as unlike the gallery as the gallery's matches are unlike each other.
    Where these are frames of one burst and the queries are not, name the scenes in `gallery`, so that
    only a match from another scene counts.

    Args:
        similarity: of the gallery with itself.
        gallery: what is known of its G images; those of unknown identity have no part.
        memory: bytes that one block of similarities may take.

    Raises:
        EvaluationError: fewer than two identities, or none that has a match in the gallery.

    >>> features = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]]))
    >>> side = Side(np.array([0, 0, 1, 1]), np.arange(4))
    >>> round(choose_threshold(lambda start, stop: features[start:stop] @ features.T, side), 2)
    0.6
    """
    named = gallery.pids >= 0
    own, other = _own_and_other(similarity, gallery, memory)
    own, other, pids = own[named], other[named], gallery.pids[named]
    known = own > -np.inf
    if len(np.unique(pids)) < 2 or not known.any():
        raise EvaluationError(
            f"no threshold can be learnt from a gallery of {len(np.unique(pids))} identities, of whose "
            f"images {known.sum()} have a match among the others; expected two identities, one of them "
            "seen twice. Give a threshold"
        )
    weight = np.zeros(len(pids))
    weight[known] = _share_of_identity(pids[known])
    weight[own <= other] = 0  # answered by another's image, whatever the threshold
    values = np.unique(np.concatenate([own[weight > 0], other[other > -np.inf]]))
    between = (values[1:] + values[:-1]) / 2 if len(values) > 1 else values
    baks = weight.sum() - _weight_below(own, weight, between)
    baus = _weight_below(other, _share_of_identity(pids), between)
    return float(between[np.argmax(baks * baus)])


def answers(found: Nearest, identities: Sequence[str | None], *, threshold: float) -> list[str]:
    """The identity that each query is given, or `NEW_INDIVIDUAL`.

    Args:
        found: the nearest gallery image of each query.
        identities: of the gallery images, as in `Records.values("identity")`.
        threshold: similarity from which a query is taken for a known individual.

    >>> answers(Nearest(np.array([1, 0]), np.array([0.9, 0.3])), ["Ben", "Ada"], threshold=0.5)
    ['Ada', 'new_individual']
    """
    pairs = zip(found.rows.tolist(), found.similarities.tolist(), strict=True)
    return [
        (identities[row] or NEW_INDIVIDUAL) if row >= 0 and value >= threshold else NEW_INDIVIDUAL
        for row, value in pairs
    ]


def write_answers(path: str | Path, image_ids: Sequence[object], identities: Sequence[str]) -> None:
    """A table `image_id,identity` as AnimalCLEF 2025 takes it, in the order given.

    Raises:
        ShapeError: not one identity an image.
        DataError: an image stands twice, or the file cannot be written.
    """
    _write(Path(path), ("image_id", "identity"), image_ids, identities)


def write_clusters(
    path: str | Path, image_ids: Sequence[object], labels: Labels, *, prefix: str = "cluster"
) -> None:
    """A table `image_id,cluster` as AnimalCLEF 2026 takes it, in the order given.

    Every image must be in a cluster there, so each outlier becomes one of its own.

    Args:
        path: the file.
        image_ids: of the images, as the organisers number them.
        labels: (N,) pseudo labels.
        prefix: clusters are named `<prefix>_0`, `<prefix>_1`, ... Give each species its own, such as
            "cluster_LynxID2025", before tables are put together.

    Raises:
        ShapeError: not one label an image.
        DataError: an image stands twice, or the file cannot be written.
    """
    names = [f"{prefix}_{number}" for number in number_by_first(outliers_as_singletons(labels))]
    _write(Path(path), ("image_id", "cluster"), image_ids, names)


# -- the parts ------------------------------------------------------------------------------------


def _blocks(
    similarity: Similarity, n: int, n_gallery: int, memory: int
) -> Iterable[tuple[Codes, Tensor]]:
    """(rows, their similarities), a block at a time; refuses NaN, which is neither near nor far."""
    step = max(1, memory // (4 * max(1, n_gallery)))
    for start in range(0, n, step):
        rows = np.arange(start, min(n, start + step))
        block = similarity(start, start + len(rows)).cpu()
        if torch.isnan(block).any():
            raise ShapeError(
                f"similarities of queries {start} to {start + len(rows) - 1} hold NaN; expected "
                "numbers. Check the model's weights and the images for NaN features"
            )
        yield rows, block


def _hide(block: Tensor, what: Tensor) -> Tensor:
    return block.masked_fill(what, -torch.inf)


def _largest(block: Tensor) -> tuple[NDArray[np.float64], Codes]:
    """Each row's largest value, and the first column that holds it; (-inf, 0) where there is none."""
    if not block.shape[1]:
        return np.full(len(block), -np.inf), np.zeros(len(block), dtype=np.int64)
    values = block.double().numpy()
    columns = values.argmax(axis=1)
    return values[np.arange(len(values)), columns], columns


def _own_and_other(
    similarity: Similarity, gallery: Side, memory: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each image: the largest similarity to a match, and to an image of another known identity."""
    pids = torch.from_numpy(gallery.pids)
    own, other = [np.zeros(0)], [np.zeros(0)]
    for rows, block in _blocks(similarity, len(gallery), len(gallery), memory):
        same = pids[rows, None] == pids
        own.append(_largest(_hide(block, ~same | torch.from_numpy(junk(gallery, gallery, rows))))[0])
        other.append(_largest(_hide(block, same | (pids < 0)))[0])
    return np.concatenate(own), np.concatenate(other)


def _share_of_identity(pids: Codes) -> NDArray[np.float64]:
    """Weights that sum to 1, as much for each identity, as much for each of its rows."""
    _, inverse, counts = np.unique(pids, return_inverse=True, return_counts=True)
    return 1 / (len(counts) * counts[inverse])


def _balanced(right: NDArray[np.bool_], pids: Codes) -> float:
    return float(_share_of_identity(pids)[right].sum())


def _weight_below(
    values: NDArray[np.float64], weights: NDArray[np.float64], limits: NDArray[np.float64]
) -> NDArray[np.float64]:
    """For each limit, the weight of the values below it."""
    order = np.argsort(values)
    sums = np.concatenate([[0.0], np.cumsum(weights[order])])
    found: NDArray[np.float64] = sums[np.searchsorted(values[order], limits, side="left")]
    return found


def _write(path: Path, columns: Sequence[str], ids: Sequence[object], values: Sequence[str]) -> None:
    if len(ids) != len(values):
        raise ShapeError(f"{len(ids)} image ids for {len(values)} rows; expected one a row")
    names = [str(image) for image in ids]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"image_id {twice!r} stands twice; expected every image once")
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows([columns, *zip(names, values, strict=True)])
    put(path, table.getvalue().encode(), DataError, "another file")
