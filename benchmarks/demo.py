"""The README's main command, measured: scores before and after, seconds, over seeds.

    python benchmarks/demo.py --seeds 0 1 2

Each seed draws its own people and trains its own network by `gracl demo` in a process of its own.
Results go to benchmarks/results/demo.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gracl.runs import Run
from measuring import describe, spread

RESULTS = Path(__file__).parent / "results" / "demo.json"
ROWS = {
    "mAP": ("scores", "mAP"),
    "mINP": ("scores", "mINP"),
    "R1": ("scores", "R1"),
    "R5": ("scores", "R5"),
    "R10": ("scores", "R10"),
    "ARI of the clusters": ("agreement", "ari"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    runs = {seed: measure(seed) for seed in seeds}
    result = {
        **describe(),
        "command": f"python benchmarks/demo.py --seeds {' '.join(map(str, seeds))}",
        "protocol": "cross-camera, last epoch",
        "mean_and_spread": {
            name: {
                when: spread([run[when][name] for run in runs.values()]) for when in ("before", "after")
            }
            for name in ROWS
        },
        "seconds": spread([run["seconds"] for run in runs.values()]),
        "seeds": runs,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


def measure(seed: int) -> dict[str, Any]:
    """One demo from nothing, drawing included."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "gracl", "demo", "--out", str(out), "--train.seed", str(seed)]
        started = time.perf_counter()
        subprocess.run(
            command, check=True, env={**os.environ, "GRACL_CACHE": folder}, capture_output=True
        )
        seconds = time.perf_counter() - started
        run = Run(out)
        found = {
            when: {name: scores[group][key] for name, (group, key) in ROWS.items()}
            for when, scores in (("before", run.before), ("after", run.after))
        }
    print(seed, round(seconds), found, flush=True)
    return {**found, "seconds": seconds}


def table(result: dict[str, Any]) -> str:
    """The README's table."""
    lines = ["| | before | after |", "| --- | --- | --- |"]
    for name, sides in result["mean_and_spread"].items():
        cells = [f"{100 * s['mean']:.1f} ± {100 * s['std']:.1f}" for s in sides.values()]
        lines.append(f"| {name}, % | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
