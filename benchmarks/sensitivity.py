"""How much GRACL's settings matter around their defaults; whether labels are needed to choose them.

    python benchmarks/sensitivity.py --log LOG

On the drawn people of the easier difficulty, seeds 0, 1 and 2; each setting by itself. Signals that
need no label are held against the truth: by which of them would the best epoch of a run, and the best
eps, have been chosen, and what would that have cost? Results: benchmarks/results/sensitivity.json.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

from scipy import stats

import trials
from measuring import save
from trials import Line, Trial

DATA = "drawn"
SEEDS = (0, 1, 2)
EPS = (0.3, 0.4, 0.5, 0.7, 0.8)
"""Beside the 0.6 of the data's settings."""
CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    **{f"eps {eps:g}": {"method": {"eps": eps}} for eps in EPS},
    "k1 8": {"method": {"k1": 8}},
    "k1 30": {"method": {"k1": 30}},
    "temperature 0.03": {"method": {"temperature": 0.03}},
    "temperature 0.1": {"method": {"temperature": 0.1}},
    "centroid momentum 0.5": {"method": {"centroid_momentum": 0.5}},
    "centroid momentum 0.9": {"method": {"centroid_momentum": 0.9}},
    "8 clusters of 4": {"sampler": {"images_per_cluster": 4}},
    "4 clusters of 16": {"sampler": {"clusters_per_batch": 4, "images_per_cluster": 16}},
    "any camera": {"sampler": {"other_cameras": False}},
    "batchnorm group 16": {"train": {"batchnorm_group": 16}},
    "batchnorm group 32": {"train": {"batchnorm_group": 32}},
}
SIGNALS = {"silhouette": 1, "stability": 1, "outliers": -1, "loss": -1}
"""What can be seen without labels, and the sign that makes more of it better."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    trials.add_flags(parser)
    arguments = parser.parse_args()
    listed = [
        Trial(DATA, name, seed, changes, by_epoch=True)
        for seed in SEEDS
        for name, changes in CHANGES.items()
    ]
    lines = trials.run_all(listed, arguments)
    tables = trials.summary(lines, "default")
    found = {"epoch": choice_of_epoch(lines), "eps": choice_of_eps(lines)}
    save(
        "sensitivity",
        {
            "command": trials.command("sensitivity", arguments),
            "reference": "default",
            "settings": trials.SETTINGS[DATA],
            "worlds": {**trials.WORLDS[DATA], **trials.PEOPLE, "first_seed": trials.FIRST_WORLD},
            "seeds": SEEDS,
            "tables": tables,
            "chosen_without_labels": found,
        },
    )
    print(trials.markdown(tables, DATA))
    for question, signals in found.items():
        print(f"\n{question}")
        for name, row in signals.items():
            print(f"  {name:12} {row}")


def choice_of_epoch(lines: Sequence[Line]) -> dict[str, Any]:
    """Of each run, the epoch that a signal is best in, against the one that scores best.

    A signal of an epoch's start is that of the model before it, so it goes with the score of the epoch
    before. "lost": mAP of the best epoch less that of the chosen one, as a mean over the runs. "rank":
    Spearman's correlation of signal and mAP in a run, likewise.
    """
    whole = [line["epochs"] for line in lines if "epochs" in line]  # a collapse has none
    runs = [(epochs[1:], [epoch["mAP"] for epoch in epochs[:-1]]) for epochs in whole]
    found: dict[str, Any] = {}
    for name, sign in SIGNALS.items():
        pairs = [([sign * epoch[name] for epoch in epochs], scores) for epochs, scores in runs]
        found[name] = judged(pairs)
    last = statistics.mean(max(scores) - scores[-1] for _, scores in runs)
    found["the last of them"] = {"lost": round(last, 4)}
    return found


def choice_of_eps(lines: Sequence[Line]) -> dict[str, Any]:
    """Of each seed, the eps whose last epoch has the best signal, against the one that scores best."""
    tried = {"default", *(f"eps {eps:g}" for eps in EPS)}
    found: dict[str, Any] = {}
    for name, sign in SIGNALS.items():
        pairs = []
        for seed in SEEDS:
            runs = [
                line
                for line in lines
                if line["seed"] == seed and line["variant"] in tried and "mAP" in line
            ]
            signals = [sign * run["epochs"][-1][name] for run in runs]
            pairs.append((signals, [run["mAP"] for run in runs]))
        found[name] = judged(pairs)
    return found


def judged(pairs: list[tuple[list[float], list[float]]]) -> dict[str, float]:
    """Means over (signals, scores)."""
    lost = [max(scores) - scores[signals.index(max(signals))] for signals, scores in pairs]
    ranks = [float(stats.spearmanr(signals, scores).statistic) for signals, scores in pairs]
    return {"lost": round(statistics.mean(lost), 4), "rank": round(statistics.mean(ranks), 3)}


if __name__ == "__main__":
    main()
