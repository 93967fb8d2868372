"""Exact search for less than the full product, against the full blocked product with top-k.

    python benchmarks/search.py [--sizes 12936 32621] [--real NAME=FOLDER ... --weights FILE]

Both roads run in the same process on one thread, on the same features: drawn ones (`features.py`)
with the spectrum of re-identification and with a flat one, and, where folders are given, features
of real images by a MobileNetV2 with the given weights. CPU seconds; gracl's product is timed before
and after the other road, and the lesser time counts. A row is "different" where its neighbours
differ; similarities show whether that is more than a tie. The full product is gracl's own road
(whole rows, by blocks) and the same in small tiles; the faster counts. `auto` says which road
`gracl.neighbors.search` takes. Also measured: the spectrum of the real features, which the drawn
ones imitate.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gracl
from features import draw_features
from gracl import _search_pruned, neighbors
from measuring import describe

K = 30
RESULTS = Path(__file__).parent / "results" / "search.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4000, 12936, 32621])
    parser.add_argument("--real", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases: dict[str, Callable[[], Tensor]] = {}
    for size in arguments.sizes:
        cases[f"drawn {size}"] = lambda n=size: draw_features(n)[0]  # type: ignore[misc]
    flat = min(arguments.sizes, key=lambda n: abs(n - 12936))
    cases[f"drawn {flat}, flat spectrum"] = lambda: draw_features(flat, decay=0.0)[0]
    for name, _, folder in (entry.partition("=") for entry in arguments.real):
        cases[f"real {name}"] = lambda f=folder: extracted(Path(f), arguments.weights)  # type: ignore[misc]
    warm_up()
    rows: list[dict[str, Any]] = []
    for name, draw in cases.items():
        features = draw()
        rows.append({"features": name, **compare(features), **spectrum(features)})
        print(rows[-1], flush=True)
        result = {
            **describe(),
            "command": "python benchmarks/search.py --real NAME=FOLDER ... --weights FILE",
            "threads": 1,
            "k": K,
            "rows": rows,
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


def compare(features: Tensor) -> dict[str, Any]:
    """Both roads on the same features."""
    first, product = timed(lambda: neighbors.search(features, K, algorithm="product"))
    planning, plan = timed(lambda: _search_pruned.plan(features, K))
    pruned_seconds, pruned = timed(lambda: neighbors.search(features, K, algorithm="pruned"))
    last, _ = timed(lambda: neighbors.search(features, K, algorithm="product"))
    tiled, _ = timed(lambda: product_by_tiles(features))
    seconds = min(first, last, tiled)
    forecast = _search_pruned.plan(features, K, always=True)
    assert forecast is not None
    return {
        "n": len(features),
        "dimensions": features.shape[1],
        "auto": "product" if plan is None else "pruned",
        "product_seconds": round(min(first, last), 2),
        "tiled_product_seconds": round(tiled, 2),
        "pruned_seconds": round(pruned_seconds, 2),
        "planning_seconds": round(planning, 2),
        "pruned_to_best_product": round(pruned_seconds / seconds, 3),
        "directions": forecast.directions.shape[1],
        "survivors_a_row": round(forecast.survivors, 1),
        "rows_different": int((pruned.indices != product.indices).any(dim=1).sum()),
        "largest_difference_of_similarity": float(
            (pruned.similarities - product.similarities).abs().max()
        ),
        "bfloat16": _search_pruned.bfloat16_pays(),
    }


def product_by_tiles(features: Tensor, side: int = 2048) -> None:
    """The product and its top-k in tiles that stay in the cache, which is faster at some widths."""
    for queries in torch.split(features, side):
        best = torch.full((len(queries), K), -torch.inf)
        for gallery in torch.split(features, side):
            tile = torch.topk(queries @ gallery.T, min(K, len(gallery)), dim=1).values
            best = torch.topk(torch.cat([best, tile], dim=1), K, dim=1).values


def spectrum(features: Tensor) -> dict[str, Any]:
    """Share of the energy in leading directions."""
    energy = np.linalg.eigvalsh((features.T @ features).numpy())[::-1]
    share = np.cumsum(energy) / energy.sum()
    return {"energy_of_leading": {m: round(float(share[m - 1]), 3) for m in (1, 8, 32, 128, 512)}}


def extracted(folder: Path, weights: Path) -> Tensor:
    """Features of all images of a data set, each once."""
    dataset = gracl.load_dataset(folder)
    settings = {
        "backbone": "mobilenetv2_100",
        "weights": str(weights),
        "size": [128, 128],
        "last_stride": 2,
        "pooling": "average",
    }
    model = gracl.build_model(gracl.Config().replace({"model": settings}).model)
    return gracl.extract(model, gracl.open_store(every_image(dataset), size=model.size))


def every_image(dataset: gracl.Dataset) -> gracl.Records:
    """Training and test parts, each image once."""
    parts = (dataset.train, *dataset.test)
    return gracl.Records(tuple({record.path: record for part in parts for record in part}.values()))


def warm_up() -> None:
    """Compiles what is compiled on first use."""
    features, _ = draw_features(600)
    for narrow in (False, True):
        _search_pruned.search(
            features, 5, torch.eye(2048)[:, :16].contiguous(), memory=2**24, narrow=narrow
        )


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = action()
    return time.process_time() - start, result


if __name__ == "__main__":
    main()
