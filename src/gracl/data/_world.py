"""The world of a seed: what its people look like, what its cameras do, what a shot catches.

What there is to draw follows here from a few numbers: clothes, nuisances and purposes of chance
have their names and strengths in this module, which draws nothing itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]
Pattern = Callable[[NDArray[np.float32], NDArray[np.float32], float], NDArray[np.bool_]]


def _colours(codes: str) -> tuple[RGB, ...]:
    return tuple((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in codes.split())


# Black, white, grey, red, orange, yellow, green, teal, blue, navy, purple, pink and brown.
CLOTH = _colours(
    "26262a e8e6e0 8a8c90 bc282c e8802c eecc48 3e8c4a 3ca0a8 487ccc 263268 7e4c9c e48aa4 785034"
)
SKIN = _colours("f4d0b4 e0b08c b47e5a 7a5038")
HAIR = _colours("221c1a 603e26 cea45c 9c4624 a8a6a4")
INK: RGB = (40, 32, 32)  # of eyes

# How strong the camera and the scenes are at nuisance 1.  The set is to be hard for colours and for
# an untrained network, yet not for a trained one: benchmarks/synthetic_difficulty.py measures it.
TINT = 0.045  # of the gains, in log units
FADE = 0.25  # at most, of the saturation, in log units
BEND = 0.06  # of gamma, in log units
FLICKER = 0.04  # of the exposure from shot to shot, in log units
HAZINESS = 0.6  # share of haze in the scenes: people stand out by daylight
HIDDEN = 0.22  # share of the shots with something in the way

SCENES_PER_CAMERA = 3
GOLDEN = (math.sqrt(5) - 1) / 2
CAMERA_STEPS = np.sqrt([5, 2, 3, 7, 11, 13]) * 0.5  # irrational: no two cameras come out the same
STRANGERS = 1_000_000  # passers-by are identities from here on, outside any data set

# One stream of random numbers per purpose, so that none disturbs another.
OUTFIT, DETAILS, OPTICS, SCENERY, TURN, MOMENT, ORDER = range(7)

# What people are made of.
NOTHING, FLESH, TRESS, UPPER, SLEEVE, LOWER, SHOE, BAG, HAT, PRINT, DARK = range(11)

BAGS = ("none", "backpack", "shoulder bag")
LEGWEAR = ("trousers", "shorts", "skirt")
OBSTACLES = ("pole", "box", "bush", "person")


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
        start = stream(seed, OUTFIT).random()
        place = int((start + identity * GOLDEN) % 1.0 * math.prod(counts))
        upper, upper_pattern, lower, lower_pattern = (int(i) for i in np.unravel_index(place, counts))

        rng = stream(seed, DETAILS, identity)

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
        starts = stream(seed, OPTICS).random(6)
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
        rng = stream(seed, MOMENT, identity, camera, shot)
        start = stream(seed, TURN, identity, camera).integers(4)
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


def stream(*key: int) -> np.random.Generator:
    """The random numbers of a key: a seed, a purpose and what else tells streams apart."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
