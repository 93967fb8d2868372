"""Pseudo labels at the price of the matrix product: gracl against the dense loops of the field.

    python benchmarks/labels.py [--sizes 4000 12936 32621 100000] [--dense 4000 12936 32621]

For each size, on drawn features (`features.py`, D = 2048, k1 = 30, k2 = 6, eps 0.6), each in a
process of its own and on one thread:

* bare: the blocked product of all rows with the k largest of each, and nothing else;
* search: `gracl.neighbors.search`, which chooses its road;
* rest: `jaccard_from_neighbors` and `cluster`, from the neighbours to the labels;
* dense: the same rest by `peers.dense_jaccard` and scikit-learn's DBSCAN on the dense matrix. Its
  neighbours are given, too.

Seconds are CPU seconds; the bare product is timed before and after the rest, and the lesser counts.
Memory is the peak above what was resident when the stage began, the rest being one stage. The
exponents are fitted to gracl's figures over all sizes.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN
from torch import Tensor

import peers
from features import draw_features
from gracl import neighbors
from gracl.clustering import cluster
from gracl.jaccard import jaccard_from_neighbors
from measuring import command, fitted_exponent, in_own_process, measured, save

K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.6, 4
FOLDER = Path(tempfile.gettempdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4000, 12936, 32621, 100_000])
    parser.add_argument("--dense", type=int, nargs="*", default=[4000, 12936, 32621])
    parser.add_argument("--one", nargs=2, metavar=("ROAD", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        warm_up()
        road, size = arguments.one
        print(json.dumps({"gracl": by_gracl, "dense": by_dense}[road](int(size))))
        return
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes:
        row = {"n": size, **in_own_process(__file__, ["--one", "gracl", str(size)])}
        if size in arguments.dense:
            row["dense"] = in_own_process(__file__, ["--one", "dense", str(size)])
            compare(row)
        kept(size, os.getpid()).unlink(missing_ok=True)
        rows.append(row)
        print(json.dumps(row), flush=True)
        content: dict[str, Any] = {"command": command(), "threads": 1, "rows": rows}
        save("labels", content | ({"exponents": exponents(rows)} if len(rows) > 2 else {}))


def by_gracl(size: int) -> dict[str, Any]:
    """Bare product, search and rest; leaves its labels for the comparison."""
    features, _ = draw_features(size)
    with measured() as before:
        bare_product(features)
    with measured() as search:
        found = neighbors.search(features, K1)
    with measured() as rest:
        distance = jaccard_from_neighbors(features, found, k1=K1, k2=K2)
        between = time.process_time()
        labels = cluster(distance, eps=EPS, min_samples=MIN_SAMPLES)
        clustering = time.process_time() - between
    with measured() as after:
        bare_product(features)
    np.savez(kept(size, os.getppid()), labels=labels, ranks=found.indices.numpy())
    bare = min(before, after, key=lambda cost: cost.cpu_seconds)
    bare.cpu_seconds *= size / bare_rows(size)
    bare.seconds *= size / bare_rows(size)
    return {
        "bare": bare.plain(),
        "search": search.plain(),
        "rest": rest.plain(),
        "clustering_cpu_seconds": round(clustering, 3),
        "search_and_rest_to_bare": round((search.cpu_seconds + rest.cpu_seconds) / bare.cpu_seconds, 3),
        "stored_a_row": round(distance.nnz / size, 1),
        "clusters": int(labels.max()) + 1,
        "outlier_share": round(float((labels < 0).mean()), 4),
    }


def by_dense(size: int) -> dict[str, Any]:
    """The loops, given the neighbours that gracl found."""
    features = draw_features(size)[0].numpy()
    ours = np.load(kept(size, os.getppid()))
    ranks: NDArray[np.int64] = ours["ranks"]
    with measured() as rest:
        distance = peers.dense_jaccard(features, ranks, K1, K2)
        between = time.process_time()
        found = DBSCAN(eps=EPS, min_samples=MIN_SAMPLES, metric="precomputed").fit_predict(distance)
        clustering = time.process_time() - between
    return {
        "rest": rest.plain(),
        "clustering_cpu_seconds": round(clustering, 3),
        "same_labels": bool(np.array_equal(found, ours["labels"])),
        "rows_labelled_otherwise": int((found != ours["labels"]).sum()),
    }


def bare_rows(size: int) -> int:
    """Rows of the bare product: all, or of a large set so many that the seconds can be scaled."""
    return size if size <= 33_000 else 8192


def bare_product(features: Tensor) -> None:
    """What no exact search by blocks can do without."""
    for _, block in neighbors.similarity_blocks(features[: bare_rows(len(features))], features):
        torch.topk(block, K1, dim=1)


def compare(row: dict[str, Any]) -> None:
    """How many times faster and smaller."""
    if "died" in row or "died" in row["dense"]:
        return
    for name, key in (("times_faster", "cpu_seconds"), ("times_smaller", "peak_gib_above_start")):
        row[name] = round(row["dense"]["rest"][key] / max(0.001, row["rest"][key]), 1)


def exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of seconds and memory over the number of images."""
    whole = [row for row in rows if "died" not in row]
    sizes = [float(row["n"]) for row in whole]
    return {
        "search_cpu_seconds": fitted_exponent(sizes, [r["search"]["cpu_seconds"] for r in whole]),
        "rest_cpu_seconds": fitted_exponent(sizes, [r["rest"]["cpu_seconds"] for r in whole]),
        "rest_memory": fitted_exponent(
            sizes, [max(0.001, r["rest"]["peak_gib_above_start"]) for r in whole]
        ),
    }


def kept(size: int, parent: int) -> Path:
    """Where labels and neighbours lie between the two processes."""
    return FOLDER / f"gracl-labels-{parent}-{size}.npz"


def warm_up() -> None:
    """Compiles what is compiled on first use."""
    features, _ = draw_features(5000, dimensions=128)
    found = neighbors.search(features, K1, algorithm="pruned")
    cluster(jaccard_from_neighbors(features, found, k1=K1, k2=K2), eps=EPS)


if __name__ == "__main__":
    main()
