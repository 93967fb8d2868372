"""Drawn features with the structure of re-identification, for benchmarks of any size.

What they imitate, each measured on features of real crops (`benchmarks/results/spectrum.json`):

* a mean that all images share, and a spectrum that falls: 8 directions hold about 0.7 of the energy,
  32 about 0.83, 128 about 0.93, 512 about 0.985;
* identities of unequal size (about 18 images), each seen by some of six cameras, whose offsets are
  shared by all; images of one identity and camera are nearer than those of another camera;
At 12,936 rows, k1 = 30 and k2 = 6, about fifty Jaccard distances below 1 are stored a row, as on
Market-1501's training part.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CAMERAS = 6


def draw_features(
    n: int,
    *,
    dimensions: int = 2048,
    decay: float = 0.6,
    spread: float = 0.75,
    seed: int = 0,
) -> tuple[Tensor, NDArray[np.int64]]:
    """(n, dimensions) unit rows and (n,) identities.

    Args:
        decay: standard deviation along direction m falls as (m + 4) ** -decay; 0 is a flat spectrum.
        spread: size of what differs between images of one identity, against the identities.
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    scale = (torch.arange(dimensions) + 4.0) ** -decay
    scale /= scale.norm()
    identities = max(1, n // 18)
    weight = -torch.log(torch.rand(identities, generator=random))  # exponential: many small, some large
    identity = torch.multinomial(weight, n, replacement=True, generator=random)
    camera = torch.randint(CAMERAS, (n,), generator=random)
    place = identity * CAMERAS + camera
    seen, place = torch.unique(place, return_inverse=True)

    common = normal(dimensions)
    cameras = normal(CAMERAS, dimensions)
    who = normal(identities, dimensions)
    where = normal(len(seen), dimensions)
    rows = torch.empty(n, dimensions)
    for part in torch.split(torch.arange(n), 8192):
        one = who[identity[part]] + 0.3 * cameras[camera[part]]
        one += spread * (0.6 * where[place[part]] + 0.8 * normal(len(part), dimensions))
        rows[part] = one * scale
    rows += 1.25 * torch.nn.functional.normalize(common * scale, dim=0)
    turn, _ = torch.linalg.qr(normal(dimensions, dimensions))
    for part in torch.split(torch.arange(n), 8192):
        rows[part] = torch.nn.functional.normalize(rows[part]) @ turn
    order = torch.randperm(n, generator=random)
    return torch.nn.functional.normalize(rows[order]), identity[order].numpy()
