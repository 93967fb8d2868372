"""The full recipe at Market-1501's size on a GPU, end to end: minutes, mAP by epoch, where time goes.

    python benchmarks/gpu/market.py --out runs/gpu-market [--seed 0] [--minutes 9]

12,936 drawn people's images of 751 identities by 6 cameras, 50 epochs of 200 steps of 256 images,
ResNet-50 from random weights at 256 x 128: clustering, search, training and all else by `gracl.train`.
Scores are those of each tenth epoch and of the last, on 750 other identities; taking them is not in the
minutes. After `--minutes` it stops by itself and the same command continues: minutes are added up from
the run's log. `--device cpu --tiny` tries the script out.

The share of an epoch that is the network's own work is what bare loops would take for the same images
(`training_step.py` must have run on this device), over what the epoch took.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # what all benchmarks share lies beside this folder

from gracl.config import Config
from gracl.data.readers import load_dataset
from gracl.data.records import Dataset
from gracl.data.synthetic import draw_people
from gracl.evaluation import evaluate
from gracl.profiling import profile_run
from gracl.runs import train
from gracl.training import Epoch
from measuring import RESULTS, save

IMAGES, IDENTITIES, CAMERAS = 12_936, 751, 6


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """The time that was asked for is over."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-market"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    ends = time.monotonic() + 60 * arguments.minutes
    dataset = market_sized(arguments.out / "people", arguments.tiny)
    config = recipe(arguments)
    curve = arguments.out / f"curve-{arguments.seed}.json"

    def look(epoch: Epoch) -> None:
        if epoch.number % 10 == 0 or epoch.number == config.train.epochs:
            scores = evaluate(epoch.model, dataset)
            points = json.loads(curve.read_text()) if curve.is_file() else {}
            points[str(epoch.number)] = {"mAP": scores.mAP, "R1": scores.cmc[1]}
            curve.write_text(json.dumps(points))
        print(epoch.number, epoch.n_clusters, epoch.losses["total"], epoch.seconds, flush=True)
        if time.monotonic() > ends and epoch.number < config.train.epochs:
            raise Interrupted

    try:
        run = train(config, dataset, arguments.out / f"run-{arguments.seed}", on_epoch=look)
    except Interrupted:
        print("time is over; the same command continues")
        return
    found = profile_run(run)
    minutes = sum(s for stage, s in found.seconds.items() if stage not in ("evaluate", "decode")) / 60
    content: dict[str, Any] = {
        "command": f"python benchmarks/gpu/market.py --seed {arguments.seed}",
        "settings": config.plain(),
        "images": len(dataset.train),
        "minutes_of_50_epochs": round(minutes, 2),
        "minutes_of_decoding": round(found.seconds["decode"] / 60, 2),
        "profile": dataclasses.asdict(found),
        "share_of_the_network": share_of_the_network(run.epochs, len(dataset.train)),
        "curve": json.loads(curve.read_text()),
        "last_epoch": run.after["scores"],
        "before": run.before["scores"],
        "seed": arguments.seed,
    }
    name = "gpu_market" if arguments.device == "cuda" else "tried_on_cpu_market"
    save(f"{name}_{arguments.seed}", content)
    print(json.dumps(content["profile"]), json.dumps(content["curve"]), minutes)


def market_sized(folder: Path, tiny: bool) -> Dataset:
    """Drawn people, as many images to train on as Market-1501 has, evenly left out of a few more."""
    identities, wanted = (20, 300) if tiny else (IDENTITIES, IMAGES)
    if not (folder / "metadata.csv").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draw_people(
            folder,
            identities=identities,
            test_identities=identities - 1,
            cameras=CAMERAS,
            images_per_camera=3,
        )
    dataset = load_dataset(folder)
    kept = np.linspace(0, len(dataset.train) - 1, wanted).round().astype(int)
    return dataclasses.replace(dataset, train=dataset.train.take(kept.tolist()))


def recipe(arguments: argparse.Namespace) -> Config:
    """The recipe of Market-1501, but for weights: no hub is asked."""
    train = {"seed": arguments.seed, "device": arguments.device, "compile": arguments.compile}
    changes: dict[str, Any] = {"model": {"weights": "none"}, "train": train}
    if arguments.tiny:
        changes["model"] |= {"backbone": "resnet10t", "size": [64, 32]}
        changes["train"] |= {"epochs": 2, "steps": 3}
        changes["method"] = {"k1": 10, "eps": 0.7}
    return Config.load("market1501").replace(changes)


def share_of_the_network(epochs: list[dict[str, Any]], images: int) -> float | str:
    """Seconds that bare loops take for an epoch's images, over the median epoch."""
    measured = RESULTS / "gpu_training_step.json"
    if not measured.is_file():
        return "run benchmarks/gpu/training_step.py on this device first"
    rows = json.loads(measured.read_text())["rows"]
    seconds = []
    for line in epochs:
        trained = line["images_per_second"]["train"] * line["seconds"]["train"]
        bare = trained / rows["resnet50 bare step in groups of 64"]
        bare += images / rows["resnet50 bare forward"]
        seconds.append(bare / sum(line["seconds"].values()))
    return round(float(np.median(seconds)), 3)


if __name__ == "__main__":
    main()
