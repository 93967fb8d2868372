"""People drawn by program: a seeded data set for re-identification, hard on purpose.

A person is a :class:`Look` (clothes, patterns, hair, skin, bag, build).  A small puppet in three
dimensions wears it, walks, turns, and is projected onto the crop; a :class:`Camera` then
photographs it in front of one of its own backgrounds, with its own tint, blur, noise and
resolution.  No picture of a real person is involved, and every image is a pure function of its
arguments.

How one crop comes about::

    identity -> Look  --.
                         >-- puppet: label map + shade map -> colours --.
    shot     -> Shot  --'                                                >-- Camera -> JPEG -> crop
                         background, passers-by, things in the way -----'

Looks, cameras and shots are defined in ``_world``, the puppet in ``_puppet``, backgrounds and
obstacles in ``_scenery``; here they come together into crops, and crops into a data set.

Lengths of the puppet are in *person heights*: its feet stand at 0, its crown is at 1.
"""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from gracl.data._puppet import Frame, draw_puppet
from gracl.data._scenery import background, draw_obstacle
from gracl.data._world import MOMENT, ORDER, RGB, Camera, Look, Shot, stream
from gracl.disk import put, told
from gracl.errors import DataError
from gracl.paths import is_folder, is_there

__all__ = ["Camera", "Look", "Shot", "draw_people", "draw_person"]

Size = tuple[int, int]  # (height, width)

OVERSAMPLE = 2  # drawn at twice the size, then averaged: smooth edges from unsmoothed drawing
MIN_SIZE = (32, 16)
CLEAN: RGB = (168, 170, 172)  # a plain wall


def draw_person(
    identity: int,
    *,
    camera: int,
    shot: int,
    size: Size = (128, 64),
    nuisance: float = 1.0,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Draw one crop of a person, a pure function of its arguments.

    Args:
        identity: Which person, 0 or more; the same number is the same person for one ``seed``.
        camera: Which camera, 0 or more: tint, blur, noise, resolution and backgrounds.
        shot: Which picture by that camera, 0 or more; four consecutive shots show four sides.
        size: Height and width in pixels, at least (32, 16).
        nuisance: Scales everything that is not identity: camera, pose, light, occlusion.  0 is the
            same clean front view for every camera and shot, 1 is hard.
        seed: Which world: people, cameras and shots all differ between seeds.

    Returns:
        The crop, RGB, uint8, of shape (height, width, 3).

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> crop = draw_person(7, camera=0, shot=1, size=(32, 16))
        >>> crop.shape, crop.dtype
        ((32, 16, 3), dtype('uint8'))
    """
    _check_drawing(size, nuisance, seed)
    for name, value in (("identity", identity), ("camera", camera), ("shot", shot)):
        _check_at_least(name, value, 0)
    look = Look.of(identity, seed)
    eye = Camera.of(camera, seed, nuisance)
    moment = Shot.of(identity, camera, shot, seed, nuisance)
    picture = _stage(
        look, moment, camera=camera, light=eye.light, size=size, nuisance=nuisance, seed=seed
    )
    rng = stream(seed, MOMENT, identity, camera, shot, 1)
    return _photograph(picture, eye, moment.exposure, rng)


def _stage(
    look: Look, shot: Shot, *, camera: int, light: float, size: Size, nuisance: float, seed: int
) -> Image.Image:
    """What there is to see, not yet photographed: background, person and things in the way."""
    h, w = (side * OVERSAMPLE for side in size)
    scene = background(camera, shot.scene, h, w, seed)
    left = int(shot.pan[0] * (scene.width - w))
    top = int(shot.pan[1] * (scene.height - h))
    picture = scene.crop((left, top, left + w, top + h))
    if nuisance < 1:
        picture = Image.blend(Image.new("RGB", (w, h), CLEAN), picture, nuisance)

    figures = [(look, shot, _frame(look, shot, w, h, 0.0))]
    if shot.obstacle == "person":
        other = Look.of(shot.stranger, seed)
        passing = Shot.of(shot.stranger, camera, 0, seed, nuisance)
        figures.append((other, passing, _frame(other, passing, w, h, 0.55 * shot.obstacle_at)))
    for who, pose, frame in figures:
        shadow, (x, y) = ImageDraw.Draw(picture, "RGBA"), frame(0.0, 0.015)
        for spread in (1.0, 0.8, 0.6):
            rx, ry = 0.2 * spread * frame.scale, 0.035 * spread * frame.scale
            shadow.ellipse((x - rx, y - ry, x + rx, y + ry), fill=(0, 0, 0, 40))
        draw_puppet(picture, who, pose, frame, light)
    if shot.obstacle not in ("none", "person"):
        draw_obstacle(picture, shot)
    return picture.reduce(OVERSAMPLE)


def _frame(look: Look, shot: Shot, width: int, height: int, aside: float) -> Frame:
    scale = 0.915 * height * look.stature * shot.zoom
    x = width * (0.5 + shot.shift[0] + aside)
    y = height * (0.965 + shot.shift[1])
    return Frame(scale, x, y)


def _photograph(
    picture: Image.Image, camera: Camera, exposure: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Optics, sensor and file format of a camera, in the order light passes them."""
    w, h = picture.size
    if camera.blur > 0:
        picture = picture.filter(ImageFilter.GaussianBlur(camera.blur * h))
    if camera.resolution < 1:
        small = (max(8, round(w * camera.resolution)), max(16, round(h * camera.resolution)))
        picture = picture.resize(small, Image.Resampling.BOX)
        picture = picture.resize((w, h), Image.Resampling.BICUBIC)
    picture = picture.convert("RGB", camera.mixing)
    ramp = 255 * np.clip(exposure * np.linspace(0, 1, 256), 0, 1) ** camera.gamma
    picture = picture.point(np.rint(ramp).astype(int).tolist() * 3)
    pixels = np.asarray(picture)
    if camera.noise > 0:
        grain = camera.noise * rng.standard_normal(pixels.shape, dtype=np.float32)
        pixels = np.clip(pixels + grain, 0, 255).astype(np.uint8)
    if camera.quality < 95:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=camera.quality)
        pixels = np.array(Image.open(file))
    return pixels


def draw_people(
    folder: str | Path,
    *,
    identities: int = 100,
    test_identities: int = 50,
    cameras: int = 4,
    images_per_camera: int = 4,
    size: Size = (128, 64),
    nuisance: float = 1.0,
    seed: int = 0,
) -> Path:
    """Write a data set of drawn people: ``images/*.jpg`` and, last of all, ``metadata.csv``.

    Every person appears ``images_per_camera`` times in every camera.  The table has one row per
    image: ``path`` (relative to the folder), ``identity`` (such as p0007), ``camera`` (such as c2)
    and ``split``: "train" for the first ``identities`` people, and for the ``test_identities``
    further ones "query" (one image per person and camera) or "gallery" (the others).  Images are
    numbered in a shuffled order, so that a file's name says nothing about who is in it.

    Args:
        folder: Where to write; it must be empty or not exist yet.
        identities: How many people to train on, at least 1.
        test_identities: How many further people to test on, 0 or more.
        cameras: How many cameras, at least 1.
        images_per_camera: Images per person and camera, at least 1, or 2 if there is a test part.
        size: Height and width of every image in pixels, at least (32, 16).
        nuisance: How hard, 0 or more; see :func:`draw_person`.
        seed: Which world.

    Returns:
        The folder.

    Raises:
        ValueError: If an argument is out of its range or the folder is not empty.
        DataError: If the folder cannot be written; nothing of what was drawn is left.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as empty:
        ...     folder = draw_people(empty, identities=2, test_identities=1, cameras=2,
        ...                          images_per_camera=2, size=(32, 16))
        ...     print(len(list(folder.glob("images/*.jpg"))))
        12
    """
    _check_drawing(size, nuisance, seed)
    _check_at_least("identities", identities, 1)
    _check_at_least("test_identities", test_identities, 0)
    _check_at_least("cameras", cameras, 1)
    _check_at_least("images_per_camera", images_per_camera, 2 if test_identities else 1)
    folder = Path(folder)
    _check_empty(folder)

    people = identities + test_identities
    shots = list(product(range(people), range(cameras), range(images_per_camera)))
    stream(seed, ORDER).shuffle(shots)
    rows = []
    with _cleared_if_it_fails(folder):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for number, (person, camera, shot) in enumerate(shots):
            crop = draw_person(
                person, camera=camera, shot=shot, size=size, nuisance=nuisance, seed=seed
            )
            path = f"images/{number:06d}.jpg"
            Image.fromarray(crop).save(folder / path, quality=95)
            split = "train" if person < identities else "query" if shot == 0 else "gallery"
            rows.append((path, f"p{person:04d}", f"c{camera}", split))

        # The table comes last and at once: a folder that has it is complete.
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("path", "identity", "camera", "split"))
        table.writerows(rows)
        put(folder / "metadata.csv", text.getvalue().encode(), DataError, "another folder")
    return folder


@contextmanager
def _cleared_if_it_fails(folder: Path) -> Iterator[None]:
    """Leaves the folder as it was, empty or not there, so that the same can be typed again."""
    was_there = folder.exists()
    try:
        with told(folder, DataError, "another folder"):
            yield
    except BaseException:
        shutil.rmtree(folder / "images", ignore_errors=True)
        if not was_there:
            with suppress(OSError):
                folder.rmdir()
        raise


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}; expected {least} or more: pass a larger {name}.")


def _check_drawing(size: Size, nuisance: float, seed: int) -> None:
    if len(size) != 2 or size[0] < MIN_SIZE[0] or size[1] < MIN_SIZE[1]:
        raise ValueError(
            f"size is {size}; expected (height, width) of at least {MIN_SIZE}: "
            "pass a larger size, such as (128, 64)."
        )
    if not (nuisance >= 0 and math.isfinite(nuisance)):
        raise ValueError(
            f"nuisance is {nuisance}; expected a finite number of 0 or more: "
            "pass 0 for clean pictures, 1 for hard ones."
        )
    _check_at_least("seed", seed, 0)


def _check_empty(folder: Path) -> None:
    if is_there(folder) and not is_folder(folder):
        raise ValueError(f"{folder} is a file; expected a folder or nothing: pass another path.")
    found = len(list(folder.iterdir())) if is_there(folder) else 0
    if found:
        state = "a finished" if (folder / "metadata.csv").exists() else "no finished"
        raise ValueError(
            f"{folder} holds {found} entries ({state} data set); expected an empty folder or none: "
            "delete it, or pass another path."
        )
