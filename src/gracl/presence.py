"""Who cannot be the same individual, by where and when they were seen.

Letters: T tracklets, K pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gracl.errors import ShapeError, did_you_mean
from gracl.links import Labels, Pairs

Travel = Mapping[tuple[str, str], float]
"""Least seconds from leaving one camera to being seen by another: {(from, to): seconds}."""
Times = Sequence[float] | NDArray[np.float64]


def known_apart(
    n: int,
    *,
    cameras: Sequence[str | None] | None = None,
    first: Times | None = None,
    last: Times | None = None,
    travel: Travel | None = None,
) -> Pairs:
    """Pairs of tracklets that cannot be the same individual, by where and when they were seen.

    Two of one camera that overlap in time, the ends included; and, of cameras that `travel` has a least
    time for, two of which the later begins at the second camera sooner than that after the earlier
    ended at the first, or before. Nothing is known of a tracklet without a camera or a time.

    Args:
        n: T.
        cameras, first, last: of each tracklet, the ends included; None or NaN is unknown.
        travel: on the clock of the times, which all cameras must then share.

    Returns:
        (K, 2) rows, the lower one first, in order.

    Raises:
        ShapeError: facts that are not one a tracklet, a tracklet that ends before it begins, a camera
            that no tracklet has, or a least time below 0.

    >>> known_apart(3, cameras=["a", "a", "a"], first=[0, 5, 10], last=[5, 9, 12]).tolist()
    [[0, 1]]
    >>> travel = {("a", "b"): 10.0}
    >>> known_apart(2, cameras=["a", "b"], first=[0, 15], last=[9, 30], travel=travel).tolist()
    [[0, 1]]
    """
    starts, ends = _times(n, first, last)
    names = [None] * n if cameras is None else list(cameras)
    if len(names) != n:
        raise ShapeError(f"{len(names)} cameras for {n} tracklets; expected one a tracklet")
    least = _least_times(names, travel or {})
    timed = ~np.isnan(starts)
    of_camera = {
        name: np.flatnonzero(timed & np.array([own == name for own in names], dtype=bool))
        for name in dict.fromkeys(names)
        if name is not None
    }
    found = [np.zeros((0, 2), dtype=np.int64)]
    for (earlier, later), seconds in least.items():
        a, b = of_camera[earlier], of_camera[later]
        b = b[np.argsort(starts[b], kind="stable")]
        # Those of the later camera that begin from here, included, to there.
        low = np.searchsorted(starts[b], starts[a], side="left")
        # One frame in common is enough to be two; a way may take the least time exactly.
        side: Literal["left", "right"] = "right" if earlier == later else "left"
        high = np.searchsorted(starts[b], ends[a] + seconds, side=side)
        at, place = _ranges(low, np.maximum(high, low))
        pairs = np.sort(np.stack([a[at], b[place]], axis=1), axis=1)
        found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    every: Pairs = np.unique(np.concatenate(found), axis=0)
    return every


def _least_times(names: Sequence[str | None], travel: Travel) -> dict[tuple[str, str], float]:
    """By (earlier camera, later camera); of one with itself, 0: there it is overlap alone."""
    known = {name for name in names if name is not None}
    for (a, b), seconds in travel.items():
        if not seconds >= 0 or a == b:
            raise ShapeError(
                f"the least time from {a} to {b} is {seconds}; expected 0 or more, between two cameras"
            )
        if names and not {a, b} <= known:
            raise ShapeError(
                f"travel times name {a} and {b}; no tracklet is of {', '.join({a, b} - known)}. "
                f"{did_you_mean(min({a, b} - known), known)}"
            )
    return {**{(name, name): 0.0 for name in sorted(known)}, **(travel if names else {})}


def _times(
    n: int, first: Times | None, last: Times | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(T,) each; NaN in both where either is unknown."""
    unknown = np.full(n, np.nan)
    starts, ends = (unknown if t is None else np.asarray(t, dtype=np.float64) for t in (first, last))
    if starts.shape != (n,) or ends.shape != (n,):
        raise ShapeError(
            f"first and last have shapes {starts.shape} and {ends.shape}; expected ({n},), a time a "
            "tracklet"
        )
    if (ends < starts).any():
        row = int(np.flatnonzero(ends < starts)[0])
        raise ShapeError(f"tracklet {row} ends at {ends[row]:g}, before it begins at {starts[row]:g}")
    lost = np.isnan(starts) | np.isnan(ends)
    return np.where(lost, np.nan, starts), np.where(lost, np.nan, ends)


def _ranges(low: NDArray[np.int64], high: NDArray[np.int64]) -> tuple[Labels, Labels]:
    """Each place of each range, with the number of the range that it is in."""
    lengths = high - low
    at = np.repeat(np.arange(len(low)), lengths)
    begins = np.cumsum(lengths) - lengths
    return at, np.arange(lengths.sum()) - np.repeat(begins - low, lengths)
