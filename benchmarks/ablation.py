"""What GRACL's open questions are worth: one setting after the other, and where its proxies lie.

    python benchmarks/ablation.py --real cows=FOLDER --real mini_mars=FOLDER --weights FILE --log LOG

Two tables: changes from the settings that the project began with, and changes from those that won.
The winners were chosen from these trials (seeds 0, 1, 2); how good they are is measured on other seeds
by benchmarks/methods.py. Results go to benchmarks/results/ablation.json.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import trials
from measuring import save
from trials import Trial

BEGAN = {
    "relation": "cosine",
    "update": "criterion",
    "inter_weight": 0.5,
    "intra_weight": 0.5,
    "centroid_weight": 0.0,
}
"""What the project began with, and what the first table changes."""
BESIDE = {"centroid_weight": 0.5, "inter_weight": 0.25, "intra_weight": 0.25}
FIRST: dict[str, dict[str, Any]] = {
    "gracl": {},
    "centroid only": {"centroid_weight": 1.0, "inter_weight": 0.0, "intra_weight": 0.0},
    "inter only": {"intra_weight": 0.0},
    "intra only": {"inter_weight": 0.0},
    "relation jaccard": {"relation": "jaccard"},
    "nearest 10": {"inter_nearest": 10},
    "nearest 0 (all)": {"inter_nearest": 0},
    "jaccard, nearest 0 (all)": {"relation": "jaccard", "inter_nearest": 0},
    "intra min": {"intra": "min"},
    "update each": {"update": "each"},
    "update mean": {"update": "mean"},
    "update none": {"update": "none"},
    "momentum 0.9": {"inter_momentum": 0.9, "intra_momentum": 0.9},
    "start mean": {"start": "mean"},
    "negatives all": {"negatives": "all"},
    "outliers others": {"outliers": "others"},
    "outliers singletons": {"outliers": "singletons"},
    "centroid 0.5 beside": BESIDE,
    "update mean, momentum 0.9": {"update": "mean", "inter_momentum": 0.9, "intra_momentum": 0.9},
    "update mean, negatives all": {"update": "mean", "negatives": "all"},
    "centroid 0.5, update mean": {**BESIDE, "update": "mean"},
    "centroid 0.5, update none": {**BESIDE, "update": "none"},
    "centroid 0.5, jaccard": {**BESIDE, "relation": "jaccard"},
    "centroid 0.5, negatives all": {**BESIDE, "negatives": "all"},
    "jaccard, update mean": {"relation": "jaccard", "update": "mean"},
    "jaccard, update none": {"relation": "jaccard", "update": "none"},
    "jaccard, update sample": {"relation": "jaccard", "update": "sample"},
    "centroid 0.5, jaccard, update mean": {**BESIDE, "relation": "jaccard", "update": "mean"},
    "centroid 0.5, jaccard, update none": {**BESIDE, "relation": "jaccard", "update": "none"},
    "centroid 0.5, jaccard, update sample": {**BESIDE, "relation": "jaccard", "update": "sample"},
}
EASY_ONLY = {
    "nearest 10",
    "nearest 0 (all)",
    "jaccard, nearest 0 (all)",
    "intra min",
    "outliers others",
    "outliers singletons",
    "centroid 0.5, jaccard",
    "centroid 0.5, negatives all",
    "momentum 0.9",
    "update mean, momentum 0.9",
    "update mean, negatives all",
}
"""Tried on the easier drawn people alone."""
REAL = [
    "gracl",
    "centroid only",
    "centroid 0.5, jaccard, update none",
    "centroid 0.5, jaccard, update sample",
]
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    trials.add_flags(parser)
    arguments = parser.parse_args()
    listed = [
        Trial(data, name, seed, {"method": {**BEGAN, **changes}})
        for seed in SEEDS
        for data in trials.SETTINGS
        if data in trials.WORLDS or data in trials.real_of(arguments)
        for name, changes in FIRST.items()
        if (data == "drawn" or name not in EASY_ONLY) and (data in trials.WORLDS or name in REAL)
    ]
    lines = trials.run_all(listed, arguments)
    tables = trials.summary(lines, "gracl")
    for data, table in tables.items():
        for name, seeds in trials.by_variant(lines, data).items():
            looks = [line["epochs"] for line in seeds.values() if "epochs" in line]
            if looks:
                table[name]["by_epoch"] = by_epoch(looks)
        print(f"\n{data}\n{trials.markdown(tables, data)}")
    save(
        "ablation",
        {
            "command": trials.command("ablation", arguments),
            "reference": "gracl, as the project began: " + str(BEGAN),
            "settings": trials.SETTINGS,
            "worlds": {**trials.WORLDS, **trials.PEOPLE, "first_seed": trials.FIRST_WORLD},
            "protocol": {line["data"]: line["protocol"] for line in lines if "protocol" in line},
            "seeds": SEEDS,
            "tables": tables,
        },
    )


def by_epoch(runs: list[list[dict[str, Any]]]) -> dict[str, list[float]]:
    """Each thing noted, epoch by epoch, as a mean over the seeds."""
    flat = [[flattened(epoch) for epoch in epochs] for epochs in runs]
    names = [name for name, value in flat[0][-1].items() if value is not None]
    found = {}
    for name in names:
        columns = zip(*([epoch.get(name) for epoch in epochs] for epochs in flat), strict=True)
        found[name] = [round(statistics.mean(column), 4) for column in columns if None not in column]
    return found


def flattened(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names joined by dots."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flattened(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


if __name__ == "__main__":
    main()
