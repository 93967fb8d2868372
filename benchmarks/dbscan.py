"""DBSCAN by connected components over core points, against scikit-learn's.

    python benchmarks/dbscan.py [--sizes 4000 12936 32621]

The Jaccard graph of drawn features (`features.py`, k1 = 30, k2 = 6), eps 0.6, four samples, one thread;
scikit-learn is given the dense matrix, as the field does, and the sparse one. Each size and road in a
process of its own; CPU seconds, the least of three runs of each road.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"

import argparse
import hashlib
import json
import warnings
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.cluster import DBSCAN

from features import draw_features
from gracl.clustering import cluster
from gracl.jaccard import jaccard_distance
from measuring import command, in_own_process, repeated, save

EPS, MIN_SAMPLES = 0.6, 4
ROADS = ("gracl", "sparse", "dense")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4000, 12936, 32621])
    parser.add_argument("--one", nargs=2, metavar=("ROAD", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        road, size = arguments.one
        print(json.dumps(measure(road, int(size))))
        return
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes:
        row: dict[str, Any] = {"n": size}
        for road in ROADS:
            row[road] = in_own_process(__file__, ["--one", road, str(size)])
            if road != "gracl" and "died" not in row[road] | row["gracl"]:
                ratio = row[road]["cpu_seconds"] / row["gracl"]["cpu_seconds"]
                row[f"times_faster_than_{road}"] = round(ratio, 1)
                row[f"same_labels_as_{road}"] = row[road]["labels"] == row["gracl"]["labels"]
        rows.append(row)
        print(json.dumps(row), flush=True)
        save("dbscan", {"command": command(), "threads": 1, "rows": rows})


def measure(road: str, size: int) -> dict[str, Any]:
    """Labels by one road; a digest of them tells whether two roads agree."""
    distance = jaccard_distance(draw_features(size)[0])
    stored = distance.nnz
    if road == "gracl":
        labels, cost = repeated(lambda: cluster(distance, eps=EPS, min_samples=MIN_SAMPLES))
    else:
        matrix = sparse.csr_matrix(distance) if road == "sparse" else densified(distance)
        estimator = DBSCAN(eps=EPS, min_samples=MIN_SAMPLES, metric="precomputed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it sorts each row by distance, and says so
            labels, cost = repeated(lambda: estimator.fit_predict(matrix))
    return {
        **cost.plain(),
        "stored_a_row": round(stored / size, 1),
        "clusters": int(labels.max()) + 1,
        "labels": hashlib.sha256(labels.astype(np.int64).tobytes()).hexdigest()[:16],
    }


def densified(distance: sparse.csr_array) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Pairs that are not stored have distance 1."""
    n = distance.shape[0]
    dense = np.ones((n, n), dtype=np.float32)
    dense[np.repeat(np.arange(n), np.diff(distance.indptr)), distance.indices] = distance.data
    return dense


if __name__ == "__main__":
    main()
