"""Charts as plain geometry: what a template draws in SVG, in the colours of the page.

A chart is as wide as a telephone, so that its letters are of the page's size everywhere; wide pages put
several side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 40
"""Room around the plot, for its letters."""
MARKED = 40
"""Points of a line up to which each is marked."""

Point = tuple[float, float]
Words = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """A line's name and its points, from left to right."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in pixels, and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Drawn:
    """A series as it is drawn."""

    name: str
    path: str
    """In SVG's letters."""
    area: str
    """The same down to the axis; "" where nothing is filled."""
    marks: tuple[Point, ...]
    """Points that are marked, in pixels."""


@dataclass(frozen=True)
class Chart:
    """A chart, ready to be drawn, and its numbers as a table."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    drawn: tuple[Drawn, ...]
    rules: tuple[Tick, ...]
    """Upright lines across the plot."""
    head: tuple[str, ...]
    """Of the table."""
    rows: tuple[tuple[str, ...], ...]
    """The same numbers, for who cannot see the chart or wants to copy them."""

    width, height = WIDTH, HEIGHT
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM

    @property
    def summary(self) -> str:
        """What the chart shows, in a sentence."""
        names = ", ".join(one.name for one in self.drawn)
        return f"{self.title}: {names}, by {self.x_label}. The numbers are in the table below it."


def percent(value: float) -> str:
    """A share, as the whole page writes it.

    >>> percent(0.9461)
    '94.6%'
    """
    return f"{value:.1%}"


def whole_percent(value: float) -> str:
    """A share at an axis.

    >>> whole_percent(0.5)
    '50%'
    """
    return f"{value:.0%}"


def number(value: float) -> str:
    """A number in four significant digits; whole ones as they are.

    >>> number(1600), number(1.06512)
    ('1,600', '1.065')
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str = "",
    words: Words = number,
    ticks: Words = number,
    ceiling: float | None = None,
) -> Chart:
    """Lines over a common axis of whole numbers, such as epochs; each point is in the table.

    Args:
        title: of the chart.
        series: at least one, each of at least one point.
        x_label, y_label: what the axes are.
        words: how a value is written.
        ticks: how it is at the axis.
        ceiling: the axis's upper end, where it is known; the least round number above all if not.
    """
    xs = sorted({x for one in series for x, _ in one.points})
    scale = _Scale(series, ceiling)
    whole_ticks = [x for x in _round_numbers(xs[0], xs[-1], 6) if float(x).is_integer()]
    known = [dict(one.points) for one in series]
    return Chart(
        title,
        x_label,
        y_label,
        tuple(Tick(scale.x(x), number(x)) for x in whole_ticks),
        scale.y_ticks(ticks),
        tuple(_line(one, scale) for one in series),
        (),
        (x_label, *(one.name for one in series)),
        tuple((number(x), *(words(points[x]) if x in points else "" for points in known)) for x in xs),
    )


def step_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    rules: Sequence[tuple[float, str]] = (),
    head: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
) -> Chart:
    """Histograms over each other: each point is the left end of a bin, and the last one closes it.

    Args:
        title, series, x_label, y_label: see `line_chart`; heights are shares.
        rules: upright lines, and what they are.
        head, rows: the table; of a hundred bins nobody wants all.
    """
    scale = _Scale(series, None)
    low, high = scale.x_ends
    ticks = _round_numbers(low, high, 8)
    inside = [(x, text) for x, text in rules if low <= x <= high]
    return Chart(
        title,
        x_label,
        y_label,
        tuple(Tick(scale.x(x), f"{x:g}") for x in ticks),
        scale.y_ticks(lambda share: f"{share:.3g}%" if share < 1 else f"{share:.0f}%", factor=100),
        tuple(_steps(one, scale) for one in series),
        tuple(Tick(scale.x(x), text) for x, text in inside),
        tuple(head),
        tuple(tuple(row) for row in rows),
    )


class _Scale:
    """From values to pixels."""

    def __init__(self, series: Sequence[Series], ceiling: float | None) -> None:
        xs = [x for one in series for x, _ in one.points]
        ys = [y for one in series for _, y in one.points]
        self.x_ends = (min(xs), max(xs)) if min(xs) < max(xs) else (xs[0] - 0.5, xs[0] + 0.5)
        low, high = min(0.0, *ys), max(0.0, *ys) if ceiling is None else ceiling
        high = high if high > low else low + 1
        step = _step(low, high, 4)
        self.y_ends = (math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)

    def x(self, value: float) -> float:
        low, high = self.x_ends
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self.y_ends
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    def y_ticks(self, words: Words, *, factor: float = 1) -> tuple[Tick, ...]:
        return tuple(Tick(self.y(y), words(y * factor)) for y in _round_numbers(*self.y_ends, 4))


def _line(one: Series, scale: _Scale) -> Drawn:
    places = [(scale.x(x), scale.y(y)) for x, y in one.points]
    marks = tuple(places) if len(places) <= MARKED else ()
    return Drawn(one.name, "M" + "L".join(f"{x},{y}" for x, y in places), "", marks)


def _steps(one: Series, scale: _Scale) -> Drawn:
    (x, y), *others = [(scale.x(x), scale.y(y)) for x, y in one.points]
    path = f"M{x},{y}" + "".join(f"H{x}V{y}" for x, y in others)
    floor = scale.y(0)
    return Drawn(one.name, path, f"{path}V{floor}H{x}Z", ())


def _step(low: float, high: float, about: int) -> float:
    """A round distance that divides a range into about so many parts."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    return float(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999))


def _round_numbers(low: float, high: float, about: int) -> list[float]:
    """Round numbers within a range, both ends included where they are round.

    >>> _round_numbers(0, 8, 4)
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    step = _step(low, high, about) if high > low else 1.0
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) + 0.0 for n in range(first, last + 1)]
