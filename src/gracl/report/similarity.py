"""How similar images of one individual are, and images of two: the overlap that no threshold mends.

Letters: Q queries, G gallery images, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gracl.metrics import Side, junk
from gracl.report.figures import Chart, Series, number, step_chart

BINS = 2000
"""Of similarities in [-1, 1]: fine enough to read quantiles from."""
DRAWN_BINS = 80
"""Of the part that is drawn, at most."""
PAIRS = 20_000_000
"""Pairs that are looked at; where there are more, fewer queries are drawn."""
BLOCK = 4_000_000
"""Similarities at a time."""
SHARES = (0.01, 0.05, 0.5, 0.95, 0.99)
"""Quantiles that are told."""


@dataclass(frozen=True)
class Distributions:
    """Counts of pairs by their similarity."""

    genuine: NDArray[np.int64]
    """(B,) of pairs of one individual that the protocol accepts."""
    impostor: NDArray[np.int64]
    """(B,) of pairs of two."""
    n_searched: int
    """Queries that were looked at."""


def distributions(
    query: Tensor, gallery: Tensor, sides: tuple[Side, Side], *, seed: int, pairs: int = PAIRS
) -> Distributions:
    """Counts the pairs of queries with all gallery images; junk is left out. Of many, some are drawn.

    A pair of which one identity is unknown is of neither kind.

    Args:
        query, gallery: (Q, D) and (G, D) unit rows.
        sides: what is known of both.
        seed: of the draw.
        pairs: at most, about.

    >>> side = Side(np.array([0, 0, 1]), np.arange(3))
    >>> rows = torch.eye(2)[[0, 0, 1]]
    >>> found = distributions(rows, rows, (side, side), seed=0)
    >>> int(found.genuine.sum()), int(found.impostor.sum())
    (2, 4)
    """
    queries, held = sides
    asked = np.flatnonzero(queries.pids >= 0)
    most = max(1, pairs // max(1, len(held)))
    rows = np.sort(np.random.default_rng(seed).permutation(asked)[:most])
    genuine, impostor = np.zeros(BINS, dtype=np.int64), np.zeros(BINS, dtype=np.int64)
    step = max(1, BLOCK // max(1, len(held)))
    for part in np.split(rows, range(step, len(rows), step)):
        block = (query[torch.from_numpy(part).to(query.device)] @ gallery.T).float().cpu().numpy()
        bins = np.clip(((block + 1) * (BINS / 2)).astype(np.int64), 0, BINS - 1)
        valid = ~junk(queries, held, part) & (held.pids >= 0)
        same = queries.pids[part, None] == held.pids
        genuine += np.bincount(bins[valid & same], minlength=BINS)
        impostor += np.bincount(bins[valid & ~same], minlength=BINS)
    return Distributions(genuine, impostor, len(rows))


def draw_similarities(
    found: Distributions, names: Sequence[str], threshold: float | None
) -> Chart | None:
    """Both distributions, each as shares of its own pairs; None where there is no pair.

    Args:
        found: the counts.
        names: of genuine pairs and of impostors, as the page calls them.
        threshold: a calibrated one, drawn upright.
    """
    known = [
        (name, counts)
        for name, counts in zip(names, (found.genuine, found.impostor), strict=True)
        if counts.sum()
    ]
    if not known:
        return None
    seen = np.flatnonzero(sum(counts for _, counts in known))
    merge = max(1, -(-(int(seen[-1]) + 1 - int(seen[0])) // DRAWN_BINS))
    first = int(seen[0]) // merge * merge
    starts = np.arange(first, int(seen[-1]) + 1, merge)
    edges = np.append(starts, starts[-1] + merge) * (2 / BINS) - 1
    series = []
    for name, counts in known:
        padded = np.append(counts, np.zeros(merge, dtype=np.int64))
        shares = np.add.reduceat(padded[first : starts[-1] + merge], starts - first) / counts.sum()
        heights = [*shares.tolist(), 0.0]
        series.append(Series(name, tuple(zip(edges.round(4).tolist(), heights, strict=True))))
    return step_chart(
        "Similarity of pairs",
        series,
        x_label="cosine similarity",
        y_label="share of its pairs",
        rules=[] if threshold is None else [(threshold, "threshold")],
        head=("pairs of", "pairs", *(f"{share:.0%} below" for share in SHARES)),
        rows=[(name, number(int(counts.sum())), *_quantiles(counts)) for name, counts in known],
    )


def _quantiles(counts: NDArray[np.int64]) -> list[str]:
    """The similarity below which so many pairs lie, to the width of a bin."""
    below = np.cumsum(counts) / counts.sum()
    places = np.searchsorted(below, np.array(SHARES) - 1e-12)
    return [f"{(place + 1) * 2 / BINS - 1:.3f}" for place in places.tolist()]
