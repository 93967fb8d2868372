"""A name for the weights of a model, so that features and exported files can say whose they are."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

from gracl.models.embedder import Embedder


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


def _bytes(tensor: Tensor) -> bytes:
    # By way of uint8, since NumPy has no bfloat16.
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
