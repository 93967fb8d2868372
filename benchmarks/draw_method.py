"""Draws the pictures of docs/how_it_works.md: an epoch, a cluster's two proxies, what the memory does.

    python benchmarks/draw_method.py

Proxies, contrasts and moves are those that `gracl.methods.gracl` computes, on points that lie on a cap
of the unit sphere and are seen from above: near the pole a cosine falls as the distance on the paper
grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from gracl.methods.gracl import GRACL, Update, mean_foreign_cosine, own_cosine
from gracl.methods.protocol import Batch
from gracl.neighbors import mean_of_nearest_foreign

mpl.use("Agg")
import matplotlib.pyplot as plt

OUT = Path(__file__).parents[1] / "docs"
INK, MUTED, PAPER = "#1b1f24", "#8a929b", "#f4f6f8"
COLOURS = ("#20639b", "#c2571a", "#3c7d4e")
NAMES = {"inter": "inter-ID proxy", "intra": "intra-ID proxy", "centroid": "mean"}
MARKS = {"inter": "s", "intra": "D", "centroid": "P"}


@dataclass(frozen=True)
class Scene:
    """Three clusters on the cap, and the memory that GRACL makes of them."""

    features: Tensor
    labels: Tensor
    method: GRACL


def scene(*, update: Update = "none", momentum: float = 0.1) -> Scene:
    """The points of all pictures, and a method with its rows at the start of the epoch."""
    random = np.random.default_rng(16)
    middles = np.array([[-0.26, -0.10], [0.24, -0.16], [0.04, 0.27]])
    spread = np.array([[0.095, 0.06], [0.06, 0.075], [0.085, 0.05]])
    points = [m + s * random.standard_normal((11, 2)) for m, s in zip(middles, spread, strict=True)]
    flat = torch.from_numpy(np.concatenate(points)).float()
    features = torch.cat([flat, (1 - flat.square().sum(dim=1, keepdim=True)).sqrt()], dim=1)
    labels = torch.arange(3).repeat_interleave(11)
    method = GRACL(
        relation="cosine",
        update=update,
        inter_momentum=momentum,
        intra_momentum=momentum,
        centroid_momentum=momentum,
    )
    known = torch.ones(len(labels), dtype=torch.bool)
    inter = mean_of_nearest_foreign(features, labels, 1, counts_as_other=known)
    method.banks = method.remember(features, labels, inter, own_cosine(features, labels, "mean"))
    return Scene(features, labels, method)


def main() -> None:
    plt.rcParams.update({"font.size": 10, "font.family": "DejaVu Sans"})
    plt.rcParams["svg.hashsalt"] = "gracl"  # the same file each time
    for name, draw in PICTURES.items():
        figure = draw()
        figure.savefig(OUT / name, metadata={"Date": None}, facecolor="white")
        print(name)


# -- an epoch -------------------------------------------------------------------------------------

STEPS = (
    ("all images", "without a label, (N, H, W, 3)"),
    ("features", "one unit row an image, (N, D)"),
    ("neighbours", "the nearest of each, (N, k1)"),
    ("Jaccard distance", "how many neighbours two share, sparse"),
    ("clusters", "DBSCAN: pseudo labels, and outliers"),
    ("two proxies a cluster", "inter-ID and intra-ID, (C, D) each"),
    ("memory", "the proxies, and the means"),
)


def draw_epoch() -> Any:
    """The stages of an epoch from top to bottom, and the way back."""
    figure, axes = plt.subplots(figsize=(5.2, 7.6), layout="constrained")
    axes.set(xlim=(0, 5.2), ylim=(-1.75, 7.15))
    axes.axis("off")
    for place, (name, said) in enumerate(STEPS):
        y = 6.5 - place
        _box(axes, 0.35, y, 3.7, 0.62, name, said, COLOURS[0] if place < 5 else COLOURS[1])
        if place:
            _arrow(axes, (2.2, y + 1.0 - 0.31), (2.2, y + 0.33))
    said = (
        "batches of clusters: each image is pulled\nto its own proxies, away from all others;\n"
        "the network learns"
    )
    _box(axes, 0.35, -1.0, 3.7, 1.0, "steps", said, COLOURS[2])
    _arrow(axes, (2.2, 0.19), (2.2, -0.48))
    axes.plot([4.05, 4.5, 4.5], [-1.0, -1.0, 5.5], color=INK, lw=1.4)
    _arrow(axes, (4.5, 5.5), (4.07, 5.5))
    axes.text(4.75, 2.3, "the next epoch, with better features", rotation=90, va="center", color=INK)
    axes.text(0.35, 6.98, "One epoch", weight="bold", fontsize=12, color=INK)
    return figure


def _box(
    axes: Any, x: float, y: float, width: float, height: float, name: str, said: str, colour: str
) -> None:
    shape = mpl.patches.FancyBboxPatch(
        (x, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=PAPER,
        edgecolor=colour,
        linewidth=1.6,
    )
    axes.add_patch(shape)
    lines = said.count("\n") + 1
    axes.text(x + 0.14, y + 0.11 * lines, name, weight="bold", va="center", color=INK)
    axes.text(x + 0.14, y - 0.14, said, va="center", color=INK, fontsize=9)


def _arrow(axes: Any, begin: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", xy=end, xytext=begin, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.4})


# -- proxies --------------------------------------------------------------------------------------


def draw_proxies() -> Any:
    """Which two samples stand for each cluster."""
    found = scene()
    figure, axes = plt.subplots(figsize=(5.2, 5.4), layout="constrained")
    _points(axes, found)
    for name in ("inter", "intra"):
        for cluster, row in enumerate(found.method.proxies[name].tolist()):
            x, y, _ = found.features[row].tolist()
            axes.plot(x, y, MARKS[name], mfc="none", mec=COLOURS[cluster], ms=15, mew=2)
            axes.annotate(
                NAMES[name].split()[0],
                (x, y),
                textcoords="offset points",
                xytext=(0, 13),
                ha="center",
                color=INK,
                fontsize=9,
            )
    inter, intra = (int(found.method.proxies[name][0]) for name in ("inter", "intra"))
    nearest = _nearest_foreign(found, inter)
    _line(axes, found.features[inter], found.features[nearest], "--")
    for own in torch.nonzero(found.labels == 0).flatten().tolist():
        _line(axes, found.features[intra], found.features[own], "-")
    handles = [
        _handle("s", "inter-ID: even its nearest foreign image (dashed) is far"),
        _handle("D", "intra-ID: on average the least like its own (thin lines)"),
        _handle("P", "mean of the cluster"),
    ]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), frameon=False, fontsize=9)
    axes.set_title("Three clusters and their proxies", loc="left", weight="bold", fontsize=12)
    return figure


def _nearest_foreign(found: Scene, row: int) -> int:
    similarity = found.features @ found.features[row]
    return int(similarity.masked_fill(found.labels == found.labels[row], -2).argmax())


def _points(axes: Any, found: Scene) -> None:
    for cluster, colour in enumerate(COLOURS):
        own = found.features[found.labels == cluster]
        axes.plot(own[:, 0], own[:, 1], "o", color=colour, ms=5, alpha=0.75)
        x, y, _ = found.method.banks["centroid"][cluster].tolist()
        axes.plot(x, y, MARKS["centroid"], color=colour, mec="white", ms=10)
    _plain(axes)


def _plain(axes: Any) -> None:
    axes.set_aspect("equal")
    axes.margins(0.1)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_color("#d7dce1")


def _line(axes: Any, begin: Tensor, end: Tensor, style: str, **how: Any) -> None:
    how = {"color": INK, "lw": 0.9 if style == "-" else 1.4, "alpha": 0.45, "zorder": 0, **how}
    axes.plot([begin[0], end[0]], [begin[1], end[1]], style, **how)


def _handle(mark: str, said: str) -> Any:
    return mpl.lines.Line2D([], [], marker=mark, mfc="none", mec=INK, ls="", ms=8, label=said)


# -- the memory -----------------------------------------------------------------------------------


def draw_memory() -> Any:
    """What one image is pulled to and pushed from; and where a row goes under three rules."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(5.2, 9.6), layout="constrained")
    draw_pull(above)
    draw_moves(below)
    return figure


def draw_pull(axes: Any) -> None:
    """One image between the rows of the inter bank, with the softmax over them."""
    found = scene()
    _points(axes, found)
    image = found.features[_between(found)]
    bank = found.method.banks["inter"]
    share = torch.softmax(image @ bank.T / found.method.temperature, dim=0)
    own = int(found.labels[_between(found)])
    for cluster, (row, part) in enumerate(zip(bank, share.tolist(), strict=True)):
        axes.plot(row[0], row[1], MARKS["inter"], mfc="none", mec=COLOURS[cluster], ms=15, mew=2)
        width = 0.8 + 5 * part
        _line(
            axes,
            image,
            row,
            "-" if cluster == own else "--",
            color=COLOURS[cluster],
            lw=width,
            alpha=0.9,
        )
        beside = (image[:2] + row[:2]) / 2
        axes.annotate(
            f"{part:.0%}", beside.tolist(), textcoords="offset points", xytext=(6, 6), fontsize=9
        )
    axes.plot(image[0], image[1], "*", color=INK, ms=15)
    axes.set_title("A step: one image and the inter bank", loc="left", weight="bold", fontsize=12)
    axes.set_xlabel(
        "The star is pulled along the solid line and pushed along\nthe dashed ones; "
        "in %, the softmax at temperature 0.05",
        fontsize=9,
    )


def _between(found: Scene) -> int:
    """The image of the first cluster that is nearest to another cluster."""
    foreign = mean_foreign_cosine(found.features, found.labels, torch.ones(33, dtype=torch.bool))
    return int(foreign.masked_fill(found.labels != 0, -2).argmax())


RULES: tuple[tuple[Update, float, str, str], ...] = (
    ("criterion", 0.1, "criterion, momentum 0.1: jumps to an extreme", ":"),
    ("mean", 0.9, "mean, momentum 0.9: drifts to the middle", "-"),
    ("none", 0.1, "none (default): stays for the epoch", ""),
)


def draw_moves(axes: Any) -> None:
    """Where the first cluster's intra row goes in twelve steps."""
    handles = []
    for place, (rule, momentum, said, style) in enumerate(RULES):
        found = scene(update=rule, momentum=momentum)
        if not place:
            _points(axes, found)
        way = moves(found, "intra", steps=12)
        colour = (COLOURS[1], COLOURS[2], INK)[place]
        mark = "D" if rule == "none" else "o"
        axes.plot(
            way[:, 0],
            way[:, 1],
            style or "none",
            color=colour,
            lw=1.6,
            marker=mark,
            ms=4 if style else 9,
        )
        handles.append(
            mpl.lines.Line2D([], [], color=colour, ls=style or "none", marker=mark, ms=5, label=said)
        )
    own = found.features[found.labels == 0]
    axes.set_xlim(float(own[:, 0].min()) - 0.06, float(own[:, 0].max()) + 0.06)
    axes.set_ylim(float(own[:, 1].min()) - 0.06, float(own[:, 1].max()) + 0.06)
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), frameon=False, fontsize=9
    )
    axes.set_title("Twelve steps: where one intra row goes", loc="left", weight="bold", fontsize=12)


def moves(found: Scene, name: str, *, steps: int) -> Tensor:
    """(steps + 1, 3) the first cluster's row of a bank, as batches of four images a cluster go by."""
    random = np.random.default_rng(1)
    way = [found.method.banks[name][0].clone()]
    for _ in range(steps):
        rows = np.concatenate([11 * c + random.choice(11, 4, replace=False) for c in range(3)])
        taken = torch.from_numpy(rows)
        found.method.update(Batch(found.features[taken], found.labels[taken], taken))
        way.append(found.method.banks[name][0].clone())
    return torch.stack(way)


PICTURES = {
    "how_epoch.svg": draw_epoch,
    "how_proxies.svg": draw_proxies,
    "how_memory.svg": draw_memory,
}


if __name__ == "__main__":
    main()
