"""How good the label-free suggestion of `gracl cluster --sweep` is, where the truth is known.

    python benchmarks/sweep.py [--real NAME=FOLDER ... --weights FILE]

For each set of features: the ARI of the clusters at the suggested eps, at the default 0.6, and at
the best eps of the grid, which only the truth tells. Drawn features of rising difficulty, and
features of real images by a MobileNetV2 with the given weights. The rule was chosen with the truth
of these sets in view (the alternatives tried were the greatest stability, silhouette, modularity
and number of clusters), so this shows how it behaves and is no test of it.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import gracl
from features import draw_features
from gracl.sweep import GRID, sweep_eps
from measuring import describe
from search import every_image, extracted

RESULTS = Path(__file__).parent / "results" / "sweep.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name, features, pids in cases(arguments.real, arguments.weights):
        for k1 in (20, 30, 60):
            rows.append({"features": name, "n": len(features), "k1": k1, **judged(features, pids, k1)})
            print(rows[-1], flush=True)
    result = {
        **describe(),
        "command": "python benchmarks/sweep.py --real NAME=FOLDER ... --weights FILE",
        "grid": list(GRID),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


def cases(real: list[str], weights: Path) -> Iterator[tuple[str, Tensor, NDArray[np.int64]]]:
    """Name, features, true identities."""
    for spread in (0.7, 1.1, 1.5, 2.0):
        yield f"drawn, spread {spread}", *draw_features(4000, spread=spread)
    for name, _, folder in (entry.partition("=") for entry in real):
        dataset = gracl.load_dataset(folder)
        store = gracl.open_store(every_image(dataset), size=(128, 128))
        names = store.records.values("identity")
        number = {name: place for place, name in enumerate(sorted({n for n in names if n}))}
        pids = np.array([number.get(name or "", -1) for name in names])
        yield f"real {name}", extracted(Path(folder), weights), pids


def judged(features: Tensor, pids: NDArray[np.int64], k1: int) -> dict[str, Any]:
    """ARI at three choices of eps."""
    found = sweep_eps(gracl.jaccard_distance(features, k1=k1), min_samples=4)
    ari = {point.eps: gracl.compare_labels(point.labels, pids).ari for point in found.points}
    best = max(ari, key=lambda eps: ari[eps])
    suggested = found.suggestion
    return {
        "suggested_eps": None if suggested is None else suggested.eps,
        "suggested_ari": None if suggested is None else round(ari[suggested.eps], 3),
        "default_ari": round(ari[0.6], 3),
        "best_eps": best,
        "best_ari": round(ari[best], 3),
    }


if __name__ == "__main__":
    main()
