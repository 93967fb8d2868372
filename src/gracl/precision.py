"""The precision that a network computes in. Losses, distances and the memory are float32 always.

TF32, which rounds the factors of a product to 10 bits on recent NVIDIA GPUs, is used where "tf32" is
chosen and nowhere else, whatever torch's defaults are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from gracl.errors import ConfigError

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """What a network's forward and backward passes compute in, on one device."""

    name: str
    """float32, tf32, bfloat16 or float16; the last two by autocast, with weights in float32."""
    device: torch.device

    @property
    def needs_scaling(self) -> bool:
        """Whether gradients would vanish without a scaled loss."""
        return self.name == "float16"

    @contextmanager
    def forward(self) -> Iterator[None]:
        """For the forward pass of the network, and nothing else."""
        half = HALVES.get(self.name)
        with self.backward(), torch.autocast(self.device.type, dtype=half, enabled=half is not None):
            yield

    @contextmanager
    def backward(self) -> Iterator[None]:
        """For the backward pass."""
        if self.device.type != "cuda":
            yield
            return
        convolutions, products = torch.backends.cudnn, torch.get_float32_matmul_precision()
        before = convolutions.allow_tf32, convolutions.benchmark
        # Batches are all of one size, so trying the ways of convolving them once pays; but another
        # run may find another way the fastest, and get other digits.
        tries = not torch.are_deterministic_algorithms_enabled()
        convolutions.allow_tf32, convolutions.benchmark = self.name == "tf32", tries
        torch.set_float32_matmul_precision("high" if self.name == "tf32" else "highest")
        try:
            yield
        finally:
            convolutions.allow_tf32, convolutions.benchmark = before
            torch.set_float32_matmul_precision(products)


def choose_precision(name: str, device: torch.device) -> Precision:
    """ "auto" is bfloat16 on a GPU that has it, float16 on one that has not, float32 elsewhere.

    Raises:
        ConfigError: the device does not have what was asked for.

    >>> choose_precision("auto", torch.device("cpu")).name
    'float32'
    """
    is_gpu = device.type == "cuda"
    if name == "auto":
        name = "float32" if not is_gpu else "bfloat16" if has_bfloat16() else "float16"
    if name == "tf32" and not is_gpu:
        raise ConfigError(
            f"train.precision is tf32, which {device.type} does not have. Set it to auto or float32"
        )
    if name == "bfloat16" and is_gpu and not has_bfloat16():
        raise ConfigError(
            "train.precision is bfloat16, which this GPU does not have. Set it to auto or float16"
        )
    return Precision(name, device)


def has_bfloat16() -> bool:
    """Whether the GPU computes in bfloat16, rather than pretending to."""
    return torch.cuda.get_device_capability() >= (8, 0)
