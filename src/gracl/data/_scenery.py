"""What is around a drawn person: a camera's backgrounds, and things that stand in the way."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from gracl.data._world import HAZINESS, RGB, SCENERY, Shot, stream

HAZE: RGB = (154, 156, 154)  # the air of the scenes
SCENES = ("brick", "shop", "hedge", "plaster", "fence")


@lru_cache(maxsize=64)
def background(camera: int, scene: int, height: int, width: int, seed: int) -> Image.Image:
    """One of a camera's backgrounds, three times as wide as the crop: shots pan over it."""
    rng = stream(seed, SCENERY, camera, scene)
    kind = SCENES[int(rng.integers(len(SCENES)))]
    picture = Image.new("RGB", (3 * width, height + height // 4))
    ground = int(picture.height * rng.uniform(0.6, 0.74))
    draw = ImageDraw.Draw(picture)
    _draw_wall(draw, kind, picture.width, picture.height, ground, rng)
    _draw_floor(draw, picture.width, picture.height, ground, rng)
    picture = picture.filter(ImageFilter.GaussianBlur(height / 60))
    return Image.blend(picture, Image.new("RGB", picture.size, HAZE), HAZINESS)


def _draw_wall(
    draw: ImageDraw.ImageDraw, kind: str, w: int, h: int, ground: int, rng: np.random.Generator
) -> None:
    """What stands behind the people, down to the row where the ground begins."""
    wall = _tone(rng, 120, 180)
    draw.rectangle((0, 0, w, h), fill=wall)
    if kind == "brick":
        step = max(4, h // 30)
        for row, y in enumerate(range(0, ground, step)):
            for x in range(-step * (row % 2), w, 2 * step):
                brick = (x, y, x + 2 * step - 2, y + step - 2)
                draw.rectangle(brick, fill=_vary(rng, wall, 14))
    elif kind == "shop":
        pane = int(w / 3 * rng.uniform(0.6, 1.1))
        for x in range(0, w, pane):
            glass, middle = _tone(rng, 90, 150), x + pane // 2
            draw.rectangle((x + 4, h // 6, x + pane - 4, ground - h // 14), fill=glass)
            glint = [(x + 8, ground - h // 9), (middle, h // 6), (middle + 14, h // 6)]
            draw.polygon(glint, fill=_vary(rng, _lighter(glass), 6))
        draw.rectangle((0, 0, w, h // 8), fill=_tone(rng, 60, 220))
    elif kind == "hedge":
        leaf = (92, 124, 84)
        draw.rectangle((0, 0, w, h // 5), fill=_vary(rng, (176, 204, 226), 16))
        draw.rectangle((0, h // 6, w, ground), fill=leaf)
        for _ in range(260):
            px, py = rng.uniform(0, w), rng.uniform(h / 7, ground)
            draw.circle((px, py), rng.uniform(0.02, 0.05) * h, fill=_vary(rng, leaf, 24))
    elif kind == "fence":
        draw.rectangle((0, 0, w, h // 3), fill=_vary(rng, (190, 206, 220), 16))
        step = max(4, w // 18)
        for x in range(0, w, step):
            draw.rectangle((x, h // 7, x + step - 3, ground), fill=_vary(rng, wall, 10))
    else:  # plaster with posters
        for _ in range(5):
            px, py = rng.uniform(0, w), rng.uniform(0.1, 0.4) * h
            poster = (px, py, px + rng.uniform(0.2, 0.6) * w / 3, py + rng.uniform(0.1, 0.25) * h)
            draw.rectangle(poster, fill=_tone(rng, 60, 230), outline=(240, 240, 236), width=3)


def _draw_floor(
    draw: ImageDraw.ImageDraw, w: int, h: int, ground: int, rng: np.random.Generator
) -> None:
    """Grass, asphalt or paving slabs from the row ``ground`` on, with a kerb."""
    floor = (112, 132, 92) if rng.random() < 0.3 else _tone(rng, 110, 160)
    for y in range(ground, h):  # lighter towards the viewer, which reads as depth
        share = 0.85 + 0.3 * (y - ground) / (h - ground)
        draw.line((0, y, w, y), fill=tuple(min(255, int(c * share)) for c in floor))
    if rng.random() < 0.6:  # slabs, in perspective
        for k in range(-12, 28):
            x = k * w / 16
            draw.line((x, ground, 2.2 * x - 0.6 * w, h), fill=_vary(rng, floor, 12), width=2)
        for k in range(1, 6):
            joint = ground + (h - ground) * (k / 6) ** 1.6
            draw.line((0, joint, w, joint), fill=_vary(rng, floor, 12), width=2)
    draw.rectangle((0, ground - h // 60, w, ground), fill=_vary(rng, _lighter(floor), 8))


def draw_obstacle(picture: Image.Image, shot: Shot) -> None:
    """Something that stands between the camera and the person."""
    rng = stream(shot.stranger)
    w, h = picture.size
    draw = ImageDraw.Draw(picture)
    x = w * (0.5 + 0.4 * shot.obstacle_at)
    colour = _tone(rng, 40, 190)
    if shot.obstacle == "pole":
        r = w * rng.uniform(0.04, 0.1)
        draw.rectangle((x - r, 0, x + r, h), fill=colour)
        draw.rectangle((x - r * 0.4, 0, x + r * 0.2, h), fill=_lighter(colour))
    elif shot.obstacle == "box":
        r, top = w * rng.uniform(0.2, 0.4), h * rng.uniform(0.55, 0.8)
        draw.rounded_rectangle((x - r, top, x + r, h * 1.1), radius=w * 0.05, fill=colour)
        draw.rectangle((x - r, top + h * 0.03, x + r, top + h * 0.05), fill=_lighter(colour))
    elif shot.obstacle == "bush":
        for _ in range(40):
            r = w * rng.uniform(0.05, 0.1)
            bx, by = x + w * rng.normal(0, 0.16), h * (1.0 - abs(rng.normal(0, 0.13)))
            draw.circle((bx, by), r, fill=_vary(rng, (60, 110, 54), 26))


def _tone(rng: np.random.Generator, low: int, high: int) -> RGB:
    """A subdued colour: a grey of any brightness, slightly tinted."""
    return _vary(rng, (int(rng.integers(low, high)),) * 3, 12)


def _vary(rng: np.random.Generator, colour: RGB, spread: float) -> RGB:
    r, g, b = (int(np.clip(c + rng.uniform(-spread, spread), 0, 255)) for c in colour)
    return r, g, b


def _lighter(colour: RGB) -> RGB:
    r, g, b = (min(255, c + 36) for c in colour)
    return r, g, b
