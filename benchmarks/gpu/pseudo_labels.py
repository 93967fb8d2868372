"""Labels on a GPU, search included, up to a million images.

    python benchmarks/gpu/pseudo_labels.py [--sizes 12936 32621 100000 1000000] [--device cuda]

Drawn features (`features.py`, D = 2048; 512 for a million, whose features would take 8 GiB else),
k1 = 30, k2 = 6, eps 0.6. Wall seconds, the device waited for after each stage, the second of two runs.
Up to 32,621 images the labels are compared with those of the CPU. `--device cpu` tries the script out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # what all benchmarks share lies beside this folder

from features import draw_features
from gracl import neighbors
from gracl.agreement import compare_labels
from gracl.clustering import Labels, cluster
from gracl.jaccard import jaccard_from_neighbors
from measuring import fitted_exponent, save

K1, K2, EPS = 30, 6, 0.6
COMPARED_UP_TO = 32_621


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[12936, 32621, 100_000, 1_000_000])
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes:
        features, _ = draw_features(size, dimensions=2048 if size < 1_000_000 else 512)
        labelled(features[:5000].to(device))
        labels, row = labelled(features.to(device))
        if size <= COMPARED_UP_TO:
            expected, _ = labelled(features)
            row["rows_labelled_otherwise_by_the_cpu"] = int((labels != expected).sum())
            row["ari_with_the_cpu"] = compare_labels(labels, expected).ari
        rows.append({"n": size, "dimensions": features.shape[1], **row})
        print(json.dumps(rows[-1]), flush=True)
        content: dict[str, Any] = {"command": "python benchmarks/gpu/pseudo_labels.py", "device": name}
        content["rows"] = rows
        if len(rows) > 2:
            sizes = [float(row["n"]) for row in rows]
            content["search_exponent"] = fitted_exponent(sizes, [r["search"] for r in rows])
        save("gpu_labels" if device.type == "cuda" else "tried_on_cpu_labels", content)


def labelled(features: torch.Tensor) -> tuple[Labels, dict[str, Any]]:
    """Labels, and seconds by stage."""
    seconds: dict[str, Any] = {}

    def timed(stage: str, action: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = action()
        if features.is_cuda:
            torch.cuda.synchronize(features.device)
        seconds[stage] = round(time.perf_counter() - start, 3)
        return result

    if features.is_cuda:
        torch.cuda.reset_peak_memory_stats(features.device)
    found = timed("search", lambda: neighbors.search(features, K1, memory=2**30))
    distance = timed("jaccard", lambda: jaccard_from_neighbors(features, found, k1=K1, k2=K2))
    labels = timed("cluster", lambda: cluster(distance, eps=EPS, min_samples=4))
    seconds["clusters"] = int(labels.max()) + 1
    if features.is_cuda:
        peak = torch.cuda.max_memory_allocated(features.device) / 2**30
        seconds["peak_gib_on_the_device"] = round(peak, 2)
    return labels, seconds


if __name__ == "__main__":
    main()
