"""Features of images, in record order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gracl.data.records import Records
from gracl.data.store import ImageStore, open_store
from gracl.models.embedder import Embedder


@torch.no_grad()
def extract(
    model: Embedder,
    images: Records | ImageStore,
    *,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The unit features of all images, on the model's device.

    Args:
        model: used in eval mode and left in the mode it was in.
        images: records are decoded through the image store at the model's size; one that cannot be
            decoded is an error, since a row must stand for each record.
        batch_size: images at a time; the features do not depend on it beyond float rounding.
        progress: called with (done, total).

    Returns:
        (N, D) float32.
    """
    if isinstance(images, Records):
        images = open_store(images, size=model.size, on_bad="refuse")
    device = next(model.parameters()).device
    features = torch.empty((len(images), model.dim), device=device)
    training = model.training
    model.eval()
    try:
        for start in range(0, len(images), batch_size):
            batch = images.images[start : start + batch_size].to(device)
            features[start : start + len(batch)] = model(batch).float()
            if progress is not None:
                progress(start + len(batch), len(images))
    finally:
        model.train(training)
    return features
