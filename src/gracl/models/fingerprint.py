"""A name for the weights of a model, so that features and exported files can say whose they are."""

from __future__ import annotations

import hashlib
import json
from typing import Protocol

import torch
from torch import Tensor

from gracl.errors import FingerprintError
from gracl.models.embedder import Embedder


class Fingerprinted(Protocol):
    """What was made by a model and says by which: features, a calibration."""

    @property
    def fingerprint(self) -> str:
        """Of the model's weights."""

    @property
    def backbone(self) -> str:
        """What the model was built on."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that images were resized to."""


def fingerprint(model: Embedder) -> str:
    """SHA-256 of all weights and running statistics: names, types, shapes and bytes.

    It is the same on every device, in train and in eval mode, and after a model was saved and loaded;
    any other value in any tensor makes it another. What a model does not keep in its weights, such as
    the size of the images it is meant for, is not in it.

    Args:
        model: read only.

    Returns:
        64 hexadecimal digits.

    >>> from gracl.models.embedder import build_embedder
    >>> model = build_embedder("test_resnet", size=(64, 32))
    >>> len(fingerprint(model)), fingerprint(model) == fingerprint(model.eval())
    (64, True)
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        # Each head says how many bytes follow, so no two models run together into the same text.
        head = [name, str(tensor.dtype), list(tensor.shape)]
        digest.update(json.dumps(head).encode() + b"\n")
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def require_same_model(a: Fingerprinted | Embedder, b: Fingerprinted | Embedder) -> None:
    """Refuses to put together what different models made: similarities would mean nothing.

    Args:
        a, b: features, a calibration of a threshold, or a model itself.

    Raises:
        FingerprintError: other weights, or images of another size.

    >>> from gracl.models.embedder import build_embedder
    >>> model = build_embedder("test_resnet", size=(64, 32))
    >>> require_same_model(model, model)
    """
    (mark_a, name_a), (mark_b, name_b) = _mark(a), _mark(b)
    if mark_a != mark_b:
        raise FingerprintError(
            f"these are of different models: {name_a} and {name_b}. Features of one cannot be compared "
            "with the other's, and a threshold holds for its own model only; embed the images, or "
            "calibrate, anew with one model"
        )


def _mark(made: Fingerprinted | Embedder) -> tuple[tuple[str, tuple[int, int]], str]:
    """What tells a model from others, and its name in words."""
    digits = fingerprint(made) if isinstance(made, Embedder) else made.fingerprint
    backbone = made.backbone_name if isinstance(made, Embedder) else made.backbone
    height, width = made.size
    return (
        digits,
        (height, width),
    ), f"{digits[:12]} ({backbone or 'unknown backbone'}, {height} x {width})"


def _bytes(tensor: Tensor) -> bytes:
    # By way of uint8, since NumPy has no bfloat16.
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
