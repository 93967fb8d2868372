"""Extraction against the bare forward pass of the same network on data in memory.

    python benchmarks/extraction.py [--backbone resnet50 resnet10t] [--size 256 128] [--images 256]

Both in float32, channels last, batches of 64, one thread; the bare pass has its images as float
tensors at hand, gracl reads uint8 rows of the store. One round is one pass of each, in turn;
figures are medians.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from gracl import training
from gracl.config import ModelConfig
from gracl.extraction import extract
from measuring import command, in_turn, save
from step import drawn_store

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", nargs="+", default=["resnet50", "resnet10t"])
    parser.add_argument("--size", type=int, nargs=2, default=[256, 128])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = tuple(arguments.size)
    rows = []
    for backbone in arguments.backbone:
        rows.append(measure(backbone, size, arguments.images, arguments.rounds))
        print(rows[-1], flush=True)
    save("extraction", {"command": command(), "threads": 1, "device": "cpu", "rows": rows})


def measure(backbone: str, size: tuple[int, int], n: int, rounds: int) -> dict[str, Any]:
    """Seconds of a pass over all images, bare and gracl's, and their ratio."""
    model = training.build_model(ModelConfig(backbone=backbone, size=size))
    model = model.to(memory_format=torch.channels_last).eval()
    store = drawn_store(n, size)
    at_hand = store.images.float().contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def bare() -> torch.Tensor:
        return torch.cat([model(at_hand[start : start + BATCH]) for start in range(0, n, BATCH)])

    def ours() -> torch.Tensor:
        return extract(model, store, batch_size=BATCH)

    difference = float((ours() - bare()).abs().max())
    return {
        "backbone": backbone,
        "size": size,
        "images": n,
        **in_turn(bare, ours, rounds),
        "largest_difference_of_a_feature": difference,
    }


if __name__ == "__main__":
    main()
