"""GRACL among its neighbours: the same data, schedule, batches and scores for each method.

    python benchmarks/methods.py --real cows=FOLDER --real mini_mars=FOLDER --weights FILE --log LOG

Seeds are others than those that GRACL's defaults were chosen on (benchmarks/ablation.py): other drawn
people, other divisions of the cows; mini_mars has one test part, so there a seed is one of the weights'
draws alone. Each method has the settings of its paper where the data's own (SETTINGS of trials.py) do
not say otherwise. Results go to benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import trials
from measuring import RESULTS, save
from trials import Trial

METHODS: dict[str, dict[str, Any]] = {
    "gracl": {},
    # What of ICE's score is its teacher? The same one for GRACL and for Cluster Contrast.
    "gracl, with a teacher": {"train": {"ema": 0.95}},
    "cluster-contrast, with a teacher": {
        "method": {"name": "cluster-contrast"},
        "train": {"ema": 0.95},
    },
    "cluster-contrast": {"method": {"name": "cluster-contrast"}},
    "cluster-contrast, mean": {"method": {"name": "cluster-contrast", "update": "mean"}},
    "cluster-contrast, mean, momentum 0.9": {
        "method": {"name": "cluster-contrast", "update": "mean", "momentum": 0.9}
    },
    "hhcl": {"method": {"name": "hhcl"}},
    "spcl": {"method": {"name": "spcl"}},
    "dcmip": {"method": {"name": "dcmip"}},
    # A teacher that keeps 0.999 of itself hardly moves in the 100 steps of a trial.
    "ice": {"method": {"name": "ice"}, "train": {"ema": 0.95}},
    # Feature maps of such small images have two rows of cells, too few for three stripes.
    "pplr": {"method": {"name": "pplr"}, "model": {"parts": 2}},
    "cap": {"method": {"name": "cap"}},
    "supervised": {"method": {"name": "supervised"}},
}
NO_CAMERAS = {"cows"}
"""Data without cameras, which cap cannot do without."""
REFERENCE = "cluster-contrast"
TITLES = {
    "drawn": "drawn people",
    "drawn_hard": "drawn, harder",
    "cows": "cows",
    "mini_mars": "people in video",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5, 6, 7])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--data", nargs="+", default=list(trials.SETTINGS), help="in this order")
    parser.add_argument("--name", default="methods", help="of the results file")
    parser.add_argument(
        "--keep", action="store_true", help="rows of the results file that are not measured now stay"
    )
    trials.add_flags(parser)
    arguments = parser.parse_args()
    listed = [
        Trial(data, name, seed, METHODS[name])
        for seed in arguments.seeds
        for data in arguments.data
        if data in trials.WORLDS or data in trials.real_of(arguments)
        for name in arguments.methods
        if name != "cap" or data not in NO_CAMERAS
    ]
    lines = trials.run_all(listed, arguments)
    tables = trials.summary(lines, REFERENCE)
    if arguments.keep:
        tables = with_kept_rows(tables, arguments.name)
    for data in tables:
        print(f"\n{data}\n{trials.markdown(tables, data)}")
    print(f"\n{side_by_side(tables)}")
    save(
        arguments.name,
        {
            "command": trials.command(
                "methods",
                arguments,
                *("--seeds", *map(str, arguments.seeds)),
                *("--data", *arguments.data),
                *("--methods", *map(repr, arguments.methods)),
                *("--name", arguments.name),
                *(["--keep"] if arguments.keep else []),
            ),
            "reference": REFERENCE,
            "settings": trials.SETTINGS,
            "worlds": {**trials.WORLDS, **trials.PEOPLE, "first_seed": trials.FIRST_WORLD},
            "methods": METHODS,
            "protocol": {line["data"]: line["protocol"] for line in lines if "protocol" in line},
            "seeds": arguments.seeds,
            "tables": tables,
        },
    )


def with_kept_rows(tables: dict[str, Any], name: str) -> dict[str, Any]:
    """Tables with the rows that the results file has besides; those of now take the place of old ones.

    Differences are in pairs with the reference, so it must have been measured again, to the digit.
    """
    old = json.loads((RESULTS / f"{name}.json").read_text())["tables"]
    for data in tables.keys() & old.keys():
        for key in ("mAP", "R1"):
            now, before = (table[data][REFERENCE][key] for table in (tables, old))
            if now != before:
                raise SystemExit(f"{data}: {REFERENCE} had {key} {before}, now {now}; run all again")
    return {data: {**old.get(data, {}), **tables.get(data, {})} for data in {**old, **tables}}


def side_by_side(tables: dict[str, Any]) -> str:
    """The README's table: mAP and its difference from the reference in pairs, by data set."""
    lines = [
        "| method | " + " | ".join(f"{TITLES[data]} | difference" for data in tables) + " |",
        "| --- |" + " --- | --- |" * len(tables),
    ]
    first = next(iter(tables.values()))
    for name in sorted(first, key=lambda name: -first[name].get("mAP", {"mean": 0.0})["mean"]):
        cells = [cell for table in tables.values() for cell in _cells(table.get(name, {}))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> tuple[str, str]:
    if "mAP" not in row:
        return "-", "-"
    pairs = row.get("mAP_minus_reference")
    score = f"{100 * row['mAP']['mean']:.1f} ± {100 * row['mAP']['std']:.1f}"
    if pairs is None:
        return score, "reference"
    low, high = (100 * v for v in pairs["interval_95"])
    return score, f"{100 * pairs['mean']:+.1f} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    main()
