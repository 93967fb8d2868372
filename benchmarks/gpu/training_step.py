"""Images a second of training and of extraction on a GPU, beside the bare loops of the same network.

    python benchmarks/gpu/training_step.py [--backbone resnet50] [--seconds 6] [--device cuda]

Batches of 256 at 256 x 128, bfloat16 (float16 where the GPU lacks it), channels last, from random
weights, images on the device. The bare loop has float images at hand, takes the loss of one product
and steps a fused Adam: once in BatchNorm groups of 64 as gracl does, once in one piece as a trainer
who does not mind another result would. gracl draws uint8 images from the store, changes them,
contrasts them with two banks of 700 clusters, guards against NaN and moves the memory. Each line is
timed for a few seconds, three times, in turn; the best counts, since other work only adds. Lines that
are in the results file for this device already are kept, so the same command continues after an
interruption. `--device cpu --backbone resnet10t --size 32 16 --seconds 1` tries the script out.
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

from gracl import training
from gracl.data.feed import Feed
from gracl.extraction import extract
from gracl.precision import choose_precision
from gracl.stopwatch import wait_for
from measuring import RESULTS, save
from step import KEPT, bare_step, drawn_store, gracl_step, settings

BATCH, STEPS = 256, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", nargs="+", default=["resnet50", "vit_small_patch16_224"])
    parser.add_argument("--size", type=int, nargs=2, default=[256, 128])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    about = {"device": torch.cuda.get_device_name(device) if on_gpu else "cpu", "batch": BATCH}
    name = "gpu_training_step" if on_gpu else "tried_on_cpu_training_step"
    known = RESULTS / f"{name}.json"
    rows: dict[str, Any] = {}
    if known.is_file():
        found = json.loads(known.read_text())
        rows = found["rows"] if found["device"] == about["device"] else {}
    for backbone in arguments.backbone:
        for line, make in roads(backbone, tuple(arguments.size), arguments.device).items():
            if f"{backbone} {line}" not in rows:
                rows[f"{backbone} {line}"] = round(images_per_second(make, device, arguments.seconds))
                print(backbone, line, rows[f"{backbone} {line}"], flush=True)
                ratios = shares(rows, arguments.backbone)
                command = "python benchmarks/gpu/training_step.py"
                save(name, {"command": command, **about, "rows": rows, "of_the_bare_loop": ratios})


def roads(
    backbone: str, size: tuple[int, int], device: str
) -> dict[str, Callable[[], tuple[Callable[[], Any], int]]]:
    """What is timed, by name: gives an action and the images it takes."""
    plain = settings(backbone, size)
    compiled = settings(backbone, size, compile=True)
    sent = settings(backbone, size, store="host")

    def bare(group: int) -> tuple[Callable[[], Any], int]:
        step = bare_step(plain, BATCH, device, group=group)
        return lambda: [step() for _ in range(STEPS)], STEPS * BATCH

    def ours(config: Any) -> tuple[Callable[[], Any], int]:
        return gracl_step(config, BATCH, device, steps=STEPS), STEPS * BATCH

    def forward(*, whole: bool) -> tuple[Callable[[], Any], int]:
        model = (
            training.build_model(plain.model).to(device).to(memory_format=torch.channels_last).eval()
        )
        precision = choose_precision(plain.train.precision, torch.device(device))
        if whole:
            feed = Feed(drawn_store(KEPT, size), torch.device(device), resident=True)
            return lambda: extract(model, feed, precision=plain.train.precision), KEPT
        images = 255 * torch.rand(BATCH, 3, *size, device=device)
        images = images.contiguous(memory_format=torch.channels_last)

        def action() -> None:
            with torch.no_grad(), precision.forward():
                for _ in range(KEPT // BATCH):
                    model(images)

        return action, KEPT

    return {
        "bare step in groups of 64": lambda: bare(64),
        "gracl step": lambda: ours(plain),
        "bare step in one piece": lambda: bare(BATCH),
        "gracl step, images sent from the host": lambda: ours(sent),
        "gracl step, compiled": lambda: ours(compiled),
        "bare forward": lambda: forward(whole=False),
        "gracl extraction": lambda: forward(whole=True),
    }


def images_per_second(
    make: Callable[[], tuple[Callable[[], Any], int]], device: torch.device, seconds: float
) -> float:
    """The best of three, after a first pass that compiles and chooses."""
    action, images = make()
    action()
    wait_for(device)
    best = 0.0
    for _ in range(3):
        start, passes = time.perf_counter(), 0
        while time.perf_counter() - start < seconds / 3:
            action()
            wait_for(device)
            passes += 1
        best = max(best, passes * images / (time.perf_counter() - start))
    return best


def shares(rows: dict[str, float], backbones: list[str]) -> dict[str, float]:
    """gracl's images a second over those of the bare loop it stands beside."""
    pairs = {
        "gracl step": "bare step in groups of 64",
        "gracl step, images sent from the host": "bare step in groups of 64",
        "gracl step, compiled": "bare step in groups of 64",
        "gracl extraction": "bare forward",
    }
    return {
        f"{backbone} {ours}": round(rows[f"{backbone} {ours}"] / rows[f"{backbone} {bare}"], 3)
        for backbone in backbones
        for ours, bare in pairs.items()
        if {f"{backbone} {ours}", f"{backbone} {bare}"} <= rows.keys()
    }


if __name__ == "__main__":
    main()
