"""The curves of a comparison as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from gracl.comparison import Comparison
from gracl.disk import put
from gracl.errors import RunError
from gracl.sweep import require_drawable


def draw_curves(found: Comparison, path: str | Path) -> None:
    """mAP and ARI by epoch: the mean of each contender's finished seeds, in a band from least to most.

    mAP is known between the first and the last epoch where `evaluate.every` is not 0.

    Raises:
        ConfigError: the picture cannot be drawn or written there; see `sweep.require_drawable`.
    """
    require_drawable(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7), layout="constrained")
    for axes, measure in zip(figure.subplots(2, 1, sharex=True), ("mAP", "ARI"), strict=True):
        for name in found.contenders:
            epochs, values = band(found, name, measure)
            if len(epochs):
                (line,) = axes.plot(epochs, values.mean(axis=0), "o-", markersize=3, label=name)
                low, high = values.min(axis=0), values.max(axis=0)
                axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.set_ylabel(f"{measure}, %")
        if axes.lines:
            axes.legend()
    axes.set_xlabel(f"epochs trained; band: least to most of {len(found.seeds)} seeds")
    picture, kind = io.BytesIO(), Path(path).suffix[1:].lower()
    figure.savefig(picture, format=kind)
    put(Path(path), picture.getvalue(), RunError, "another --plot")


def band(found: Comparison, name: str, measure: str) -> tuple[list[int], Any]:
    """(E,) epochs at which all finished seeds of a contender were measured, (seeds, E) percent."""
    curves = [
        dict(o.curves.get(measure, ()))
        for o in found.outcomes
        if o.contender == name and o.failure is None
    ]
    common = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return common, 100 * np.array([[curve[e] for e in common] for curve in curves])
