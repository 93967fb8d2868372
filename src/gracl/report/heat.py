"""Activation maps laid over pictures."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gracl.activation import activation_maps
from gracl.data.records import Record
from gracl.data.store import ImageStore
from gracl.data.thumbnails import QUALITY, thumbnail
from gracl.errors import DataError, ShapeError
from gracl.models.embedder import Embedder
from gracl.report.album import HEIGHT, Album, Shot

IMAGES = 12
RAMP = np.array([[20, 16, 60], [116, 28, 110], [222, 73, 62], [253, 174, 60], [252, 250, 160]])
"""From weak to strong: its lightness rises all the way, so it can be read without colours."""


@dataclass(frozen=True)
class Heat:
    """An image, and where its features are strong."""

    image: Shot
    map: Shot


def heat_maps(model: Embedder, images: ImageStore, album: Album, *, seed: int) -> list[Heat]:
    """Activation maps of images drawn at random; none of a model whose features are no grid.

    Args:
        model: whose last features are looked at.
        images: what it sees.
        album: where the pictures are put.
        seed: of the draw.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(images))[:IMAGES])
    pixels = images.images[torch.from_numpy(rows)]
    device = next(model.parameters()).device
    try:
        maps = activation_maps(model, pixels.to(device)).cpu().numpy()
    except ShapeError:
        return []
    return [
        Heat(album.place(record), album.paste(record, overlay(picture, strength)))
        for record, strength in zip(images.records.take(rows), maps, strict=True)
        if (picture := _picture(record)) is not None
    ]


def overlay(picture: Image.Image, strength: NDArray[np.float32]) -> bytes:
    """A picture in grey under colours of strength, as JPEG of its size.

    Args:
        picture: in RGB.
        strength: (H, W) in [0, 1]; resized to the picture.

    >>> overlay(Image.new("RGB", (4, 8)), np.zeros((64, 32), np.float32))[:2]
    b'\\xff\\xd8'
    """
    grey = np.asarray(picture.convert("L"), dtype=np.float32)
    at = np.asarray(Image.fromarray(strength).resize(picture.size, Image.Resampling.BILINEAR))
    stops = np.linspace(0, 1, len(RAMP))
    heat = np.stack([np.interp(at, stops, channel) for channel in RAMP.T], axis=2)
    blend = np.clip(0.4 * grey[:, :, None] + 0.6 * heat, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blend).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _picture(record: Record) -> Image.Image | None:
    """An image as the report shows it; None where its file can no longer be read."""
    try:
        return Image.open(io.BytesIO(thumbnail(record, height=HEIGHT)))
    except DataError:
        return None
