"""The graph that is exported: a model with what comes before it, down to Pillow's way of resizing.

Letters: B images, H x W pixels, D feature dimensions.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from gracl.errors import ConfigError
from gracl.models.embedder import Embedder


class Graph(nn.Module):
    """A copy of the model in eval mode on the CPU, with what comes before it."""

    def __init__(
        self, model: Embedder, layout: str, *, resize: bool, normalized: bool, half: bool
    ) -> None:
        super().__init__()
        if layout not in ("nchw", "nhwc"):
            raise ConfigError(f"layout is '{layout}'; expected nchw or nhwc")
        if resize and normalized:
            raise ConfigError("images are resized before they are normalized: leave one of the two out")
        self.model = copy.deepcopy(model).cpu()
        self.layout, self.resize, self.normalized, self.half_backbone = layout, resize, normalized, half
        if half:
            self.model.backbone = _HalfBackbone(self.model.backbone)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images as the file takes them -> (B, D) float32 unit features."""
        if self.layout == "nhwc":
            images = images.permute(0, 3, 1, 2)
        if self.resize:
            images = resize_as_pillow(images, self.model.size)
        if self.normalized:
            images = images * self.model.std + self.model.mean
        features: Tensor = self.model(images)
        return features

    def given(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) uint8 as the file takes them."""
        if self.normalized:
            pixels = (pixels - self.model.mean) / self.model.std
        return pixels.permute(0, 2, 3, 1).contiguous() if self.layout == "nhwc" else pixels


class _HalfBackbone(nn.Module):
    """A backbone in float16, of images in float32."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.half()

    def forward_features(self, images: Tensor) -> Tensor:
        """As that of timm's networks; every pooling brings the features back to float32."""
        features: Tensor = self.backbone.forward_features(images.half())  # type: ignore[operator]
        return features


MOST = 2**31 - 1
"""Images at a time, and pixels of a side: torch 2.6 refuses sides that have no bound."""
FIXED = 2.0**22
"""Pillow counts in integers of so many to one."""


def resize_as_pillow(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic with antialiasing, pixel for pixel as Pillow does it, in operations that ONNX has.

    Two products with matrices, each rounded to whole pixels as Pillow rounds: first along the rows,
    then along the columns. All numbers are integers below 2^53, so float64 holds them exactly, whatever
    adds them up. (Pillow 13 takes columns first at some sizes; rounded in the other order, pixels of
    ordinary images are up to 3 of 255 off, of noise up to 20.)

    Args:
        images: (B, 3, H, W) uint8.
        size: (height, width) to resize to, as `Image.resize` with BICUBIC would.

    Returns:
        (B, 3, height, width) float64, whole numbers 0..255.

    >>> resize_as_pillow(torch.tensor([[[[0, 100, 200]]]], dtype=torch.uint8), (1, 2)).tolist()
    [[[[31.0, 169.0]]]]
    """
    height, width = images.shape[2:]
    rows = _whole(images.double() @ _taps(width, size[1], images.device).T)
    return _whole(_taps(height, size[0], images.device) @ rows)


def _whole(sums: Tensor) -> Tensor:
    return ((sums + FIXED / 2) / FIXED).floor().clamp(0, 255)


def _taps(side: int, wanted: int, device: torch.device) -> Tensor:
    """(wanted, side) weights of what is there for what is made, in whole units of 1 / `FIXED`.

    Keys' cubic with a = -0.5, stretched where the image shrinks.
    """
    there = 2 * torch.arange(side, device=device) + 1
    made = 2 * torch.arange(wanted, device=device)[:, None] + 1
    # Twice the distance of pixel centres times a common denominator: whole, so exact for any size.
    apart = (there * wanted - made * side).abs()
    # A tensor: max() would fix the side at tracing, and torch.sym_max in torch 2.6 which is longer.
    longer = torch.full((), side, device=device).clamp(min=wanted)
    x: Tensor = apart.double() / (2 * longer)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((x - 5) * x + 8) * x * -0.5 + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return (weights / weights.sum(dim=1, keepdim=True) * FIXED + 0.5).floor()


def trace(graph: Graph) -> torch.export.ExportedProgram:
    """The graph as a program of any number of images, and of any size where it resizes."""
    height, width = graph.model.size
    size = (height + 3, width + 5) if graph.resize else (height, width)
    images = graph.given(torch.zeros(2, 3, *size, dtype=torch.uint8))
    sides = (1, 2) if graph.layout == "nhwc" else (2, 3)
    free = {0: torch.export.Dim("batch", min=1, max=MOST)}
    if graph.resize:
        names = ("height", "width")
        free |= {s: torch.export.Dim(n, min=1, max=MOST) for s, n in zip(sides, names, strict=True)}
    with torch.no_grad():
        program = torch.export.export(graph, (images,), dynamic_shapes=(free,), strict=False)
    for node in program.graph.nodes:  # where on this machine the code lies is nobody's business
        node.meta.pop("stack_trace", None)
    return program
