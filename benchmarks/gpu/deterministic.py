"""What the same digits in every run cost on a GPU, and whether they are the same.

    python benchmarks/gpu/deterministic.py [--backbone resnet50] [--seconds 6] [--device cuda]

Speed: steps of the engine as in `training_step.py`, images a second with train.deterministic over those
without, in processes in turn, three times each; the best of each counts. Digits: each method trains
drawn people twice with the setting and twice without, two epochs of ten steps; sums over the bytes of
all weights are compared. `--device cpu --backbone resnet10t --size 32 16 --seconds 1` tries it out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # what all benchmarks share lies beside this folder

from gracl import training
from gracl.config import Config
from gracl.data.readers import load_dataset
from gracl.data.synthetic import draw_people
from gracl.methods import METHODS
from gracl.runs import train
from measuring import save
from step import gracl_step, settings
from training_step import BATCH, STEPS, images_per_second

SMALL: dict[str, Any] = {
    "model": {"backbone": "resnet10t", "size": [64, 32], "weights": "none", "parts": 3},
    "method": {"k1": 8, "k2": 3, "eps": 0.7, "min_samples": 2},
    "sampler": {"clusters_per_batch": 8, "images_per_cluster": 4},
    "train": {"epochs": 2, "steps": 10, "batchnorm_group": 16, "ema": 0.9},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, nargs=2, default=[256, 128])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--one", choices=["speed", "digits"], help="what a process of its own does")
    parser.add_argument("--deterministic", action="store_true")
    arguments = parser.parse_args()
    if arguments.one:
        training.use_deterministic(arguments.deterministic)
        print(json.dumps(speed(arguments) if arguments.one == "speed" else digits(arguments)))
        return
    found = {"speed": [in_own_process("speed", way) for way in 3 * [False, True]]}
    best = [max(found["speed"][way::2]) for way in (0, 1)]
    same = {}
    for way in (False, True):
        first, second = (in_own_process("digits", way) for _ in range(2))
        same[str(way)] = {name: first[name] == second[name] for name in first}
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    content = {
        "command": "python benchmarks/gpu/deterministic.py",
        "device": name,
        "backbone": arguments.backbone,
        "images_per_second": {"as it comes": round(best[0]), "deterministic": round(best[1])},
        "ratio": round(best[1] / best[0], 3),
        "two_runs_are_the_same": {"as it comes": same["False"], "deterministic": same["True"]},
    }
    save("gpu_deterministic" if arguments.device == "cuda" else "tried_on_cpu_deterministic", content)
    print(json.dumps(content))


def in_own_process(what: str, deterministic: bool) -> Any:
    """The setting holds for a whole process, so each way has its own."""
    command = [sys.executable, *sys.argv, "--one", what, *["--deterministic"] * deterministic]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def speed(arguments: argparse.Namespace) -> float:
    """Images a second of the engine."""
    config = settings(arguments.backbone, tuple(arguments.size))
    device = torch.device(arguments.device)

    def make() -> Any:
        return gracl_step(config, BATCH, arguments.device, steps=STEPS), STEPS * BATCH

    return images_per_second(make, device, arguments.seconds)


def digits(arguments: argparse.Namespace) -> dict[str, int]:
    """A sum over the bytes of all weights that each method ends with."""
    with tempfile.TemporaryDirectory() as folder:
        people = Path(folder) / "people"
        draw_people(people, identities=24, test_identities=2, cameras=3, images_per_camera=4)
        dataset, found = load_dataset(people), {}
        for name in METHODS:
            changes = {"method": {"name": name}, "train": {"device": arguments.device}}
            config = Config.load("demo").replace(SMALL).replace(changes)
            run = train(config, dataset, Path(folder) / name)
            found[name] = zlib.crc32((run.folder / "model.safetensors").read_bytes())
        return found


if __name__ == "__main__":
    main()
