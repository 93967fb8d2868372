"""k-reciprocal re-ranking streamed over queries, against the dense loops.

    python benchmarks/rerank.py [--sizes small market msmt17] [--dense small market]

Drawn features (`features.py`, D = 2048) as query and gallery; k1 = 20, k2 = 6, lambda 0.3; ranks by
`gracl.metrics.rank`. Each size and road in a process of its own, one thread, CPU seconds, peak
memory above what was resident with the features. The dense loops are `peers.dense_rerank`; at
MSMT17's size one of their matrices alone takes 33 GiB, so only gracl runs there.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"

import argparse
import json
from typing import Any

import numpy as np
import torch

import peers
from features import draw_features
from gracl import metrics
from gracl.metrics import Side, Similarity
from gracl.rerank import k_reciprocal
from measuring import command, in_own_process, measured, save

SIZES = {"small": (800, 3200), "market": (3368, 15913), "msmt17": (11659, 82161)}
K1, K2, LAMBDA = 20, 6, 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[*SIZES])
    parser.add_argument("--dense", nargs="*", choices=SIZES, default=["small", "market"])
    parser.add_argument("--one", nargs=2, metavar=("ROAD", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        road, size = arguments.one
        print(json.dumps(measure(road, *SIZES[size])))
        return
    rows = []
    for size in arguments.sizes:
        row: dict[str, Any] = {"size": size}
        row["gracl"] = in_own_process(__file__, ["--one", "gracl", size])
        if size in arguments.dense:
            row["dense"] = in_own_process(__file__, ["--one", "dense", size])
            if "died" not in row["dense"] | row["gracl"]:
                row["times_faster"] = round(
                    row["dense"]["cpu_seconds"] / row["gracl"]["cpu_seconds"], 1
                )
                row["difference_of_mAP"] = abs(row["dense"]["mAP"] - row["gracl"]["mAP"])
        rows.append(row)
        print(json.dumps(row), flush=True)
        save("rerank", {"command": command(), "threads": 1, "rows": rows})


def measure(road: str, n_queries: int, n_gallery: int) -> dict[str, Any]:
    """Re-ranking and ranks by one road."""
    warm_up()
    features, pids = draw_features(n_queries + n_gallery, spread=1.1)
    cameras = np.random.default_rng(0).integers(0, 6, len(pids))
    sides = [
        Side(pids[part], np.arange(len(pids))[part], cameras[part])
        for part in (slice(n_queries), slice(n_queries, None))
    ]
    queries, gallery = features[:n_queries], features[n_queries:]
    plain = metrics.rank(metrics.cosine(queries, gallery), *sides).scores("cross-camera")
    with measured() as cost:
        if road == "gracl":
            similarity = k_reciprocal(queries, gallery, k1=K1, k2=K2, lambda_value=LAMBDA)
        else:
            similarity = dense(queries, gallery)
        scores = metrics.rank(similarity, *sides).scores("cross-camera re-ranked")
    return {"mAP": scores.mAP, "mAP_before": plain.mAP, **cost.plain()}


def dense(queries: torch.Tensor, gallery: torch.Tensor) -> Similarity:
    """The dense distances, negated."""
    distance = peers.dense_rerank(queries.numpy(), gallery.numpy(), K1, K2, LAMBDA)
    matrix = torch.from_numpy(-distance)
    return lambda start, stop: matrix[start:stop]


def warm_up() -> None:
    """Compiles what is compiled on first use."""
    features, pids = draw_features(5000, dimensions=128)
    side = Side(pids, np.arange(len(pids)))
    metrics.rank(k_reciprocal(features, features, k1=K1, k2=K2), side, side)


if __name__ == "__main__":
    main()
