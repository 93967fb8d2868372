"""Draws docs/ablation.png from benchmarks/results/ablation.json.

python benchmarks/draw_ablation.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

from measuring import RESULTS

mpl.use("Agg")
import matplotlib.pyplot as plt

OUT = Path(__file__).parents[1] / "docs" / "ablation.png"
BEGAN, CHOSEN = "gracl", "centroid 0.5, jaccard, update none"
TITLES = {"drawn": "drawn people", "drawn_hard": "drawn people, harder"}
INK, MUTED, FIRST, SECOND = "#1b1f24", "#8a929b", "#c2571a", "#20639b"


def main() -> None:
    tables = json.loads((RESULTS / "ablation.json").read_text())["tables"]
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(2, 2, figsize=(11, 9.5), height_ratios=(2.3, 1), layout="constrained")
    for column, data in enumerate(TITLES):
        draw_scores(axes[0, column], tables[data], TITLES[data])
        draw_wrong(axes[1, column], tables[data])
    axes[1, 0].set_ylabel("share of wrong samples")
    axes[1, 0].legend(frameon=False, fontsize=8, loc="upper right")
    figure.savefig(OUT, dpi=120)
    print(OUT.name)


def draw_scores(axes: Any, table: dict[str, Any], title: str) -> None:
    """mAP of each variant, best at the top, with the spread over seeds."""
    rows = sorted(table.items(), key=lambda item: item[1]["mAP"]["mean"])
    for place, (name, row) in enumerate(rows):
        mean, std = (100 * row["mAP"][key] for key in ("mean", "std"))
        colour = {BEGAN: FIRST, CHOSEN: SECOND}.get(name, MUTED)
        axes.errorbar(mean, place, xerr=std, fmt="o", color=colour, capsize=2, markersize=4)
    names = ["as it began" if name == BEGAN else name for name, _ in rows]
    axes.set_yticks(range(len(rows)), names)
    for label, (name, _) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color({BEGAN: FIRST, CHOSEN: SECOND}.get(name, INK))
    axes.set_xlabel("mAP, %, over three worlds")
    axes.set_title(title, loc="left")
    axes.grid(axis="x", color="#e6e8eb", linewidth=0.7)


def draw_wrong(axes: Any, table: dict[str, Any]) -> None:
    """How many proxies, and how many members, are of another identity than their cluster's."""
    lines = {"inter.wrong": "-", "intra.wrong": "--", "wrong_members": ":"}
    words = {"inter.wrong": "inter proxy", "intra.wrong": "intra proxy", "wrong_members": "members"}
    for name, colour, said in ((BEGAN, FIRST, "as it began"), (CHOSEN, SECOND, "chosen")):
        for key, style in lines.items():
            values = table[name]["by_epoch"][key]
            label = f"{words[key]}, {said}"
            axes.plot(range(1, len(values) + 1), values, style, color=colour, label=label)
    axes.set_xticks(range(1, 5))
    axes.set_ylim(0, 1)
    axes.set_xlabel("epoch")


if __name__ == "__main__":
    main()
