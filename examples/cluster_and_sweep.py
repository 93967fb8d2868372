"""Features, distances, clusters: the steps of an epoch one by one, and eps chosen without a label.

python examples/cluster_and_sweep.py runs/people people
"""

import argparse
from pathlib import Path

import numpy as np

import gracl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("images", type=Path, help="a folder of images, or a table")
    parser.add_argument("--k1", type=int, default=15, help="about as many images as an individual has")
    given = parser.parse_args()

    model = gracl.load_model(given.run)
    records = gracl.load_dataset(given.images).train
    features = gracl.embed(model, records).features  # (N, D), unit rows
    distance = gracl.jaccard_distance(features, k1=given.k1, k2=4)  # (N, N), sparse
    share = distance.nnz / distance.shape[0] ** 2
    print(f"{len(records)} images; {share:.1%} of all pairs have something in common")

    found = gracl.sweep_eps(distance)
    for point in found.points[::4]:
        print(
            f"eps {point.eps:.2f}: {point.health.n_clusters} clusters, "
            f"{point.health.outlier_share:.0%} outliers, stable {point.health.stability or 0:.2f}"
        )
    chosen = found.suggestion
    if chosen is None:
        print("no eps gives sound clusters: train longer, or start from better weights")
        return
    print(f"taken: eps {chosen.eps:g}")
    if records.has("identity"):
        names = [record.identity or "" for record in records]
        truth = np.unique(names, return_inverse=True)[1]
        print(gracl.compare_labels(chosen.labels, truth))


if __name__ == "__main__":
    main()
