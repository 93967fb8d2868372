"""Which images are the same picture, pixel for pixel, and which nearly are.

Every file is opened once, however many crops are cut out of it, and of each crop little stays in
memory: a digest of its pixels, its size, and 16 x 16 grey values where near duplicates are looked for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from gracl.data.records import Box, Problem, Record
from gracl.data.store import Progress, crop, upright
from gracl.errors import ConfigError, ShapeError
from gracl.links import number_by_first
from gracl.neighbors import MEMORY, rows_in_block

SIDE = 16
"""Pictures are compared by SIDE x SIDE grey values."""
NEAR = 0.95
"""Correlation of grey values from which two images count as nearly the same. Measured
on three sets of crops: 1,680 such pairs among 5,572 frames of videos, all of one identity each; 1 and 0
among 3,776 and 1,134 photographs without bursts. From 0.9 on, pairs of two identities occur."""
FILES_AT_ONCE = 256
"""Files handed to the threads together, so that results never pile up behind a slow one."""

Crop = tuple[Path, Box | None]
"""What tells images apart: the file, and the part of it."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Fingerprint:
    """What is remembered of an image."""

    digest: bytes
    """The same for two images if they have the same size and the same pixels, and only then."""
    height: int
    width: int

    @staticmethod
    def of(image: Image.Image) -> Fingerprint:
        """That of one image."""
        digest = hashlib.sha256(f"{image.width} x {image.height}".encode())  # processors know this one
        digest.update(image.tobytes())
        return Fingerprint(digest.digest(), image.height, image.width)


def fingerprints(
    records: Iterable[Record], progress: Progress | None = None
) -> tuple[dict[Crop, Fingerprint], dict[Crop, Problem]]:
    """Reads every image once, upright and cut to its box.

    Args:
        records: images; one that is listed twice is read once.
        progress: called with (done, total) images.

    Returns:
        A fingerprint for each image that can be read, a problem for each other one.
    """
    return each_crop(records, lambda _, image: Fingerprint.of(image), progress)


def grey_values(image: Image.Image) -> NDArray[np.uint8]:
    """(SIDE * SIDE,) an image seen from far: the means of a grid of as many cells, or nearly so.

    >>> set(grey_values(Image.new("RGB", (40, 70), "white")).tolist())
    {255}
    """
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=1.0)  # the gap makes it quick
    return np.asarray(small.convert("L")).reshape(-1)


def near_duplicates(
    grey: NDArray[np.uint8], near: float = NEAR, *, memory: int = MEMORY // 4
) -> NDArray[np.int64]:
    """Groups of images that hang together by pairs that nearly are the same picture.

    Two images are such a pair if the correlation of their grey values is at least `near`, whatever
    the brightness and contrast of each. All pairs are compared, a block at a time. An image of one
    flat grey correlates with none.

    Args:
        grey: (N, D) grey values, a row an image.
        near: correlation in (0, 1], itself included.
        memory: bytes that one block of correlations may take, and the pairs found in it some times
            that; the result does not depend on it.

    Returns:
        (N,) group numbers. An image like no other has a number of its own.

    Raises:
        ShapeError, ConfigError: not (N, D); a correlation that is out of its range.

    >>> ramp = np.arange(9, dtype=np.uint8)
    >>> near_duplicates(np.stack([ramp, ramp[::-1], 20 * ramp + 3])).tolist()
    [0, 1, 0]
    """
    if grey.ndim != 2:
        raise ShapeError(f"grey values have shape {grey.shape}; expected (N, D), one row an image")
    check_near(near)
    centred = torch.from_numpy(grey.astype(np.float32))
    centred -= centred.mean(dim=1, keepdim=True)
    unit = torch.nn.functional.normalize(centred)
    n = len(unit)
    groups: NDArray[np.int64] = np.arange(n)
    enough = near - 1e-6  # a picture correlates with its copy by 1, up to rounding
    step = rows_in_block(unit, memory)
    for start in range(0, n, step):
        # Each pair once: rows of this block with themselves and all that follow. A block's pairs are
        # merged into groups at once, since among copies of one image there are n * n of them.
        block = unit[start : start + step] @ unit[start:].T
        rows, columns = (part.numpy() + start for part in torch.where(block >= enough))
        first, second = groups[rows], groups[columns]
        first, second = first[first != second], second[first != second]
        if len(first):
            pairs = np.ones(len(first), dtype=np.int8), (first, second)
            _, joined = connected_components(sparse.csr_array(pairs, shape=(n, n)), directed=False)
            groups = joined[groups].astype(np.int64)
    return number_by_first(groups)


def check_near(near: float) -> None:
    """A `ConfigError` for what is no correlation to be near by."""
    if not 0 < near <= 1:
        raise ConfigError(f"near is {near}; expected a correlation above 0 and up to 1, such as {NEAR}")


def each_crop(
    records: Iterable[Record],
    work: Callable[[Record, Image.Image], Result],
    progress: Progress | None = None,
) -> tuple[dict[Crop, Result], dict[Crop, Problem]]:
    """Does something with every image, in threads; each file is opened and decoded once.

    Args:
        records: images; one that is listed twice, whatever else is known of it, is worked on once.
        work: gets a record and its image: RGB, upright, cut to its box, in the file's own resolution.
            An error that it raises is the caller's.
        progress: called with (done, total) images.

    Returns:
        What `work` returned for each image that can be read, a problem for each other one.
    """
    once = {(record.path, record.box): record for record in records}
    by_file: dict[Path, list[Record]] = {}
    for record in once.values():
        by_file.setdefault(record.path, []).append(record)
    files = list(by_file.values())
    done, results, problems = 0, dict[Crop, Result](), dict[Crop, Problem]()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(files), FILES_AT_ONCE):
            part = files[start : start + FILES_AT_ONCE]
            for file, found in zip(part, pool.map(lambda f: _each_in(f, work), part), strict=True):
                for record, result in zip(file, found, strict=True):
                    if isinstance(result, Problem):
                        problems[record.path, record.box] = result
                    else:
                        results[record.path, record.box] = result
                    done += 1
                    if progress is not None:
                        progress(done, len(once))
    return results, problems


def _each_in(
    file: Sequence[Record], work: Callable[[Record, Image.Image], Result]
) -> list[Result | Problem]:
    """`each_crop` for the crops of one file."""
    try:
        picture = upright(file[0].path)
    except Exception as error:  # for broken headers, Pillow's readers raise what they like
        return [Problem(record.path, f"{type(error).__name__}: {error}") for record in file]
    found: list[Result | Problem] = []
    for record in file:
        try:
            image = crop(record, picture)
        except ValueError as error:
            found.append(Problem(record.path, f"{type(error).__name__}: {error}"))
            continue
        found.append(work(record, image))
    return found
