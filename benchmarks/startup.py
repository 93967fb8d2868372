"""How long the command line takes to say something: CPU seconds of fresh processes.

    python benchmarks/startup.py

Beside each other in turn: Python alone, `import gracl`, `gracl --help`, `gracl train --help`, and
`import torch`, which a command line that imports everything at its top would cost at least.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from measuring import command, save

PROCESSES = {
    "python": [sys.executable, "-c", "pass"],
    "import gracl": [sys.executable, "-c", "import gracl"],
    "gracl --help": [sys.executable, "-m", "gracl", "--help"],
    "gracl train --help": [sys.executable, "-m", "gracl", "train", "--help"],
    "import torch": [sys.executable, "-c", "import torch"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    spent: dict[str, list[float]] = {name: [] for name in PROCESSES}
    for _ in range(rounds + 1):  # the first fills the disk's cache, and does not count
        for name, process in PROCESSES.items():
            spent[name].append(seconds(process))
    medians = {name: statistics.median(times[1:]) for name, times in spent.items()}
    results = {
        name: {
            "cpu_seconds": round(value, 3),
            "of_import_torch": round(value / medians["import torch"], 3),
        }
        for name, value in medians.items()
    }
    print(results)
    save("startup", {"command": command(), "rounds": rounds, "results": results})


def seconds(process: list[str]) -> float:
    """CPU seconds, user and system, of a process and its children."""
    before = os.times()
    subprocess.run(process, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    main()
