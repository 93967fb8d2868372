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

Lengths of the puppet are in *person heights*: its feet stand at 0, its crown is at 1.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["Camera", "Look", "Shot", "draw_people", "draw_person"]

RGB = tuple[int, int, int]
Point = tuple[float, float, float]  # (to the side, up, forward), in person heights
Size = tuple[int, int]  # (height, width)
Polygon = list[tuple[float, float]]


def _colours(codes: str) -> tuple[RGB, ...]:
    return tuple((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in codes.split())


# Black, white, grey, red, orange, yellow, green, teal, blue, navy, purple, pink and brown.
CLOTH = _colours(
    "26262a e8e6e0 8a8c90 bc282c e8802c eecc48 3e8c4a 3ca0a8 487ccc 263268 7e4c9c e48aa4 785034"
)
SKIN = _colours("f4d0b4 e0b08c b47e5a 7a5038")
HAIR = _colours("221c1a 603e26 cea45c 9c4624 a8a6a4")
INK, CLEAN, HAZE = _colours("282020 a8aaac 9a9c9a")  # eyes, a plain wall, the air of the scenes

# How strong the camera and the scenes are at nuisance 1.  The set is to be hard for colours and for
# an untrained network, yet not for a trained one: benchmarks/synthetic_difficulty.py measures it.
TINT = 0.045  # of the gains, in log units
FADE = 0.25  # at most, of the saturation, in log units
BEND = 0.06  # of gamma, in log units
FLICKER = 0.04  # of the exposure from shot to shot, in log units
HAZINESS = 0.6  # share of haze in the scenes: people stand out by daylight
HIDDEN = 0.22  # share of the shots with something in the way

OVERSAMPLE = 2  # drawn at twice the size, then averaged: smooth edges from unsmoothed drawing
MIN_SIZE = (32, 16)
SCENES_PER_CAMERA = 3
RIM, LIT = 94, 130  # brightness of a part's rim and of its lit inside; 128 leaves a colour as it is
CIRCLE = tuple((math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 14, endpoint=False))
GOLDEN = (math.sqrt(5) - 1) / 2
CAMERA_STEPS = np.sqrt([5, 2, 3, 7, 11, 13]) * 0.5  # irrational: no two cameras come out the same
STRANGERS = 1_000_000  # passers-by are identities from here on, outside any data set

# One stream of random numbers per purpose, so that none disturbs another.
OUTFIT, DETAILS, OPTICS, SCENERY, TURN, MOMENT, ORDER = range(7)

# What a puppet is made of.
NOTHING, FLESH, TRESS, UPPER, SLEEVE, LOWER, SHOE, BAG, HAT, PRINT, DARK = range(11)

BAGS = ("none", "backpack", "shoulder bag")
LEGWEAR = ("trousers", "shorts", "skirt")
SCENES = ("brick", "shop", "hedge", "plaster", "fence")
OBSTACLES = ("pole", "box", "bush", "person")

Pattern = Callable[[NDArray[np.float32], NDArray[np.float32], float], NDArray[np.bool_]]


def _wave(x: NDArray[np.float32], period: float) -> NDArray[np.float32]:
    wave: NDArray[np.float32] = np.sin(x * (2 * math.pi / period))
    return wave


# Where a cloth has its second colour: u (1, W) runs to the right of the body's middle, v (H, 1) up
# from the garment's middle, both in person heights; the answer broadcasts to (H, W).
PATTERNS: dict[str, Pattern] = {
    "plain": lambda u, _v, _period: np.zeros_like(u, dtype=np.bool_),
    "hoops": lambda _u, v, period: _wave(v, period) > 0,
    "stripes": lambda u, _v, period: _wave(u, period) > 0,
    "checks": lambda u, v, period: (_wave(u, period) > 0) ^ (_wave(v, period) > 0),
    "dots": lambda u, v, period: _wave(u, period) * _wave(v, period) > 0.35,
    "block": lambda _u, v, _period: v > 0,
    "sash": lambda u, v, _period: np.abs(u + v) < 0.06,
}
BADGES = {  # prints on the chest, as rows of (up, half width)
    "none": (),
    "disc": tuple((0.7 + 0.055 * math.cos(a), 0.055 * math.sin(a)) for a in np.linspace(0, 3.14, 9)),
    "square": ((0.75, 0.05), (0.65, 0.05)),
    "triangle": ((0.765, 0.0), (0.65, 0.07)),
    "bar": ((0.72, 0.085), (0.68, 0.085)),
    "cross": ((0.76, 0.018), (0.72, 0.018), (0.72, 0.06), (0.68, 0.06), (0.68, 0.018), (0.64, 0.018)),
}
UPPER_PATTERNS = tuple(PATTERNS)
LOWER_PATTERNS = ("plain", "stripes", "checks", "block")


@dataclass(frozen=True, slots=True)
class Look:
    """What makes a person that person: the same in every shot.

    ``upper``, ``lower`` and their ``_second`` colours are RGB; ``*_period`` is the length of one
    repeat of the pattern in person heights; ``hair_length`` is 0 (bald), 1 (short) or 2 (long).
    """

    upper: RGB
    upper_second: RGB
    upper_pattern: str
    upper_period: float
    lower: RGB
    lower_second: RGB
    lower_pattern: str
    lower_period: float
    badge: str
    badge_colour: RGB
    long_sleeves: bool
    contrast_sleeves: bool
    hem: float
    legwear: str
    shoes: RGB
    bag: str
    bag_colour: RGB
    hair: RGB
    hair_length: int
    hat: bool
    hat_colour: RGB
    skin: RGB
    girth: float
    stature: float

    @classmethod
    def of(cls, identity: int, seed: int) -> Look:
        """The look of one identity.

        Colours and patterns of the clothes, the most telling attributes, come from a golden-ratio
        walk through all their 4732 combinations: it keeps away from where it has been, so that no
        two of two thousand people in a row wear the same.
        """
        counts = (len(CLOTH), len(UPPER_PATTERNS), len(CLOTH), len(LOWER_PATTERNS))
        start = _rng(seed, OUTFIT).random()
        place = int((start + identity * GOLDEN) % 1.0 * math.prod(counts))
        upper, upper_pattern, lower, lower_pattern = (int(i) for i in np.unravel_index(place, counts))

        rng = _rng(seed, DETAILS, identity)

        def other_than(colour: int) -> RGB:
            return CLOTH[(colour + int(rng.integers(1, len(CLOTH)))) % len(CLOTH)]

        return cls(
            upper=CLOTH[upper],
            upper_second=other_than(upper),
            upper_pattern=UPPER_PATTERNS[upper_pattern],
            upper_period=float(rng.choice([0.06, 0.1])),
            lower=CLOTH[lower],
            lower_second=other_than(lower),
            lower_pattern=LOWER_PATTERNS[lower_pattern],
            lower_period=float(rng.choice([0.05, 0.08])),
            badge=str(rng.choice(list(BADGES))),
            badge_colour=other_than(upper),
            long_sleeves=bool(rng.random() < 0.5),
            contrast_sleeves=bool(rng.random() < 0.3),
            hem=float(rng.choice([0.5, 0.46, 0.38], p=[0.5, 0.3, 0.2])),
            legwear=str(rng.choice(LEGWEAR, p=[0.5, 0.25, 0.25])),
            shoes=CLOTH[int(rng.integers(len(CLOTH)))],
            bag=str(rng.choice(BAGS)),
            bag_colour=other_than(upper),
            hair=HAIR[int(rng.integers(len(HAIR)))],
            hair_length=int(rng.choice(3, p=[0.1, 0.5, 0.4])),
            hat=bool(rng.random() < 0.25),
            hat_colour=CLOTH[int(rng.integers(len(CLOTH)))],
            skin=SKIN[int(rng.integers(len(SKIN)))],
            girth=float(rng.uniform(0.85, 1.3)),
            stature=float(rng.uniform(0.92, 1.0)),
        )

    def palette(self) -> NDArray[np.uint8]:
        """First and second colour of every material, in the order of their numbers: (11, 2, 3)."""
        upper, second, lower, bag = self.upper, self.upper_second, self.lower, self.bag_colour
        sleeve = second if self.contrast_sleeves else upper
        firsts = [INK, self.skin, self.hair, upper, sleeve, lower, self.shoes, bag]
        firsts += [self.hat_colour, self.badge_colour, INK]
        colours = np.array([firsts, firsts], dtype=np.uint8).swapaxes(0, 1)
        colours[[UPPER, SLEEVE, LOWER], 1] = second, second, self.lower_second
        return colours


@dataclass(frozen=True, slots=True)
class Camera:
    """What a camera does to every picture it takes; deviations grow with the nuisance."""

    mixing: tuple[float, ...]  # 3 x 4 colour matrix, row by row: tint and saturation
    gamma: float
    blur: float  # in crop heights
    noise: float  # standard deviation, in grey levels
    resolution: float  # share of the crop's height that the sensor resolves
    quality: int  # of the JPEG
    light: float  # -1: from the left, 1: from the right

    @classmethod
    def of(cls, camera: int, seed: int, nuisance: float) -> Camera:
        """The camera of that number; at nuisance 0 all cameras are the same clean one."""
        # Golden-ratio steps from a random start keep any few cameras well apart.
        starts = _rng(seed, OPTICS).random(6)
        hue, bend, fade, soft, grain, coarse = ((starts + camera * CAMERA_STEPS) % 1.0).tolist()
        thirds = 2 * math.pi * (hue + np.arange(3) / 3)
        gains = np.exp(nuisance * TINT * np.cos(thirds))
        saturation = math.exp(-nuisance * FADE * fade)
        grey = np.full((3, 3), 1 / 3)
        matrix = np.zeros((3, 4))
        matrix[:, :3] = gains[:, None] * (saturation * np.eye(3) + (1 - saturation) * grey)
        return cls(
            mixing=tuple(float(x) for x in matrix.ravel()),
            gamma=math.exp(nuisance * BEND * math.cos(2 * math.pi * bend)),
            blur=nuisance * 0.003 * soft,
            noise=nuisance * (1.0 + 4.0 * grain),
            resolution=1.0 / (1.0 + 0.5 * nuisance * coarse),
            quality=int(np.clip(95 - nuisance * (10 + 30 * coarse), 20, 95)),
            light=1.0 if camera % 2 == 0 or nuisance == 0 else -1.0,
        )


@dataclass(frozen=True, slots=True)
class Shot:
    """What is particular to one picture: the person's pose, the box, the light and the scene."""

    yaw: float  # 0 faces the camera, pi/2 walks to the right, pi shows the back
    phase: float  # of the gait
    swing: float  # of the legs, in radians
    zoom: float
    shift: tuple[float, float]  # of the person in the box, in crop widths and heights
    exposure: float
    scene: int
    pan: tuple[float, float]  # which part of the scene lies behind, each in [0, 1)
    obstacle: str  # "none" or one of OBSTACLES
    obstacle_at: float  # -1 (left) to 1 (right)
    stranger: int

    @classmethod
    def of(cls, identity: int, camera: int, shot: int, seed: int, nuisance: float) -> Shot:
        """The shot of that number; consecutive shots in a camera show different sides."""
        rng = _rng(seed, MOMENT, identity, camera, shot)
        start = _rng(seed, TURN, identity, camera).integers(4)
        turn = (int(start) + shot) % 4 * (math.pi / 2) + rng.normal(0.0, 0.2)
        turn = math.remainder(turn, 2 * math.pi)
        hidden = rng.random() < min(0.8, HIDDEN * nuisance)
        return cls(
            yaw=turn * min(1.0, nuisance),
            phase=rng.uniform(0, 2 * math.pi) * min(1.0, nuisance),
            swing=0.5 * min(1.0, nuisance),
            zoom=math.exp(nuisance * rng.normal(0.0, 0.04)),
            shift=(nuisance * rng.normal(0.0, 0.03), nuisance * rng.normal(0.0, 0.015)),
            exposure=math.exp(nuisance * rng.normal(0.0, FLICKER)),
            scene=int(rng.integers(SCENES_PER_CAMERA)),
            pan=(rng.random(), rng.random()),
            obstacle=str(rng.choice(OBSTACLES)) if hidden else "none",
            obstacle_at=float(rng.choice([-1, 1]) * rng.uniform(0.35, 1.0)),
            stranger=STRANGERS + int(rng.integers(STRANGERS)),
        )


# -------------------------------------------------------------------------------------- the puppet


@dataclass(frozen=True, slots=True)
class _Part:
    """One piece of a puppet as the camera sees it: a chain of (x, up, half width).

    ``round`` pieces have round ends and are as wide across their own direction (limbs); the others
    are as wide horizontally (torso, skirt).  Larger ``near`` is nearer to the camera.
    """

    near: float
    material: int
    chain: tuple[tuple[float, float, float], ...]
    round: bool = True


def _puppet(look: Look, shot: Shot) -> list[_Part]:
    """All the pieces of a person in the pose of a shot, the farthest first."""
    sin, cos = math.sin(shot.yaw), math.cos(shot.yaw)
    g = look.girth
    parts: list[_Part] = []

    def limb(material: int, near: float, *joints: tuple[Point, float]) -> None:
        chain = tuple((p[0] * cos + p[2] * sin, p[1], r) for p, r in joints)
        parts.append(_Part(near, material, chain))

    def slab(material: int, near: float, *rows: tuple[float, float, float]) -> None:
        """Rows of (up, half width seen from the front, half depth)."""
        chain = tuple((0.0, up, math.hypot(w * cos, d * sin)) for up, w, d in rows)
        parts.append(_Part(near, material, chain, round=False))

    def nearness(p: Point) -> float:
        return p[2] * cos - p[0] * sin

    for side in (-1.0, 1.0):
        # Leg: hip, knee, ankle, toe.  The leg that swings back bends its knee.
        swing = shot.swing * math.sin(shot.phase) * side
        shin = swing - 1.2 * shot.swing * max(0.0, -side * math.cos(shot.phase))
        hip = (side * 0.055 * g, 0.5, 0.0)
        knee = (hip[0], hip[1] - 0.23 * math.cos(swing), 0.23 * math.sin(swing))
        ankle = (hip[0], knee[1] - 0.22 * math.cos(shin), knee[2] + 0.22 * math.sin(shin))
        toe = (hip[0] * 1.2, ankle[1] - 0.02, ankle[2] + 0.06)
        thigh = FLESH if look.legwear == "skirt" else LOWER
        calf = LOWER if look.legwear == "trousers" else FLESH
        near = 0.1 * nearness(hip) - 0.03
        limb(SHOE, near - 0.001, (ankle, 0.027), (toe, 0.021))
        limb(calf, near - 0.0005, (knee, 0.04 * g), (ankle, 0.027 * g))
        limb(thigh, near, (hip, 0.06 * g), (knee, 0.042 * g))

        # Arm: shoulder, elbow, wrist; it swings against the leg.
        swing = -0.9 * swing
        shoulder = (side * 0.11 * g, 0.792, 0.0)
        elbow = (side * 0.14 * g, 0.79 - 0.15 * math.cos(swing), 0.15 * math.sin(swing))
        fore = swing + 0.5 * shot.swing
        fall, reach = 0.15 * math.cos(fore), 0.15 * math.sin(fore)
        wrist = (side * 0.145 * g, elbow[1] - fall, elbow[2] + reach)
        near = nearness(shoulder) + 0.02
        forearm = SLEEVE if look.long_sleeves else FLESH
        limb(FLESH, near, (wrist, 0.025))
        limb(forearm, near + 0.0005, (elbow, 0.029 * g), (wrist, 0.022 * g))
        limb(SLEEVE, near + 0.001, (shoulder, 0.037 * g), (elbow, 0.031 * g))

    if look.legwear == "skirt":
        slab(LOWER, -0.01, (0.54, 0.085 * g, 0.07 * g), (0.28, 0.13 * g, 0.11 * g))
    else:
        slab(LOWER, -0.012, (0.54, 0.088 * g, 0.07 * g), (0.47, 0.1 * g, 0.075 * g))
    shoulders = (0.845, 0.045, 0.04), (0.83, 0.085 * g, 0.05 * g), (0.795, 0.112 * g, 0.066 * g)
    chest, waist = (0.7, 0.108 * g, 0.082 * g), (0.6, 0.094 * g, 0.074 * g)
    slab(UPPER, 0.0, *shoulders, chest, waist, (look.hem, 0.105 * g, 0.082 * g))
    limb(FLESH, 0.001, ((0.0, 0.86, 0.0), 0.036), ((0.0, 0.835, 0.012), 0.034))
    if look.badge != "none" and cos > 0.3:
        outline = tuple((sin * 0.07, up, half * cos) for up, half in BADGES[look.badge])
        parts.append(_Part(0.005, PRINT, outline, round=False))

    # Head: hair all around, the face on its front.
    skull = TRESS if look.hair_length else FLESH
    limb(skull, 0.05, ((0.0, 0.935, -0.008), 0.064))
    limb(FLESH, 0.051 if cos > -0.4 else -0.5, ((0, 0.925, 0.016), 0.052), ((0, 0.9, 0.02), 0.042))
    if look.hair_length == 2:
        long = ((0.0, 0.93, -0.02), 0.066), ((0.0, 0.8, -0.045), 0.06)
        limb(TRESS, 0.0505 if cos < 0.4 else -0.05, *long)
    if look.hat:
        limb(HAT, 0.06, ((0.0, 0.965, -0.005), 0.062), ((0.0, 0.955, 0.0), 0.066))
        limb(HAT, 0.061, ((0.0, 0.945, 0.05), 0.018), ((0.0, 0.94, 0.09), 0.014))
    for side in (-1.0, 1.0):
        eye = (side * 0.022, 0.915, 0.055)
        if nearness(eye) > 0.02:
            limb(DARK, 0.055, (eye, 0.007))

    if look.bag == "backpack":
        limb(BAG, -0.1 * cos - 0.004, ((0, 0.75, -0.1), 0.075 * g), ((0, 0.62, -0.11), 0.085 * g))
        for side in (-1.0, 1.0):
            top, end = (side * 0.07 * g, 0.82, 0.05), (side * 0.085 * g, 0.62, 0.08)
            limb(BAG, 0.012 if cos > -0.2 else -0.2, (top, 0.016), (end, 0.016))
    elif look.bag == "shoulder bag":
        depth = math.copysign(0.06, cos)
        limb(BAG, 0.012, ((-0.07 * g, 0.82, depth), 0.012), ((0.12 * g, 0.53, depth), 0.012))
        bag = (0.15 * g, 0.5, 0.0)
        limb(BAG, nearness(bag) + 0.025, (bag, 0.06), ((0.15 * g, 0.46, 0.0), 0.062))
    return sorted(parts, key=lambda part: part.near)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the puppet stands in the picture: person heights to pixels."""

    scale: float
    x: float
    y: float

    def __call__(self, x: float, up: float) -> tuple[float, float]:
        return self.x + x * self.scale, self.y - up * self.scale


def _outlines(part: _Part, frame: _Frame, shrink: float, lean: float) -> list[Polygon]:
    """Polygons that make up a part, ``shrink`` times as thick and moved ``lean`` widths right."""
    rows = [(*frame(x + lean * r, up), r * shrink * frame.scale) for x, up, r in part.chain]
    if not part.round:
        return [[(x - r, y) for x, y, r in rows] + [(x + r, y) for x, y, r in reversed(rows)]]
    polygons = [[(x + r * c, y + r * s) for c, s in CIRCLE] for x, y, r in rows]
    for (x1, y1, r1), (x2, y2, r2) in pairwise(rows):
        length = math.hypot(x2 - x1, y2 - y1) or 1.0
        nx, ny = (y1 - y2) / length, (x2 - x1) / length
        one_side = [(x1 + nx * r1, y1 + ny * r1), (x2 + nx * r2, y2 + ny * r2)]
        other_side = [(x2 - nx * r2, y2 - ny * r2), (x1 - nx * r1, y1 - ny * r1)]
        polygons.append(one_side + other_side)
    return polygons


def _draw_puppet(picture: Image.Image, look: Look, shot: Shot, frame: _Frame, light: float) -> None:
    """Draw a person into a picture.

    Parts are drawn with the number of their material in the first channel of a chart and their
    brightness in the second, which is then blurred into soft volumes; a look-up in the palette
    turns both into colours.
    """
    chart = Image.new("RGB", picture.size, (NOTHING, RIM, 0))
    draw = ImageDraw.Draw(chart)
    for part in _puppet(look, shot):
        for polygon in _outlines(part, frame, 1.0, 0.0):
            draw.polygon(polygon, fill=(part.material, RIM, 0))
        for polygon in _outlines(part, frame, 0.68, 0.2 * light):
            draw.polygon(polygon, fill=(part.material, LIT, 0))
    box = chart.getchannel(0).getbbox()
    if box is None:
        return  # the person is outside the picture
    material, brightness, _ = chart.crop(box).split()
    label = np.asarray(material)
    shade = np.asarray(brightness.filter(ImageFilter.BoxBlur(0.009 * frame.scale)))

    left, top, right, bottom = box
    u = ((np.arange(left, right, dtype=np.float32) - frame.x) / frame.scale)[None, :]
    u += 0.03 * math.sin(shot.yaw)
    v = ((frame.y - np.arange(top, bottom, dtype=np.float32)) / frame.scale)[:, None]
    above = PATTERNS[look.upper_pattern](u, v - 0.68, look.upper_period)
    below = PATTERNS[look.lower_pattern](u, v - 0.36, look.lower_period)
    second = (above & ((label == UPPER) | (label == SLEEVE))) | (below & (label == LOWER))
    palette = look.palette().reshape(-1, 3).astype(np.uint16)
    colours = np.take(palette, 2 * label + second, axis=0)
    colours *= shade[:, :, None]
    colours >>= 7
    person = np.minimum(colours, 255, out=colours).astype(np.uint8)
    picture.paste(Image.fromarray(person), box, mask=Image.fromarray(label > 0))


# ---------------------------------------------------------------------------------- the background


@lru_cache(maxsize=64)
def _scene(camera: int, scene: int, height: int, width: int, seed: int) -> Image.Image:
    """One of a camera's backgrounds, three times as wide as the crop: shots pan over it."""
    rng = _rng(seed, SCENERY, camera, scene)
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


def _tone(rng: np.random.Generator, low: int, high: int) -> RGB:
    """A subdued colour: a grey of any brightness, slightly tinted."""
    return _vary(rng, (int(rng.integers(low, high)),) * 3, 12)


def _vary(rng: np.random.Generator, colour: RGB, spread: float) -> RGB:
    r, g, b = (int(np.clip(c + rng.uniform(-spread, spread), 0, 255)) for c in colour)
    return r, g, b


def _lighter(colour: RGB) -> RGB:
    r, g, b = (min(255, c + 36) for c in colour)
    return r, g, b


def _draw_obstacle(picture: Image.Image, shot: Shot) -> None:
    """Something that stands between the camera and the person."""
    rng = _rng(shot.stranger)
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


# --------------------------------------------------------------------------------------- the crops


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
    rng = _rng(seed, MOMENT, identity, camera, shot, 1)
    return _photograph(picture, eye, moment.exposure, rng)


def _stage(
    look: Look, shot: Shot, *, camera: int, light: float, size: Size, nuisance: float, seed: int
) -> Image.Image:
    """What there is to see, not yet photographed: background, person and things in the way."""
    h, w = (side * OVERSAMPLE for side in size)
    scene = _scene(camera, shot.scene, h, w, seed)
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
        _draw_puppet(picture, who, pose, frame, light)
    if shot.obstacle not in ("none", "person"):
        _draw_obstacle(picture, shot)
    return picture.reduce(OVERSAMPLE)


def _frame(look: Look, shot: Shot, width: int, height: int, aside: float) -> _Frame:
    scale = 0.915 * height * look.stature * shot.zoom
    x = width * (0.5 + shot.shift[0] + aside)
    y = height * (0.965 + shot.shift[1])
    return _Frame(scale, x, y)


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

    (folder / "images").mkdir(parents=True, exist_ok=True)
    people = identities + test_identities
    shots = list(product(range(people), range(cameras), range(images_per_camera)))
    _rng(seed, ORDER).shuffle(shots)
    rows = []
    for number, (person, camera, shot) in enumerate(shots):
        crop = draw_person(person, camera=camera, shot=shot, size=size, nuisance=nuisance, seed=seed)
        path = f"images/{number:06d}.jpg"
        Image.fromarray(crop).save(folder / path, quality=95)
        split = "train" if person < identities else "query" if shot == 0 else "gallery"
        rows.append((path, f"p{person:04d}", f"c{camera}", split))

    # The table comes last and at once: a folder that has it is complete.
    unfinished = folder / "metadata.csv.part"
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "identity", "camera", "split"))
        writer.writerows(rows)
    unfinished.replace(folder / "metadata.csv")
    return folder


# ------------------------------------------------------------------------------ chance and checks


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


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
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; expected a folder or nothing: pass another path.")
    found = len(list(folder.iterdir())) if folder.exists() else 0
    if found:
        state = "a finished" if (folder / "metadata.csv").exists() else "no finished"
        raise ValueError(
            f"{folder} holds {found} entries ({state} data set); expected an empty folder or none: "
            "delete it, or pass another path."
        )
