"""Augmentation of a uint8 batch, on the device it lies on, without a loop over its images.

Each operation equals, in distribution, the per-image transform that the field trains with. All that is
random is drawn first, on the CPU: a few numbers an image, the same for every device.

Letters: B images, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

ATTEMPTS = 100
"""Rectangles that random erasing tries before it leaves an image as it is."""


@dataclass(frozen=True)
class Changes:
    """What happens to each image of a batch, (B,) each."""

    factors: Tensor | None
    """(3, B) of brightness, contrast and saturation; None where colours stay."""
    mirrored: Tensor
    """bool."""
    shift: Tensor
    """(2, B) pixels, down and right, that the window moves over the padded image."""
    rectangle: Tensor
    """(4, B) top, left, height and width of what is erased; of height 0 where nothing is."""

    def to(self, device: torch.device) -> Changes:
        """The same on another device, in as few messages as there are kinds of numbers."""
        whole = torch.cat([self.mirrored[None], self.shift, self.rectangle]).to(device)
        factors = None if self.factors is None else self.factors.to(device)
        return Changes(factors, whole[0].bool(), whole[1:3], whole[3:])


def augment(
    images: Tensor,
    generator: Generator,
    *,
    flip: float = 0.5,
    pad: int = 10,
    erase: float = 0.5,
    fill: Sequence[int] = (124, 116, 104),
    color: float = 0.0,
) -> Tensor:
    """Colour change, horizontal flip, padded random crop, random erasing, in this order.

    Args:
        images: (B, 3, H, W) uint8.
        generator: a CPU generator; advanced by the same amount whatever the images hold.
        flip: probability of mirroring left and right.
        pad: black pixels added on each side before a crop of the old size is cut out.
        erase: probability of erasing a rectangle.
        fill: RGB of an erased rectangle; the default is ImageNet's mean.
        color: strength in [0, 1] of brightness, contrast and saturation change; 0 leaves them.

    Returns:
        (B, 3, H, W) uint8, a new tensor.

    >>> image = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 2, 2)
    >>> g = Generator().manual_seed(0)
    >>> augment(image, g, flip=1.0, pad=0, erase=0.0)[0, 0].tolist()
    [[1, 0], [3, 2]]
    """
    b, _, height, width = images.shape
    changes = Changes(
        factors=draw_factors(b, generator, strength=color) if color else None,
        mirrored=torch.rand(b, generator=generator) < flip,
        shift=torch.randint(0, 2 * pad + 1, (2, b), generator=generator) - pad,
        rectangle=draw_rectangles(b, height, width, generator, probability=erase),
    ).to(images.device)
    if changes.factors is not None:
        images = change_color(images, changes.factors)
    images = flip_and_crop(images, changes.mirrored, changes.shift)
    return erase_rectangles(images, changes.rectangle, fill=fill)


# -- draws, on the CPU ----------------------------------------------------------------------------


def draw_factors(n: int, generator: Generator, *, strength: float) -> Tensor:
    """(3, n) factors of brightness, contrast and saturation, uniform in [1 - s, 1 + s]."""
    return torch.empty(3, n).uniform_(1 - strength, 1 + strength, generator=generator)


def draw_rectangles(
    n: int,
    height: int,
    width: int,
    generator: Generator,
    *,
    probability: float,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: float = 0.3,
) -> Tensor:
    """(4, n) int64 top, left, height and width for random erasing; of height 0 where nothing is.

    Area is uniform in `area` as a share of the image, height/width uniform in [aspect, 1/aspect]; a
    rectangle that does not fit is drawn anew, up to `ATTEMPTS` times.

    Source: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, algorithm 1.
    """
    share = torch.empty(n, ATTEMPTS).uniform_(*area, generator=generator)
    ratio = torch.empty(n, ATTEMPTS).uniform_(aspect, 1 / aspect, generator=generator)
    place = torch.rand(2, n, generator=generator)
    chosen = torch.rand(n, generator=generator) < probability

    pixels = share * (height * width)
    tall, wide = (pixels * ratio).sqrt().round(), (pixels / ratio).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.int().argmax(dim=1, keepdim=True)
    tall, wide = tall.gather(1, first)[:, 0], wide.gather(1, first)[:, 0]
    tall = torch.where(chosen & fits.any(dim=1), tall, 0)

    top = (place[0] * (height - tall + 1)).floor()
    left = (place[1] * (width - wide + 1)).floor()
    return torch.stack([top, left, tall, wide]).long()


# -- operations, on the images' device ------------------------------------------------------------


def flip_and_crop(images: Tensor, mirrored: Tensor, shift: Tensor) -> Tensor:
    """Mirrors some images, then moves the window on each by its shift, black beyond the image."""
    b, channels, height, width = images.shape
    # The pixel that lands at (y, x): y + dy from the top, x + dx from the left or from the right.
    rows = torch.arange(height, device=images.device) + shift[0][:, None]
    columns = torch.arange(width, device=images.device) + shift[1][:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[:, None, :]
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    pixel = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    pixel = pixel.reshape(b, 1, height * width).expand(-1, channels, -1)
    moved = images.flatten(2).gather(2, pixel).view(images.shape)
    return moved * inside[:, None]


def erase_rectangles(images: Tensor, rectangle: Tensor, *, fill: Sequence[int]) -> Tensor:
    """Fills a rectangle of each image with one colour."""
    height, width = images.shape[2:]
    top, left, tall, wide = rectangle[:, :, None]
    y, x = (torch.arange(n, device=images.device) for n in (height, width))
    rows = (y >= top) & (y < top + tall)
    columns = (x >= left) & (x < left + wide)
    erased = rows[:, None, :, None] & columns[:, None, None, :]
    colour = torch.tensor(fill, dtype=images.dtype, device=images.device)[:, None, None]
    return torch.where(erased, colour, images)


def change_color(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast, then saturation, each times its factor."""
    brightness, contrast, saturation = factors[:, :, None, None, None]
    pixels = (images.float() * brightness).clamp(0, 255)
    mean = _grey(pixels).mean(dim=(2, 3), keepdim=True)
    pixels = torch.lerp(mean, pixels, contrast).clamp(0, 255)
    pixels = torch.lerp(_grey(pixels), pixels, saturation).clamp(0, 255)
    return pixels.round().to(torch.uint8)


def _grey(pixels: Tensor) -> Tensor:
    """Luma of ITU-R BT.601, (B, 1, H, W)."""
    weights = pixels.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    return (pixels * weights).sum(dim=1, keepdim=True)
