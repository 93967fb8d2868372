"""Train on a folder of crops without labels, and look at what came of it.

python examples/train_on_a_folder.py people runs/people --settings demo
"""

import argparse
from collections import Counter
from pathlib import Path

import gracl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="a folder of images, or a table")
    parser.add_argument("out", type=Path, help="the run's folder; the same command continues")
    parser.add_argument("--settings", default="own-data", help="a recipe, or a YAML file")
    given = parser.parse_args()

    dataset = gracl.load_dataset(given.images)
    print(f"{len(dataset.train)} images to learn from, read as {dataset.layout}")
    for note in dataset.notes:
        print("note:", note)

    run = gracl.train(gracl.Config.load(given.settings), dataset, given.out, on_epoch=tell)

    # Identities, where there are any, are read here for the first time.
    if "scores" in run.after:
        print(
            "before", f"{run.before['scores']['mAP']:.1%}", "after", f"{run.after['scores']['mAP']:.1%}"
        )
    found = gracl.open_study(run)
    sizes = Counter(found.labels.tolist())
    outliers = sizes.pop(gracl.OUTLIER, 0)
    print(f"{len(sizes)} clusters, the largest of {max(sizes.values())}; {outliers} images in none")


def tell(epoch: gracl.Epoch) -> None:
    """Called after each epoch."""
    stable = epoch.health.stability
    print(
        f"epoch {epoch.number}: {epoch.n_clusters} clusters, "
        f"{epoch.health.outlier_share:.0%} outliers, "
        f"stable {'-' if stable is None else f'{stable:.2f}'}, loss {epoch.losses['total']:.2f}"
    )


if __name__ == "__main__":
    main()
