"""How long a report of 30,000 images takes, and how large its file is.

    python benchmarks/report.py [--images 30000] [--seeds 3]

Synthetic: the images are hard links to 2,000 drawn people, so each is read as a file of its own; the
training images' features are random, 1,000 identities around centres of their own in 2,048 dimensions,
with 5 % outliers, and the clusters are those identities. The log and the network are those of a run of
one step on few images. 1,000 queries search 5,000 gallery images by that network, which is tiny: with a
large one, add the time that it needs for so many images. The features of the training images lie in the
run's folder, as after a first look. Each report begins with an empty cache of small pictures; the
store of decoded images is made before. One thread; the machine does other work too, so CPU seconds are
the figure to read.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from gracl.config import Config
from gracl.continuation import fingerprint_of
from gracl.data.readers import load_dataset
from gracl.data.store import open_store
from gracl.data.synthetic import draw_people
from gracl.features import Features, no_features, write_features
from gracl.files import write_labels
from gracl.report.page import write_report
from gracl.runs import Run, train
from measuring import command, measured, save, spread

DRAWN, QUERIES, GALLERY = 2000, 1000, 5000
IDENTITIES, DIMENSIONS, OUTLIERS = 1000, 2048, 0.05
SETTINGS = {
    "model": {"backbone": "test_resnet", "size": [64, 32], "weights": "none"},
    "method": {"eps": 0.7, "min_samples": 2, "k1": 8, "k2": 2},
    "train": {"epochs": 1, "steps": 1, "batchnorm_group": 16, "threads": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRACL_CACHE"] = str(Path(folder) / "cache")
        run = large_run(Path(folder), arguments.images)
        for on_map in (500, 2000, 5000):
            rows.append({"on_the_map": on_map, **measure(run, on_map, arguments.seeds)})
            print(rows[-1], flush=True)
    about = {
        "command": command(),
        "threads": 1,
        "synthetic": __doc__.split("\n\n")[2].replace("\n", " "),
    }
    save("report", {**about, "images": arguments.images, "seeds": arguments.seeds, "rows": rows})


def measure(run: Run, on_map: int, seeds: int) -> dict[str, Any]:
    """Seconds, memory and size of a report, its small pictures made anew."""
    seconds, cpu, sizes, peaks, pictures = [], [], [], [], []
    for seed in range(seeds):
        for kept in Path(os.environ["GRACL_CACHE"]).glob("thumbnails.sqlite*"):
            kept.unlink()
        with measured() as cost:
            out = write_report(run, images=on_map, seed=seed, device="cpu")
        seconds.append(cost.seconds)
        cpu.append(cost.cpu_seconds)
        peaks.append(cost.peak_gib)
        sizes.append(out.stat().st_size / 1e6)
        pictures.append(float(out.read_text(encoding="utf-8").count("<image ")))
    return {
        "cpu_seconds": spread(cpu),
        "seconds": spread(seconds),
        "megabytes": spread(sizes),
        "pictures": spread(pictures),
        "peak_gib_above_start": spread(peaks),
    }


def large_run(folder: Path, images: int) -> Run:
    """A finished run's folder that holds so many images."""
    drawn = load_dataset(
        draw_people(folder / "drawn", identities=DRAWN // 16, test_identities=2, images_per_camera=4)
    )
    small = {"data": folder / "few", "all": folder / "many"}
    paths = [record.path for record in drawn.train]
    link(small["data"], paths, {"train": 320})
    link(small["all"], paths, {"train": images, "query": QUERIES, "gallery": GALLERY})
    config = Config.load("demo").replace(SETTINGS)
    run = train(config, load_dataset(small["data"]), folder / "run")
    return of_all(run, small["all"])


def link(folder: Path, paths: list[Path], counts: dict[str, int]) -> None:
    """A data set of hard links, each identity's images by four cameras."""
    folder.mkdir()
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "identity", "camera", "split"])
        for split, count in counts.items():
            for n in range(count):
                name = f"{split}-{n:05}.png"
                (folder / name).hardlink_to(paths[n % len(paths)])
                identity = n % len(paths) // 16 if split != "train" else n % IDENTITIES
                table.writerow([name, f"p{identity}", f"c{n % 4}", split])


def of_all(run: Run, data: Path) -> Run:
    """The run's folder, made one of other images: their data.json, labels.csv and features.npz."""
    dataset = load_dataset(data)
    store = open_store(dataset.train.unlabelled(), size=run.model.size)
    about = run.data | {
        "root": str(dataset.root),
        "given": list(dataset.given),
        "images": len(store),
        "fingerprint": fingerprint_of(dataset.root, store),
    }
    (run.folder / "data.json").write_text(json.dumps(about), encoding="utf-8")
    random = np.random.default_rng(0)
    truth = np.arange(len(store)) % IDENTITIES
    centres = random.normal(size=(IDENTITIES, DIMENSIONS)).astype(np.float32)
    noise = random.normal(size=(len(store), DIMENSIONS)).astype(np.float32)
    features = F.normalize(torch.from_numpy(centres[truth] + noise))
    labels = np.where(random.random(len(store)) < OUTLIERS, -1, truth)
    write_labels(run.folder / "labels.csv", store.records, labels)
    whose = no_features(run.model)
    found = Features(
        features, store.records, whose.fingerprint, whose.backbone, whose.size, whose.version
    )
    write_features(run.folder / "features.npz", found)
    return run


if __name__ == "__main__":
    main()
