"""How a person is drawn: a small puppet in three dimensions, dressed, posed and projected.

Lengths are in *person heights*: the puppet's feet stand at 0, its crown is at 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from gracl.data._world import (
    BADGES,
    BAG,
    DARK,
    FLESH,
    HAT,
    LOWER,
    NOTHING,
    PATTERNS,
    PRINT,
    SHOE,
    SLEEVE,
    TRESS,
    UPPER,
    Look,
    Shot,
)

Point = tuple[float, float, float]  # (to the side, up, forward), in person heights
Polygon = list[tuple[float, float]]

RIM, LIT = 94, 130  # brightness of a part's rim and of its lit inside; 128 leaves a colour as it is
CIRCLE = tuple((math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 14, endpoint=False))


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the puppet stands in the picture: person heights to pixels."""

    scale: float
    x: float
    y: float

    def __call__(self, x: float, up: float) -> tuple[float, float]:
        return self.x + x * self.scale, self.y - up * self.scale


def draw_puppet(picture: Image.Image, look: Look, shot: Shot, frame: Frame, light: float) -> None:
    """Draw a person into a picture.

    Parts are drawn with the number of their material in the first channel of a chart and their
    brightness in the second, which is then blurred into soft volumes; a look-up in the palette
    turns both into colours.
    """
    chart = Image.new("RGB", picture.size, (NOTHING, RIM, 0))
    draw = ImageDraw.Draw(chart)
    for part in _assemble(look, shot):
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


class _Body:
    """The pieces of a person put together so far, turned by ``yaw`` to the side that a shot shows."""

    def __init__(self, yaw: float) -> None:
        self.sin, self.cos = math.sin(yaw), math.cos(yaw)
        self.parts: list[_Part] = []

    def limb(self, material: int, near: float, *joints: tuple[Point, float]) -> None:
        """Add a round piece through joints of (point, half width)."""
        chain = tuple((p[0] * self.cos + p[2] * self.sin, p[1], r) for p, r in joints)
        self.parts.append(_Part(near, material, chain))

    def slab(self, material: int, near: float, *rows: tuple[float, float, float]) -> None:
        """Add a flat-ended piece of rows of (up, half width seen from the front, half depth)."""
        chain = tuple((0.0, up, math.hypot(w * self.cos, d * self.sin)) for up, w, d in rows)
        self.parts.append(_Part(near, material, chain, round=False))

    def nearness(self, p: Point) -> float:
        """How much nearer to the camera than the body's middle a point lies."""
        return p[2] * self.cos - p[0] * self.sin


def _assemble(look: Look, shot: Shot) -> list[_Part]:
    """All the pieces of a person in the pose of a shot, the farthest first."""
    body = _Body(shot.yaw)
    for side in (-1.0, 1.0):
        swing = shot.swing * math.sin(shot.phase) * side
        _add_leg(body, look, shot, side, swing)
        _add_arm(body, look, shot, side, -0.9 * swing)  # it swings against the leg
    _add_trunk(body, look)
    _add_head(body, look)
    _add_bag(body, look)
    return sorted(body.parts, key=lambda part: part.near)


def _add_leg(body: _Body, look: Look, shot: Shot, side: float, swing: float) -> None:
    """Hip, knee, ankle, toe.  The leg that swings back bends its knee."""
    g = look.girth
    shin = swing - 1.2 * shot.swing * max(0.0, -side * math.cos(shot.phase))
    hip = (side * 0.055 * g, 0.5, 0.0)
    knee = (hip[0], hip[1] - 0.23 * math.cos(swing), 0.23 * math.sin(swing))
    ankle = (hip[0], knee[1] - 0.22 * math.cos(shin), knee[2] + 0.22 * math.sin(shin))
    toe = (hip[0] * 1.2, ankle[1] - 0.02, ankle[2] + 0.06)
    thigh = FLESH if look.legwear == "skirt" else LOWER
    calf = LOWER if look.legwear == "trousers" else FLESH
    near = 0.1 * body.nearness(hip) - 0.03
    body.limb(SHOE, near - 0.001, (ankle, 0.027), (toe, 0.021))
    body.limb(calf, near - 0.0005, (knee, 0.04 * g), (ankle, 0.027 * g))
    body.limb(thigh, near, (hip, 0.06 * g), (knee, 0.042 * g))


def _add_arm(body: _Body, look: Look, shot: Shot, side: float, swing: float) -> None:
    """Shoulder, elbow, wrist."""
    g = look.girth
    shoulder = (side * 0.11 * g, 0.792, 0.0)
    elbow = (side * 0.14 * g, 0.79 - 0.15 * math.cos(swing), 0.15 * math.sin(swing))
    fore = swing + 0.5 * shot.swing
    fall, reach = 0.15 * math.cos(fore), 0.15 * math.sin(fore)
    wrist = (side * 0.145 * g, elbow[1] - fall, elbow[2] + reach)
    near = body.nearness(shoulder) + 0.02
    forearm = SLEEVE if look.long_sleeves else FLESH
    body.limb(FLESH, near, (wrist, 0.025))
    body.limb(forearm, near + 0.0005, (elbow, 0.029 * g), (wrist, 0.022 * g))
    body.limb(SLEEVE, near + 0.001, (shoulder, 0.037 * g), (elbow, 0.031 * g))


def _add_trunk(body: _Body, look: Look) -> None:
    """Hips or skirt, chest and neck, and the print on the chest."""
    g = look.girth
    if look.legwear == "skirt":
        body.slab(LOWER, -0.01, (0.54, 0.085 * g, 0.07 * g), (0.28, 0.13 * g, 0.11 * g))
    else:
        body.slab(LOWER, -0.012, (0.54, 0.088 * g, 0.07 * g), (0.47, 0.1 * g, 0.075 * g))
    shoulders = (0.845, 0.045, 0.04), (0.83, 0.085 * g, 0.05 * g), (0.795, 0.112 * g, 0.066 * g)
    chest, waist = (0.7, 0.108 * g, 0.082 * g), (0.6, 0.094 * g, 0.074 * g)
    body.slab(UPPER, 0.0, *shoulders, chest, waist, (look.hem, 0.105 * g, 0.082 * g))
    body.limb(FLESH, 0.001, ((0.0, 0.86, 0.0), 0.036), ((0.0, 0.835, 0.012), 0.034))
    if look.badge != "none" and body.cos > 0.3:
        outline = tuple((body.sin * 0.07, up, half * body.cos) for up, half in BADGES[look.badge])
        body.parts.append(_Part(0.005, PRINT, outline, round=False))


def _add_head(body: _Body, look: Look) -> None:
    """Hair all around, the face on its front."""
    skull = TRESS if look.hair_length else FLESH
    body.limb(skull, 0.05, ((0.0, 0.935, -0.008), 0.064))
    face = ((0, 0.925, 0.016), 0.052), ((0, 0.9, 0.02), 0.042)
    body.limb(FLESH, 0.051 if body.cos > -0.4 else -0.5, *face)
    if look.hair_length == 2:
        long = ((0.0, 0.93, -0.02), 0.066), ((0.0, 0.8, -0.045), 0.06)
        body.limb(TRESS, 0.0505 if body.cos < 0.4 else -0.05, *long)
    if look.hat:
        body.limb(HAT, 0.06, ((0.0, 0.965, -0.005), 0.062), ((0.0, 0.955, 0.0), 0.066))
        body.limb(HAT, 0.061, ((0.0, 0.945, 0.05), 0.018), ((0.0, 0.94, 0.09), 0.014))
    for side in (-1.0, 1.0):
        eye = (side * 0.022, 0.915, 0.055)
        if body.nearness(eye) > 0.02:
            body.limb(DARK, 0.055, (eye, 0.007))


def _add_bag(body: _Body, look: Look) -> None:
    """A backpack with its straps, or a bag that hangs from the shoulder."""
    g = look.girth
    if look.bag == "backpack":
        sack = ((0, 0.75, -0.1), 0.075 * g), ((0, 0.62, -0.11), 0.085 * g)
        body.limb(BAG, -0.1 * body.cos - 0.004, *sack)
        for side in (-1.0, 1.0):
            top, end = (side * 0.07 * g, 0.82, 0.05), (side * 0.085 * g, 0.62, 0.08)
            body.limb(BAG, 0.012 if body.cos > -0.2 else -0.2, (top, 0.016), (end, 0.016))
    elif look.bag == "shoulder bag":
        depth = math.copysign(0.06, body.cos)
        body.limb(BAG, 0.012, ((-0.07 * g, 0.82, depth), 0.012), ((0.12 * g, 0.53, depth), 0.012))
        bag = (0.15 * g, 0.5, 0.0)
        body.limb(BAG, body.nearness(bag) + 0.025, (bag, 0.06), ((0.15 * g, 0.46, 0.0), 0.062))


def _outlines(part: _Part, frame: Frame, shrink: float, lean: float) -> list[Polygon]:
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
