"""What the benchmarks share: what a figure was measured on, and mean and spread over seeds."""

from __future__ import annotations

import os
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Date, processor, versions: the head of every results file."""
    names = ("torch", "timm", "numpy", "scipy", "scikit-learn", "numba", "pillow")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpu": _processor(), "cores": os.cpu_count(), "system": platform.system()},
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in names},
    }


def spread(values: list[float]) -> dict[str, float]:
    """Mean and sample standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.mean(values), 4), "std": round(deviation, 4)}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
