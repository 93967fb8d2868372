"""A million images labelled from given neighbours.

    python benchmarks/million.py [--images 1000000] [--threads 2]

The search is not part of it: it is quadratic, and a GPU's or an index's work at this size. So that
exact neighbours can be had cheaply here, the images lie in worlds of 20,000 that know nothing of
each other, each drawn by `features.py` with 512 dimensions and searched by itself; the graph of all
worlds is one. Timed is all that comes after: encoding, expansion, Jaccard distances and DBSCAN
(k1 = 30, k2 = 6, eps 0.6).
"""

from __future__ import annotations

import argparse
import json

import torch

from features import draw_features
from gracl import neighbors
from gracl.clustering import cluster
from gracl.jaccard import jaccard_from_neighbors
from gracl.neighbors import Neighbors
from measuring import command, measured, resident_peak, save

WORLD, DIMENSIONS, K1, K2 = 20_000, 512, 30, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    n, size = arguments.images, min(WORLD, arguments.images)
    features = torch.empty(n, DIMENSIONS)
    found = Neighbors(torch.empty(n, K1, dtype=torch.int64), torch.empty(n, K1))
    for world, start in enumerate(range(0, n, size)):
        part = slice(start, min(n, start + size))
        features[part] = draw_features(part.stop - start, dimensions=DIMENSIONS, seed=world)[0]
        near = neighbors.search(features[part], K1)
        found.indices[part], found.similarities[part] = near.indices + start, near.similarities
    warm = neighbors.search(features[:500], K1)
    jaccard_from_neighbors(features[:500], warm, k1=K1, k2=K2)
    with measured() as jaccard:
        distance = jaccard_from_neighbors(features, found, k1=K1, k2=K2)
    after_jaccard = resident_peak()
    with measured() as clustering:
        labels = cluster(distance, eps=0.6, min_samples=4)
    result = {
        "command": command(),
        "images": n,
        "threads": arguments.threads,
        "jaccard": jaccard.plain(),
        "clustering": clustering.plain(),
        "seconds": round(jaccard.seconds + clustering.seconds, 1),
        "highest_resident_gib": round(max(after_jaccard, resident_peak()), 2),
        "stored_a_row": round(distance.nnz / n, 1),
        "clusters": int(labels.max()) + 1,
        "outlier_share": round(float((labels < 0).mean()), 4),
    }
    print(json.dumps(result))
    save("million", result)


if __name__ == "__main__":
    main()
