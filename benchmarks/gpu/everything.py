"""All measurements that wait for a GPU, in turn; each continues where it was stopped.

    python benchmarks/gpu/everything.py

About half an hour on an H100. The results lie in benchmarks/results/gpu_*.json.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    ("training_step.py",),
    ("market.py", "--minutes", "60"),
    ("pseudo_labels.py",),
    ("deterministic.py",),
)


def main() -> None:
    for script, *arguments in SCRIPTS:
        path = Path(__file__).parent / script
        subprocess.run([sys.executable, str(path), *arguments], check=True)


if __name__ == "__main__":
    main()
