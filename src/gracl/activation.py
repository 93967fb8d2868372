"""Where a network's last features are strong: activation maps over its images.

They show where the response is, and not why two images are taken for one individual: a strong place
may mean the same for all images. Nothing is asked of gradients or of other images.

Letters: B images, C channels, h x w cells, H x W pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracl.errors import ShapeError
from gracl.models.embedder import Embedder

FLAT = 1e-5
"""Share of a map's strength: a range below it is rounding."""
SMALLEST = torch.finfo(torch.float32).tiny


@torch.no_grad()
def activation_maps(model: Embedder, images: Tensor) -> Tensor:
    """How strong the last feature map is at each pixel: the mean of squared activations over channels.

    The map is that before pooling, of convolutional and windowed networks; of transformers it is the
    image's own tokens after the last layer, class token and registers left out. A norm at the end,
    which would make all cells about equally strong, is left out. The map is resized to the image
    (bilinear), and each image's own range is spread over 0..1: maps of two images cannot be compared
    in strength.

    Args:
        model: used in eval mode and left in the mode it was in.
        images: (B, 3, H, W) pixels 0..255 at the model's size, on its device.

    Returns:
        (B, H, W) in [0, 1]; all 0 where the features are equally strong everywhere.

    Raises:
        ShapeError: the tokens form no grid of the image's proportions.

    Source: the activation-based attention of Zagoruyko and Komodakis, "Paying More Attention to
    Attention", ICLR 2017, section 3.1, with a mean for the sum.

    >>> from gracl.models.embedder import build_embedder
    >>> model = build_embedder("test_resnet", size=(64, 32))
    >>> activation_maps(model, torch.randint(0, 256, (2, 3, 64, 32))).shape
    torch.Size([2, 64, 32])
    """
    training = model.training
    model.eval()
    try:
        features = last_features(model, images)
    finally:
        model.train(training)
    strength = model.layout.cells(features).float().square().mean(dim=1)
    height, width = grid_of(model, features)
    maps = strength.reshape(len(images), 1, height, width)
    large = F.interpolate(maps, size=images.shape[2:], mode="bilinear", align_corners=False)
    return _spread(large[:, 0])


def last_features(model: Embedder, images: Tensor) -> Tensor:
    """The backbone's last features, before the norm that many transformers end with.

    Args:
        model: see `activation_maps`.
        images: see there.
    """
    kept: dict[str, Tensor] = {}
    norm = getattr(model.backbone, "norm", None)
    hook = None
    if isinstance(norm, nn.Module):
        hook = norm.register_forward_hook(lambda _, given, made: kept.update(given=given[0], made=made))
    try:
        pixels = (images.float() - model.mean) / model.std
        features: Tensor = model.backbone.forward_features(pixels)  # type: ignore[operator]
    finally:
        if hook is not None:
            hook.remove()
    return kept["given"] if kept.get("made") is features else features


def grid_of(model: Embedder, features: Tensor) -> tuple[int, int]:
    """(h, w) of the cells that a model's features lie in.

    Raises:
        ShapeError: tokens that form no grid of the image's proportions.

    >>> from gracl.models.embedder import build_embedder
    >>> model = build_embedder("test_vit", size=(64, 32))
    >>> grid_of(model, model.backbone.forward_features(torch.zeros(1, 3, 64, 32)))
    (4, 2)
    """
    if model.layout.order != "tokens":
        height, width = features.shape[2:4] if model.layout.order == "maps" else features.shape[1:3]
        return int(height), int(width)
    count = features.shape[1] - model.layout.prefix
    height = round(math.sqrt(count * model.size[0] / model.size[1]))
    if height < 1 or count % height:
        raise ShapeError(
            f"{count} tokens form no grid for images of {model.size[0]} x {model.size[1]} pixels; "
            "expected patches that are squares of one size"
        )
    return height, count // height


def _spread(maps: Tensor) -> Tensor:
    """Each map's own range over 0..1; a range that may be rounding alone is none."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    extent = high - low
    return torch.where(extent > FLAT * high, (maps - low) / extent.clamp(min=SMALLEST), 0.0)
