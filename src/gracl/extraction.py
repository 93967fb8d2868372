"""Features of images, in record order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gracl import distributed
from gracl.data.feed import Feed
from gracl.data.records import Records
from gracl.data.store import ImageStore, open_store
from gracl.models.embedder import Embedder
from gracl.precision import choose_precision


@torch.no_grad()
def extract(
    model: Embedder,
    images: Records | ImageStore | Feed,
    *,
    batch_size: int = 256,
    precision: str = "float32",
    parts: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The unit features of all images, on the model's device.

    Where several processes work together, each takes its share of the batches.

    Args:
        model: used in eval mode and left in the mode it was in.
        images: records are decoded through the image store at the model's size; one that cannot be
            decoded is an error, since a row must stand for each record.
        batch_size: images at a time; the features do not depend on it beyond float rounding.
        precision: what the network computes in, see `gracl.precision`; the result is float32.
        parts: also take the features of each image's parts.
        progress: called with (done, total) of this process's share.

    Returns:
        (N, D) float32; with `parts` (N, 1 + P, D), the image's own first.
    """
    device = next(model.parameters()).device
    if isinstance(images, Records):
        images = open_store(images, size=model.size, on_bad="refuse")
    if isinstance(images, ImageStore):  # read once: no need to keep it on the device
        images = Feed(images, device, resident=device.type == "cpu")
    ends = distributed.split([*range(0, len(images), batch_size), len(images)])
    start, end = ends[distributed.rank()], ends[distributed.rank() + 1]
    shape = (1 + len(model.part_necks), model.dim) if parts else (model.dim,)
    features = torch.empty((end - start, *shape), device=device)
    network = choose_precision(precision, device)
    training = model.training
    model.eval()
    try:
        rows = [slice(at, min(at + batch_size, end)) for at in range(start, end, batch_size)]
        for part, batch in zip(rows, images.batches(rows), strict=True):
            with network.forward():
                features[part.start - start : part.stop - start] = model(batch, parts=parts).float()
            if progress is not None:
                progress(part.stop - start, end - start)
    finally:
        model.train(training)
    return distributed.gather(features, ends)
