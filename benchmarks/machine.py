"""What a figure was measured on: it stands at the head of every results file."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Date, processor, versions."""
    names = ("torch", "timm", "numpy", "scipy", "scikit-learn", "numba", "pillow")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpu": _processor(), "cores": os.cpu_count(), "system": platform.system()},
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in names},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
