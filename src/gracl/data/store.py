"""The image store: every image decoded once, at training size, into one memory-mapped array.

An epoch reads uint8 rows and never decodes again. Stores lie in gracl's own cache folder, under a
name made from what went in (each file's path, size, time of change and crop box) and from how it was
decoded, so a changed image or size makes a new store and an unchanged one is opened at once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from gracl.data.records import Box, Problem, Record, Records
from gracl.disk import OTHER_CACHE, UNFINISHED, require_room, told
from gracl.errors import DataError, RunError, some
from gracl.lock import held

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raised whenever the same file would decode to other pixels."""
MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: a bomb, or not a crop."""
MAX_SIDE = 100_000
"""A picture of a hundred million by one takes gigabytes to be resized."""
PROGRAMS = ("EPS",)
"""What Pillow hands to another program (Ghostscript), which executes it: of no end, or worse."""

OnBad = Literal["skip", "refuse"]
Progress = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True)
class ImageStore:
    """Decoded images and the records they were made from, in the same order."""

    records: Records
    images: Tensor
    """(N, 3, H, W) uint8 RGB, memory-mapped; read it, do not write into it."""
    problems: tuple[Problem, ...] = ()
    """Images that could not be decoded and are left out of `records`."""

    def __len__(self) -> int:
        return len(self.records)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.images.shape[2], self.images.shape[3]


def open_store(
    records: Records,
    *,
    size: tuple[int, int],
    on_bad: OnBad = "skip",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> ImageStore:
    """Opens the store of these images, decoding them first if that was not done before.

    Two processes may do so at once: each builds its own and the first to finish is kept. A process
    that is killed on the way leaves nothing that is ever opened.

    Args:
        records: what to decode; only paths and boxes matter.
        size: (height, width) that each image is resized to (bicubic), whatever its proportions.
        on_bad: "skip" leaves images out that cannot be decoded and lists them in `problems`;
            "refuse" raises a `DataError` that names them.
        cache: the folder for stores; None is `$GRACL_CACHE`, or `gracl` in the user's cache folder.
        progress: called with (done, total) while decoding.

    Raises:
        DataError: no image is left, or one is bad and `on_bad` is "refuse".
    """
    if not len(records):
        raise DataError("there are no images to open: the list of records is empty")
    folder = (cache or cache_folder()) / _key(records, size)
    if not (folder / "store.json").is_file():
        start = time.perf_counter()
        _build(folder, records, size, progress)
        seconds = time.perf_counter() - start
        if seconds >= 1:
            speed = len(records) / seconds
            logger.info("decoded %d images in %.0f s, %.0f a second", len(records), seconds, speed)
    bad, array = _opened(folder, len(records), size)
    problems = tuple(Problem(records[i].path, why) for i, why in bad.items())
    if problems and on_bad == "refuse":
        listed = "; ".join(f"{p.path}: {p.reason}" for p in problems[:5])
        raise DataError(
            f"{len(problems)} of {len(records)} images cannot be used: {listed}. Mend or remove "
            "them, or set data.on_bad to skip"
        )
    if len(problems) == len(records):
        raise DataError(
            f"none of {len(records)} images can be decoded; the first, {problems[0].path}: "
            f"{problems[0].reason}"
        )
    good = [i for i in range(len(records)) if i not in bad]
    return ImageStore(records.take(good), torch.from_numpy(array), problems)


def _opened(
    folder: Path, count: int, size: tuple[int, int]
) -> tuple[dict[int, str], NDArray[np.uint8]]:
    """What is bad, by place among the records, with the reason; and the images of all others.

    Raises:
        DataError: the store is damaged.
    """
    try:
        told = json.loads((folder / "store.json").read_text(encoding="utf-8"))["bad"]
        bad = {int(place): str(why) for place, why in told.items()}
        array = np.load(folder / "images.npy", mmap_mode="c")
        expected = (count - len(bad), 3, *size)
        if not bad.keys() <= set(range(count)) or (array.shape, array.dtype) != (expected, np.uint8):
            raise ValueError(f"it holds {array.dtype} {array.shape}; expected uint8 {expected}")
    except (
        OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, RecursionError,
    ) as error:  # fmt: skip
        raise DataError(
            f"the image store {folder} is damaged ({error}). Delete that folder; the next command "
            "makes it anew"
        ) from error
    return bad, array


def cache_folder() -> Path:
    """Where stores lie unless the caller says otherwise."""
    if "GRACL_CACHE" in os.environ:
        return Path(os.environ["GRACL_CACHE"])
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gracl"


def decode(record: Record, size: tuple[int, int]) -> NDArray[np.uint8]:
    """One image as (3, H, W) uint8 RGB: upright, cut to its box, resized.

    Raises:
        OSError, ValueError: what is wrong with the file, in words.
    """
    # JPEG can be decoded at 1/2, 1/4 or 1/8; never below the size that is wanted here.
    draft = 2 * max(size) if record.box is None else None
    return resized(crop(record, upright(record.path, draft=draft)), size)


def resized(picture: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture in RGB as (3, H, W) uint8, whatever its proportions: bicubic."""
    height, width = size
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture).transpose(2, 0, 1)


def upright(path: Path, *, draft: int | None = None) -> Image.Image:
    """A whole picture in RGB, turned as its camera was held.

    Args:
        path: the file.
        draft: a picture of so many pixels a side is enough, if that is quicker to decode.

    Raises:
        OSError, ValueError: what is wrong with the file, in words.
    """
    try:
        return _opened_upright(path, draft)
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:  # for broken headers, Pillow's readers raise what they like
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _opened_upright(path: Path, draft: int | None) -> Image.Image:
    with Image.open(path) as opened:
        if opened.format in PROGRAMS:
            raise ValueError(
                f"it is {opened.format}, which is a program and not a picture; save it as PNG"
            )
        if is_too_large(opened):
            raise ValueError(
                f"{opened.width} x {opened.height} pixels; the largest that is decoded has "
                f"{MAX_PIXELS:,}, and no side of more than {MAX_SIDE:,}"
            )
        if draft is not None:
            opened.draft("RGB", (draft, draft))
        return to_rgb(opened)


def is_too_large(picture: Image.Image) -> bool:
    """Whether a picture is one that is not decoded: its head alone is looked at."""
    return picture.width * picture.height > MAX_PIXELS or max(picture.size) > MAX_SIDE


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any picture in 8 bits of red, green and blue, turned as its camera was held; always a copy.

    >>> to_rgb(Image.new("I;16", (8, 4), 4000)).mode
    'RGB'
    """
    image = ImageOps.exif_transpose(picture)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _to_8_bit(image)
    if "transparency" in image.info:
        image = image.convert("RGBA")  # what Pillow asks for, with a warning, of palette images
    return image if image.mode == "RGB" else image.convert("RGB")


def crop(record: Record, picture: Image.Image) -> Image.Image:
    """A record's part of its upright picture.

    Raises:
        ValueError: its box lies outside.
    """
    return picture if record.box is None else picture.crop(inside(record.box, picture))


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Grey images of more than 8 bits, their own range spread over 0..255.

    Cameras that write them (thermal, depth) use no common range, so there is no fixed factor.
    """
    rows = max(1, 2**22 // image.width)  # at a time: as float64 a picture takes eight times its bytes

    def strips() -> Iterator[tuple[int, NDArray[np.float64]]]:
        for top in range(0, image.height, rows):
            strip = image.crop((0, top, image.width, min(top + rows, image.height)))
            yield top, np.asarray(strip, dtype=np.float64)

    extremes = [(values.min(), values.max()) for _, values in strips()]
    low, high = np.min([least for least, _ in extremes]), np.max([most for _, most in extremes])
    if not np.isfinite([low, high]).all():
        raise ValueError("its values are not all finite numbers; write others where there are none")
    grey = np.empty((image.height, image.width), dtype=np.uint8)
    for top, values in strips():
        grey[top : top + rows] = (values - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(grey)


def inside(box: Box, image: Image.Image) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the part of a box that lies on an image.

    Raises:
        ValueError: no part of it does.

    >>> inside(Box(-2, 1, 6, 9), Image.new("RGB", (8, 4)))
    (0, 1, 4, 4)
    """
    x, y, width, height = box
    left, top = max(0, x), max(0, y)
    right, bottom = min(image.width, x + width), min(image.height, y + height)
    if left >= right or top >= bottom:
        raise ValueError(
            f"the crop box {tuple(box)} lies outside the image of {image.width} x {image.height} pixels"
        )
    return left, top, right, bottom


def _key(records: Records, size: tuple[int, int]) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, PIL.__version__, *size]).encode())
    for record in records:
        try:
            stat = record.path.stat()
            seen = [stat.st_size, stat.st_mtime_ns]
            if not os.access(record.path, os.R_OK):  # another store, once the permission is there
                seen.append(0)
        except OSError:
            seen = [-1, -1]
        digest.update(json.dumps([os.path.abspath(record.path), seen, record.box]).encode())  # noqa: PTH100
    return digest.hexdigest()[:32]


def _build(folder: Path, records: Records, size: tuple[int, int], progress: Progress | None) -> None:
    """Writes a store beside its final place, then moves it there in one step."""
    into = f"the image store into {folder.parent}"
    with told(folder, DataError, OTHER_CACHE, what=into):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(folder.parent)
        needed = len(records) * 3 * math.prod(size)
        what = f"the image store of {len(records)} images"
        require_room(folder.parent, needed, what, DataError, OTHER_CACHE)
        unfinished = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}{UNFINISHED}")
        unfinished.mkdir()
        try:
            with _as_maker(unfinished):
                bad = _decode_all(unfinished / "images.npy", records, size, progress)
                _require_unchanged(folder.name, records, size, bad)
                about = {"images": len(records) - len(bad), "size": list(size), "bad": bad}
                (unfinished / "store.json").write_text(json.dumps(about), encoding="utf-8")
            _take_name(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _as_maker(unfinished: Path) -> Iterator[None]:
    """Shows others that this folder is being worked in, where the file system has locks."""
    with ExitStack() as stack:
        with suppress(RunError):
            stack.enter_context(held(unfinished, doing="made"))
        yield


def _take_name(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        if not (folder / "store.json").is_file():
            raise
        # another process was first; its store has the same content


def _require_unchanged(key: str, records: Records, size: tuple[int, int], bad: dict[str, str]) -> None:
    """Refuses a store of images that came, went or changed meanwhile: it would not be theirs.

    Raises:
        DataError: some did; those that are gone, and those that could not be read, are named.
    """
    if _key(records, size) == key:
        return
    gone = [record.path for record in records if not record.path.is_file()]
    named = gone or [records[int(i)].path for i in bad]
    what = f"{len(gone)} of {len(records)} images vanished" if gone else "images changed"
    listed = f": {some(named)}" if named else ""
    raise DataError(
        f"{what} while they were decoded{listed}. Put them back, or wait until whoever changes them is "
        "done, and type the same again"
    )


def _decode_all(
    path: Path, records: Records, size: tuple[int, int], progress: Progress | None
) -> dict[str, str]:
    """Decodes into an array file; returns what was bad, by place in `records`, with the reason.

    Rows of bad images are closed up, so row r of the file is the r-th good record.
    """
    bad: dict[str, str] = {}

    def attempt(record: Record) -> NDArray[np.uint8] | str:
        try:
            return decode(record, size)
        except Exception as error:  # for broken headers, Pillow's readers raise what they like
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

    row = 0
    # Not by a memory map: a write into one that the disk has no room for ends the process.
    with path.open("wb") as file, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        begin = _write_head(file, len(records), size)
        # In slices, so that decoded images never wait in memory for more than a moment.
        for start in range(0, len(records), 1024):
            for i, result in enumerate(pool.map(attempt, records[start : start + 1024]), start):
                if isinstance(result, str):
                    bad[str(i)] = result
                else:
                    file.write(np.ascontiguousarray(result).data)
                    row += 1
                if progress is not None:
                    progress(i + 1, len(records))
        file.seek(0)
        if _write_head(file, row, size) != begin:  # NumPy leaves room for any number of rows
            raise OSError(f"the head of {path} has another length now")
        file.flush()
        os.fsync(file.fileno())
    return bad


def _write_head(file: IO[bytes], rows: int, size: tuple[int, int]) -> int:
    """What an array file begins with; gives where its numbers begin."""
    about = {"descr": "|u1", "fortran_order": False, "shape": (rows, 3, *size)}
    np.lib.format.write_array_header_1_0(file, about)
    return file.tell()


def _remove_left(cache: Path) -> None:
    """Removes what killed processes left; whoever is still at work holds a lock, whatever the clock."""
    for left in cache.glob(f"*{UNFINISHED}"):
        if not (left / "images.npy").exists() or (left / "store.json").exists():
            continue  # not locked yet, or no longer
        with suppress(RunError, OSError), held(left, doing="removed"):
            shutil.rmtree(left, ignore_errors=True)
