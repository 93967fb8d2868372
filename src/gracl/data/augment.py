"""Augmentation of a uint8 batch, on the device it lies on, without a loop over its images.

Each operation equals, in distribution, the per-image transform that the field trains with. The draws
come from a generator on the CPU, so a batch is the same on every device.

Letters: B images, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

ATTEMPTS = 100
"""Rectangles that random erasing tries before it leaves an image as it is."""


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
    if color:
        images = jitter(images, generator, strength=color)
    images = flip_and_crop(images, generator, flip=flip, pad=pad)
    return erase_rectangles(images, generator, probability=erase, fill=fill)


def flip_and_crop(images: Tensor, generator: Generator, *, flip: float, pad: int) -> Tensor:
    """Mirrors some images, then shifts each by up to `pad` pixels, black where it moved from."""
    b, _, height, width = images.shape
    mirrored = torch.rand(b, generator=generator) < flip
    shifts = torch.randint(0, 2 * pad + 1, (2, b), generator=generator) - pad
    # The pixel that lands at (y, x): y + dy from the top, x + dx from the left or from the right.
    rows = torch.arange(height) + shifts[0][:, None]
    columns = torch.arange(width) + shifts[1][:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[:, None, :]
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    pixel = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    pixel = pixel.to(images.device).reshape(b, 1, height * width)
    moved = images.flatten(2).gather(2, pixel.expand(-1, images.shape[1], -1)).view_as(images)
    return moved if pad == 0 else moved * inside.to(images.device)[:, None]


def erase_rectangles(
    images: Tensor,
    generator: Generator,
    *,
    probability: float,
    fill: Sequence[int],
    area: tuple[float, float] = (0.02, 0.4),
    aspect: float = 0.3,
) -> Tensor:
    """Random erasing with one colour.

    Area is uniform in `area` as a share of the image, height/width uniform in [aspect, 1/aspect]; a
    rectangle that does not fit is drawn anew, up to `ATTEMPTS` times.

    Source: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, algorithm 1.
    """
    b, _, height, width = images.shape
    share = torch.empty(b, ATTEMPTS).uniform_(*area, generator=generator)
    ratio = torch.empty(b, ATTEMPTS).uniform_(aspect, 1 / aspect, generator=generator)
    place = torch.rand(2, b, generator=generator)
    chosen = torch.rand(b, generator=generator) < probability

    pixels = share * (height * width)
    tall, wide = (pixels * ratio).sqrt().round(), (pixels / ratio).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.int().argmax(dim=1, keepdim=True)
    tall, wide = tall.gather(1, first)[:, 0], wide.gather(1, first)[:, 0]
    chosen &= fits.any(dim=1)

    top = (place[0] * (height - tall + 1)).floor()
    left = (place[1] * (width - wide + 1)).floor()
    y, x = torch.arange(height)[None, :], torch.arange(width)[None, :]
    rows = (y >= top[:, None]) & (y < (top + tall)[:, None])
    columns = (x >= left[:, None]) & (x < (left + wide)[:, None])
    erased = rows[:, None, :, None] & columns[:, None, None, :] & chosen[:, None, None, None]
    colour = torch.tensor(fill, dtype=images.dtype, device=images.device)[:, None, None]
    return torch.where(erased.to(images.device), colour, images)


def jitter(images: Tensor, generator: Generator, *, strength: float) -> Tensor:
    """Brightness, contrast, then saturation, each times a factor uniform in [1 - s, 1 + s]."""
    factors = torch.empty(3, len(images)).uniform_(1 - strength, 1 + strength, generator=generator)
    brightness, contrast, saturation = factors.to(images.device)[:, :, None, None, None]
    pixels = (images.float() * brightness).clamp(0, 255)
    mean = _grey(pixels).mean(dim=(2, 3), keepdim=True)
    pixels = torch.lerp(mean, pixels, contrast).clamp(0, 255)
    pixels = torch.lerp(_grey(pixels), pixels, saturation).clamp(0, 255)
    return pixels.round().to(torch.uint8)


def _grey(pixels: Tensor) -> Tensor:
    """Luma of ITU-R BT.601, (B, 1, H, W)."""
    weights = pixels.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    return (pixels * weights).sum(dim=1, keepdim=True)
