"""A training step against the bare forward, backward and optimiser step of the same network.

    python benchmarks/step.py [--backbone resnet50] [--size 256 128] [--batch 128] [--rounds 5]

Both take the batch in BatchNorm groups of 64, in float32, channels last, on images in memory. The bare
loop has its images as float tensors at hand and takes the loss of one product; gracl's step draws them
from the store, changes them (flip, pad and crop, erasing), contrasts them with both banks of 700
clusters, guards against NaN, and moves the memory. One round is one step of each, in turn; figures are
medians. One thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from gracl import training
from gracl.config import Config
from gracl.data.feed import Feed
from gracl.data.records import Record, Records
from gracl.data.store import ImageStore
from gracl.engine import Engine
from gracl.methods.gracl import GRACL
from gracl.models.batchnorm import group_borders
from gracl.precision import choose_precision
from gracl.training import RESIDENT
from measuring import command, in_turn, save

CLUSTERS, KEPT = 700, 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", nargs="+", default=["resnet50", "resnet10t"])
    parser.add_argument("--size", type=int, nargs=2, default=[256, 128])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for backbone in arguments.backbone:
        rows.append(measure(backbone, tuple(arguments.size), arguments.batch, arguments.rounds))
        print(rows[-1], flush=True)
    save("step", {"command": command(), "threads": 1, "device": "cpu", "rows": rows})


def measure(backbone: str, size: tuple[int, int], batch: int, rounds: int) -> dict[str, Any]:
    """Seconds of a step, bare and gracl's, and their ratio."""
    config = settings(backbone, size)
    found = in_turn(bare_step(config, batch), gracl_step(config, batch), rounds)
    return {"backbone": backbone, "size": size, "batch": batch, **found}


def settings(backbone: str, size: tuple[int, int], **train: Any) -> Config:
    """The field's recipe on this network, from random weights."""
    return Config().replace({"model": {"backbone": backbone, "size": size}, "train": train})


def bare_step(
    config: Config, batch: int, device: str = "cpu", *, group: int = 64
) -> Callable[[], None]:
    """Forward, backward, step, on float images at hand."""
    model = training.build_model(config.model).to(device).to(memory_format=torch.channels_last).train()
    precision = choose_precision(config.train.precision, torch.device(device))
    weights = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.Adam(weights, lr=3.5e-4, weight_decay=5e-4, fused=True)
    images = 255 * torch.rand(batch, 3, *config.model.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    towards = F.normalize(torch.randn(batch, model.dim, device=device))
    borders = group_borders(batch, group)

    def step() -> None:
        adam.zero_grad(set_to_none=True)
        for a, b in pairwise(borders):
            with precision.forward():
                features = model(images[a:b])
            loss = -(features * towards[a:b]).sum() / batch
            with precision.backward():
                loss.backward()
        adam.step()

    return step


def gracl_step(
    config: Config, batch: int, device: str = "cpu", *, steps: int = 1
) -> Callable[[], None]:
    """So many steps of the engine, on a store in memory."""
    model = training.build_model(config.model).to(device)
    engine = Engine(model, config)
    feed = Feed(
        drawn_store(KEPT, config.model.size), engine.device, resident=RESIDENT[config.train.store]
    )
    method = GRACL()
    method.banks = {
        name: F.normalize(torch.randn(CLUSTERS, model.dim, device=device))
        for name in ("inter", "intra")
    }
    labels = np.arange(KEPT) % CLUSTERS
    random = np.random.default_rng(0)

    def step() -> None:
        rows = [random.choice(KEPT, batch, replace=False) for _ in range(steps)]
        engine.run_epoch(feed, rows, labels, method, 1)

    return step


def drawn_store(n: int, size: tuple[int, int]) -> ImageStore:
    """Random pixels in memory, with names that no file has."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=draws)
    return ImageStore(Records(tuple(Record(Path(f"{i}.jpg")) for i in range(n))), images)


if __name__ == "__main__":
    main()
