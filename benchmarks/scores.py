"""Retrieval scores by counting, against a compiled sort a query.

    python benchmarks/scores.py [--sizes market msmt17]

Drawn features (`features.py`, D = 2048) as query and gallery of Market-1501's and MSMT17's size,
six cameras, protocol cross-camera. The similarities are the same in both roads and their product is
timed apart; "ranking" is all the rest, on one thread, CPU seconds. The sort is
`peers.sorted_scores`, on blocks of queries: MSMT17's whole matrix and its order would take more
memory than there is. A sample of queries is scored by the definition, too: the same float32
similarities (up to the product's rounding), summed in float64.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import peers
from features import draw_features
from gracl import metrics
from gracl.metrics import Side
from measuring import command, in_own_process, measured, save

SIZES = {"small": (500, 2000), "market": (3368, 15913), "msmt17": (11659, 82161)}
SAMPLE = 50
BLOCK = 800


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["market", "msmt17"])
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--one", choices=SIZES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        print(json.dumps(compare(*SIZES[arguments.one], arguments.dimensions)))
        return
    width = ["--dimensions", str(arguments.dimensions)]
    rows = []
    for size in arguments.sizes:
        rows.append({"size": size, **in_own_process(__file__, ["--one", size, *width])})
        print(json.dumps(rows[-1]), flush=True)
        save("scores", {"command": command(), "threads": 1, "rows": rows})


class Timed:
    """Cosine similarities that know how long their products took."""

    def __init__(self, queries: Tensor, gallery: Tensor) -> None:
        self.queries, self.gallery, self.cpu_seconds = queries, gallery, 0.0

    def __call__(self, start: int, stop: int) -> Tensor:
        """A block of queries."""
        began = time.process_time()
        block = self.queries[start:stop] @ self.gallery.T
        self.cpu_seconds += time.process_time() - began
        return block


def compare(n_queries: int, n_gallery: int, dimensions: int) -> dict[str, Any]:
    """Both roads on the same sets, gracl first."""
    warm_up()
    features, pids = draw_features(n_queries + n_gallery, dimensions=dimensions, spread=1.1)
    cameras = np.random.default_rng(0).integers(0, 6, len(pids))
    queries, gallery = (
        Side(pids[part], np.arange(len(pids))[part], cameras[part])
        for part in (slice(n_queries), slice(n_queries, None))
    )
    similarity = Timed(features[:n_queries], features[n_queries:])
    with measured() as ours:
        ranking = metrics.rank(similarity, queries, gallery)
    product = similarity.cpu_seconds
    with measured() as with_tpr:
        rated = metrics.rank(similarity, queries, gallery, fprs=(1e-4, 1e-3, 1e-2))
    tpr_product = similarity.cpu_seconds - product
    scores = ranking.scores("cross-camera")
    sorting, precision, first = by_sorting(similarity, queries, gallery)
    matched = first > 0
    ranking_seconds = ours.cpu_seconds - product
    return {
        "queries": n_queries,
        "gallery": n_gallery,
        "dimensions": dimensions,
        "mAP": round(scores.mAP, 6),
        "R1": round(scores.cmc[1], 6),
        "product_cpu_seconds": round(product, 2),
        "ranking_cpu_seconds": round(ranking_seconds, 3),
        "ranking_with_tpr_cpu_seconds": round(with_tpr.cpu_seconds - tpr_product, 3),
        "tpr": {f"{rate:g}": round(share, 6) for rate, share in rated.true_positive_rates.items()},
        "sorting_cpu_seconds": round(sorting, 2),
        "times_faster": round(sorting / ranking_seconds, 1),
        "peak_gib_above_start": round(ours.peak_gib, 3),
        "difference_of_mAP_to_sorting": abs(float(precision[matched].mean()) - scores.mAP),
        "difference_of_R1_to_sorting": abs(float((first[matched] == 1).mean()) - scores.cmc[1]),
        "largest_difference_of_AP_to_definition": by_definition(similarity, queries, gallery, ranking),
    }


def by_sorting(
    similarity: Timed, queries: Side, gallery: Side
) -> tuple[float, NDArray[np.float64], NDArray[np.int64]]:
    """CPU seconds of the sorts alone, average precisions, ranks of first matches."""
    assert queries.scenes is not None
    assert gallery.scenes is not None
    seconds, precisions, firsts = 0.0, [], []
    for start in range(0, len(queries), BLOCK):
        part = slice(start, start + BLOCK)
        distance = 1 - similarity(start, start + BLOCK).numpy()
        began = time.process_time()
        precision, first = peers.sorted_scores(
            distance, queries.pids[part], gallery.pids, queries.scenes[part], gallery.scenes
        )
        seconds += time.process_time() - began
        precisions.append(precision)
        firsts.append(first)
    return seconds, np.concatenate(precisions), np.concatenate(firsts)


def by_definition(similarity: Timed, queries: Side, gallery: Side, ranking: metrics.Ranking) -> float:
    """Largest difference of average precision over a sample of queries."""
    assert queries.scenes is not None
    assert gallery.scenes is not None
    worst = 0.0
    place = np.cumsum(ranking.has_match) - 1
    sample = np.random.default_rng(1).choice(np.flatnonzero(ranking.has_match), SAMPLE, replace=False)
    for q in sample.tolist():
        row = similarity(q, q + 1)[0].numpy()
        same = gallery.pids == queries.pids[q]
        kept = ~(same & (gallery.scenes == queries.scenes[q]))
        right = same[kept][np.argsort(-row[kept], kind="stable")]
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        worst = max(worst, abs(precision[right].mean() - ranking.average_precision[place[q]]))
    return float(worst)


def warm_up() -> None:
    """Compiles what is compiled on first use."""
    side = Side(np.arange(40) % 5, np.arange(40), np.arange(40) % 3)
    features = torch.nn.functional.normalize(torch.randn(40, 8))
    similarity = Timed(features, features)
    metrics.rank(similarity, side, side)
    by_sorting(similarity, side, side)


if __name__ == "__main__":
    main()
