"""From images in whatever form to features: files, pictures in memory, crops from frames, streams.

`extract` is for data sets that are gone through again and again: it decodes them into the image store
first. `embed` reads each image once, keeps no pixels, and takes what never was a file.

Letters: N images, B images in a batch, D feature dimensions, H x W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gracl.data.parts import is_image
from gracl.data.readers import load_dataset
from gracl.data.records import Box, Dataset, Problem, Record, Records
from gracl.data.store import OnBad, decode, inside, resized, to_rgb, upright
from gracl.data.tables import pixel_box
from gracl.errors import ConfigError, DataError, ShapeError
from gracl.features import Features, join_features, no_features
from gracl.models.embedder import Embedder
from gracl.paths import is_folder, is_there
from gracl.precision import choose_precision
from gracl.training import choose_device

TABLES = {".csv", ".json", ".parquet"}
"""Endings of files that name images, rather than being one."""
_MISSING = object()


@dataclass(frozen=True, eq=False)
class Crop:
    """A part of a frame, as `crops` gives it."""

    frame: Image.Image
    """All of it, upright, in RGB."""
    box: tuple[float, ...]
    """x, y, w, h in its pixels, as given."""
    path: Path
    """The frame's file, or `frame-<number>`, from 0."""


Item = Record | Image.Image | NDArray[Any] | Crop | Problem
Images = str | Path | Records | Dataset | Item | Iterable[Any]
"""What can be embedded; an iterable is of any of these, at any depth."""
_Decoded = tuple[Record, NDArray[np.uint8]] | Problem


def embed(
    model: Embedder,
    images: Images,
    *,
    batch_size: int = 256,
    device: str | None = None,
    on_bad: OnBad = "refuse",
    progress: Callable[[int, int | None], None] | None = None,
) -> Features:
    """The features of images in whatever form, in their order.

    They are those of `gracl.extract` up to rounding: images are decoded, turned as EXIF says, cut to
    their box and resized in the same way.

    Args:
        model: used in eval mode and left in the mode it was in.
        images: one or an iterable of these, which may be mixed.

            * A path of an image; of a folder or table, read by `gracl.load_dataset` (training images,
              then query, then gallery, each image once).
            * `Record`, `Records`, `Dataset`.
            * A picture of PIL; an array of uint8, (H, W, 3) in RGB, (H, W, 4), (H, W) or of several
              such, (N, H, W, 3); grey as uint16 too, its own range spread as that of a 16-bit file.
            * What `crops` gives.
        batch_size: images at a time; the features do not depend on it beyond rounding.
        device: "auto", "cpu", "cuda", ...; the model is moved there and stays. None: where it lies.
        on_bad: an image that cannot be read, or a box without a pixel of its frame: "refuse" stops
            with its name, "skip" leaves it out and lists it in `left_out`.
        progress: called with (done, total) after each batch; total is None for an iterator.

    Returns:
        (N, D) float32 unit rows on the CPU, with their records and the model's fingerprint; (0, D) of
        an iterable without an image.

    Raises:
        DataError: an image cannot be read, or with "skip" none can.
        ShapeError: an array that is no image in uint8, or something that is no image at all.
        ConfigError: no such device.

    >>> from gracl.models.embedder import build_embedder
    >>> model = build_embedder("test_resnet", size=(64, 32))
    >>> found = embed(model, [np.zeros((48, 20, 3), np.uint8), Image.new("L", (30, 90))])
    >>> found.features.shape, [str(record.path) for record in found.records]
    (torch.Size([2, 96]), ['image-0', 'image-1'])
    """
    parts: list[Features] = []
    images = open_images(images)
    done, total = 0, _count(images)
    nothing = _prepared(model, batch_size, device)
    for part, _ in _batches(model, images, nothing, batch_size, on_bad):
        parts.append(part)
        done += len(part) + len(part.left_out)
        if progress is not None:
            progress(done, total)
    found = join_features(nothing, *parts)
    if found.left_out and not len(found):
        first = found.left_out[0]
        raise DataError(
            f"none of {len(found.left_out)} images can be used; the first, {first.path}: {first.reason}"
        )
    return found


def embed_batches(
    model: Embedder,
    images: Images,
    *,
    batch_size: int = 256,
    device: str | None = None,
    on_bad: OnBad = "refuse",
) -> Iterator[Features]:
    """As `embed`, a batch at a time: for streams without an end, and for more than memory holds.

    An iterator is asked for B images, no more, before their features are yielded. Bad images that are
    left out make a batch smaller; one without any good image has (0, D) features.

    Args:
        model: see `embed`; its fingerprint is taken once, at the start.
        images: see `embed`.
        batch_size: B.
        device: see `embed`.
        on_bad: see `embed`.

    Raises:
        ConfigError: no such device, or a batch of nothing; at once. Else as `embed`, as it goes.

    >>> from gracl.models.embedder import build_embedder
    >>> model = build_embedder("test_resnet", size=(64, 32))
    >>> frames = (np.full((48, 20, 3), n, np.uint8) for n in range(5))
    >>> [len(part) for part in embed_batches(model, frames, batch_size=2)]
    [2, 2, 1]
    """
    seen = embed_with_pixels(model, images, batch_size=batch_size, device=device, on_bad=on_bad)
    return (part for part, _ in seen)


def embed_with_pixels(
    model: Embedder,
    images: Images,
    *,
    batch_size: int = 256,
    device: str | None = None,
    on_bad: OnBad = "refuse",
) -> Iterator[tuple[Features, NDArray[np.uint8]]]:
    """As `embed_batches`, with (B, 3, H, W) of each batch: the pixels that the model saw, in RGB.

    Args:
        model: see `embed_batches`, also for all below.
        images: see there.
        batch_size: see there.
        device: see there.
        on_bad: see there.

    >>> from gracl.models.embedder import build_embedder
    >>> model = build_embedder("test_resnet", size=(64, 32))
    >>> ((found, pixels),) = embed_with_pixels(model, Image.new("L", (30, 90), 7))
    >>> pixels.shape, int(pixels.max())
    ((1, 3, 64, 32), 7)
    """
    nothing = _prepared(model, batch_size, device)
    return _batches(model, images, nothing, batch_size, on_bad)


def crops(frames: Iterable[Any], boxes: Iterable[Iterable[Iterable[float]]]) -> Iterator[Crop]:
    """The boxes of each frame, as something to embed; a frame is asked for when it is needed.

    Args:
        frames: arrays or pictures as `embed` takes them, or paths of images; in RGB. Frames of a
            video may come from any reader, such as OpenCV's (there, turn BGR round: `f[:, :, ::-1]`).
        boxes: for each frame its boxes as x, y, w, h in pixels, `[]` where there is none. What reaches
            beyond the frame is cut off. One that is empty, or outside, is a bad image to `embed`.

    Raises:
        DataError: a frame cannot be read, or there are more frames than lists of boxes, or fewer.
        ShapeError: a frame is no image in uint8.

    >>> frame = np.zeros((90, 160, 3), np.uint8)
    >>> [(str(crop.path), crop.box) for crop in crops([frame, frame], [[(5, 5, 20, 60)], []])]
    [('frame-0', (5, 5, 20, 60))]
    """
    pairs: Iterable[tuple[Any, Any]] = zip_longest(frames, boxes, fillvalue=_MISSING)
    for number, (frame, found) in enumerate(pairs):
        if frame is _MISSING or found is _MISSING:
            fewer = "frames" if frame is _MISSING else "lists of boxes"
            raise DataError(
                f"there are only {number} {fewer}; expected a list of boxes for each frame, [] where "
                "there is none"
            )
        picture, path = _frame(frame, number)
        for box in found:
            yield Crop(picture, tuple(box), path)


def _frame(frame: Any, number: int) -> tuple[Image.Image, Path]:
    if not isinstance(frame, str | os.PathLike):
        return to_rgb(_picture(frame)), _path_of(frame, f"frame-{number}")
    path = Path(frame).expanduser()
    try:
        return upright(path), path
    except Exception as error:  # for broken headers, Pillow's readers raise what they like
        raise DataError(f"frame {number}, {path}, cannot be read: {_words(error)}") from error


# -- which images ---------------------------------------------------------------------------------


def open_images(images: Images) -> Images:
    """A folder or a table as what it names, so that it is read once and can be counted."""
    if not isinstance(images, str | os.PathLike):
        return images
    path = Path(images).expanduser()
    return Record(path) if _is_one(path) else load_dataset(path)


def _is_one(path: Path) -> bool:
    """Whether a path is that of one image, by its name where nothing is there."""
    if is_folder(path) or path.suffix.lower() in TABLES:
        return False
    return is_image(path.name) or is_there(path)


def each_item(images: Images) -> Iterator[Item]:
    """One image after the other, in order, files as records.

    What the reader of a folder or table could not use goes first, to be refused at once.

    Raises:
        ShapeError: something that is no image, nor an iterable of such.
    """
    images = open_images(images)
    if isinstance(images, Record | Image.Image | Crop | Problem) or _is_picture(images):
        yield images  # type: ignore[misc]
    elif isinstance(images, Dataset):
        yield from images.problems
        yield from dict.fromkeys((*images.train, *images.query, *images.gallery))
    elif _may_be_iterated(images):
        for inner in images:  # type: ignore[union-attr]
            yield from each_item(inner)
    else:
        hint = ". Type gracl.from_dataframe(table)" if hasattr(images, "columns") else ""
        hint = ". Type images.cpu().numpy(), as (N, H, W, 3)" if isinstance(images, Tensor) else hint
        raise ShapeError(
            f"found a {type(images).__name__}; expected paths, pictures of PIL, arrays (H, W, 3) of "
            f"uint8, gracl's records, crops, or an iterable of these{hint}"
        )


def _is_picture(images: Any) -> bool:
    return isinstance(images, np.ndarray) and images.ndim != 4 and images.dtype.kind not in "OU"


def _may_be_iterated(images: Any) -> bool:
    is_table = hasattr(images, "columns")
    return isinstance(images, Iterable) and not (
        isinstance(images, Tensor | Mapping | bytes) or is_table
    )


def _count(images: Images) -> int | None:
    """How many there are, where that can be known before the work."""
    if isinstance(images, Dataset):
        return sum(1 for _ in each_item(images))
    if _is_single(images):
        return 1
    if isinstance(images, Sequence | np.ndarray) and all(map(_is_single, images)):
        return len(images)
    return None


def _is_single(images: Any) -> bool:
    if isinstance(images, str | os.PathLike):
        return _is_one(Path(images).expanduser())
    return isinstance(images, Record | Image.Image | Crop) or _is_picture(images)


# -- pixels ---------------------------------------------------------------------------------------


def _prepared(model: Embedder, batch_size: int, device: str | None) -> Features:
    """Moves the model to its device; gives features of no image."""
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; expected 1 or more")
    if device is not None:
        model.to(choose_device(device))
    return no_features(model)


def _batches(
    model: Embedder, images: Images, nothing: Features, batch_size: int, on_bad: OnBad
) -> Iterator[tuple[Features, NDArray[np.uint8]]]:
    items = enumerate(each_item(images))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        while batch := _decode(islice(items, batch_size), model.size, pool):
            bad = tuple(found for found in batch if isinstance(found, Problem))
            if bad and on_bad == "refuse":
                _refuse(bad)
            good = [found for found in batch if not isinstance(found, Problem)]
            records = Records(tuple(record for record, _ in good))
            pixels = np.stack([seen for _, seen in good]) if good else _no_pixels(model)
            features = embed_pixels(model, pixels) if good else nothing.features
            yield replace(nothing, features=features, records=records, left_out=bad), pixels


def _refuse(bad: Sequence[Problem]) -> None:
    listed = "; ".join(f"{problem.path}: {problem.reason}" for problem in bad[:5])
    more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    raise DataError(
        f"found what cannot be used as an image: {listed}{more}. Mend or remove it, or leave it "
        "out by on_bad='skip' (--on-bad skip)"
    )


def _decode(
    items: Iterable[tuple[int, Item]], size: tuple[int, int], pool: ThreadPoolExecutor
) -> list[_Decoded]:
    """Files several at once. What is in memory at once: a reader may reuse a frame's memory."""
    waiting: list[_Decoded | Future[_Decoded]] = [
        pool.submit(_attempt, item, number, size)
        if isinstance(item, Record)
        else _attempt(item, number, size)
        for number, item in items
    ]
    return [found.result() if isinstance(found, Future) else found for found in waiting]


def _attempt(item: Item, number: int, size: tuple[int, int]) -> _Decoded:
    """One image's pixels, or what is wrong with it."""
    if isinstance(item, Problem):
        return item
    path = _path_of(item, f"image-{number}")
    try:
        if isinstance(item, Record):
            return item, decode(item, size)
        if isinstance(item, Crop):
            left, top, right, bottom = inside(pixel_box(item.box), item.frame)
            box = Box(left, top, right - left, bottom - top)
            return Record(path, box=box), resized(item.frame.crop((left, top, right, bottom)), size)
        return Record(path), resized(to_rgb(_picture(item)), size)
    except ShapeError:
        raise  # a mistake in the call, not in an image
    except Exception as error:  # for broken headers, Pillow's readers raise what they like
        return Problem(path, _words(error))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _path_of(item: Any, otherwise: str) -> Path:
    """Where an image comes from, or what it is called."""
    if isinstance(item, Record | Crop):
        return item.path
    return Path(getattr(item, "filename", "") or otherwise)  # of a file that PIL has opened


def _picture(image: Any) -> Image.Image:
    """A picture of PIL as it is; an array as one."""
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, np.ndarray):
        raise ShapeError(f"found a {type(image).__name__}; expected an array (H, W, 3) of uint8")
    colour = image.ndim == 3 and image.shape[2] in (1, 3, 4) and image.dtype == np.uint8
    grey = image.ndim == 2 and image.dtype in (np.uint8, np.uint16)
    if not (colour or grey) or not image.size:
        raise ShapeError(
            f"found an array {image.shape} of {image.dtype}; expected (H, W, 3) in RGB or (H, W), of "
            f"uint8 in 0..255{_hint(image)}"
        )
    return Image.fromarray(np.ascontiguousarray(image[:, :, 0] if image.shape[2:] == (1,) else image))


def _hint(image: NDArray[Any]) -> str:
    """What to type instead."""
    turn = ".transpose(1, 2, 0)" if image.ndim == 3 and image.shape[0] in (1, 3, 4) else ""
    if image.dtype.kind == "f" and image.size:
        if np.nanmax(image) <= 1:
            return f". Type (255 * image{turn}).round().astype('uint8')"
        return f". Type image{turn}.round().clip(0, 255).astype('uint8')"
    return f". Type image{turn}" if turn else ""


def _no_pixels(model: Embedder) -> NDArray[np.uint8]:
    return np.empty((0, 3, *model.size), dtype=np.uint8)


def embed_pixels(model: Embedder, pixels: NDArray[np.uint8]) -> Tensor:
    """(B, D) unit rows on the CPU, as `extract` computes them.

    Args:
        model: used in eval mode and left in the mode it was in.
        pixels: (B, 3, H, W) in RGB, at the model's size, as `embed_with_pixels` gives them.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), choose_precision("float32", device).forward():
            features: Tensor = model(torch.from_numpy(pixels).to(device))
            return features.float().cpu()
    finally:
        model.train(training)
