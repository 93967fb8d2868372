"""Whether a file gives the model's features: tried with images of all kinds, several at a time.

Letters: B images, H x W pixels, D feature dimensions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gracl._export_graph import Graph, resize_as_pillow
from gracl.errors import ExportError
from gracl.models.embedder import Embedder

Run = Callable[[Tensor], Tensor]
"""Images as the graph takes them -> (B, D) float32."""
BATCHES = (1, 2, 7)
"""How many images at a time a file is tried with; many a graph is right for one image only."""


@dataclass(frozen=True)
class Tolerance:
    """How far a file's features may be from the model's."""

    difference: float
    """The largest |difference| of any element."""
    cosine: float
    """The least cosine of any image's two features."""


FLOAT = Tolerance(1e-4, 0.99999)
HALF = Tolerance(5e-3, 0.999)


@torch.no_grad()
def compare(graph: Graph, model: Embedder, run: Run) -> tuple[float, float]:
    """The largest |difference| and the least cosine over all images, batches and sizes."""
    reference = copy.deepcopy(model).cpu().eval()
    differences, cosines = [0.0], [1.0]
    for size in _sizes(graph):
        pixels = _pictures(size)
        resized = resize_as_pillow(pixels, model.size) if graph.resize else pixels
        expected = reference(resized)
        for batch in BATCHES:
            found = torch.cat([run(part) for part in torch.split(graph.given(pixels), batch)])
            differences.append((found - expected).abs().max().item())
            cosines.append(F.cosine_similarity(found, expected).min().item())
    # max() and min() may pass over a NaN, a tensor's do not.
    return torch.tensor(differences).max().item(), torch.tensor(cosines).min().item()


def _sizes(graph: Graph) -> list[tuple[int, int]]:
    """The model's own, and where images are resized a larger and a smaller one."""
    height, width = graph.model.size
    others = [(2 * height + 1, 3 * width - 1), (height // 2 + 1, width // 3 + 1)]
    return [(height, width), *(others if graph.resize else [])]


def _pictures(size: tuple[int, int]) -> Tensor:
    """(7, 3, H, W) uint8: three of soft colours, black, white, two of noise."""
    draws = torch.Generator().manual_seed(0)
    soft = F.interpolate(torch.rand(3, 3, 4, 4, generator=draws), size, mode="bilinear")
    plain = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 3, *size)
    noise = torch.rand(2, 3, *size, generator=draws)
    return (255 * torch.cat([soft, plain, noise])).round().byte()


def require_close(path: Path, difference: float, cosine: float, allowed: Tolerance) -> None:
    """Refuses features that are too far from the model's."""
    if not (difference <= allowed.difference and cosine >= allowed.cosine):  # NaN is neither
        raise ExportError(
            f"{path} is not written: its features differ from the model's by up to {difference:.2g}, "
            f"least cosine {cosine:.6f}; expected at most {allowed.difference:g} and at least "
            f"{allowed.cosine:g}. Export without --half, or give another --format"
        )
