"""What the benchmarks share: what a figure was measured on, seconds and memory, spread over seeds."""

from __future__ import annotations

import ctypes
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

LINUX = platform.system() == "Linux"
RESULTS = Path(__file__).parent / "results"


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


@dataclass
class Cost:
    """What a stage took."""

    cpu_seconds: float = 0.0
    seconds: float = 0.0
    peak_gib: float = 0.0
    """Highest resident memory above that at the start of the stage."""

    def plain(self) -> dict[str, float]:
        """Rounded, for a results file."""
        return {
            "cpu_seconds": round(self.cpu_seconds, 3),
            "seconds": round(self.seconds, 3),
            "peak_gib_above_start": round(self.peak_gib, 3),
        }


@contextmanager
def measured() -> Iterator[Cost]:
    """Seconds and peak memory of what happens inside.

    What was freed before goes back to the system first: it would be taken again unseen. Linux can
    reset its peak; elsewhere the peak is that of the whole process, so a stage below it shows 0.
    """
    cost = Cost()
    if LINUX:
        if hasattr(ctypes.CDLL(None), "malloc_trim"):
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    start = _status("VmRSS") if LINUX else _highest()
    cpu, wall = time.process_time(), time.perf_counter()
    yield cost
    cost.cpu_seconds = time.process_time() - cpu
    cost.seconds = time.perf_counter() - wall
    cost.peak_gib = (_highest() - start) / 2**20


def resident_peak() -> float:
    """Highest resident memory of this process in GiB, since the last `measured` began."""
    return _highest() / 2**20


def command() -> str:
    """What was typed."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def in_own_process(script: str, arguments: list[str]) -> dict[str, Any]:
    """What a script prints as JSON on its last line, or that it died: of memory, most likely."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.splitlines() or [""]
        return {"died": f"exit {done.returncode}: {lines[-1][:200]}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def fitted_exponent(sizes: list[float], values: list[float]) -> float:
    """The e of value ~ size^e that fits best: the slope of the logarithms."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    slope, _ = statistics.linear_regression(x, y)
    return round(slope, 2)


def save(name: str, content: dict[str, Any]) -> None:
    """Writes results/NAME.json, headed by what it was measured on."""
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**describe(), **content}, indent=1) + "\n")


def repeated(action: Callable[[], Any], times: int = 3) -> tuple[Any, Cost]:
    """The last result, the least seconds over a few runs (other work only adds), the highest peak."""
    costs, result = [], None
    for _ in range(times):
        result = None  # or the next run would begin above it
        with measured() as cost:
            result = action()
        costs.append(cost)
    return result, Cost(
        min(cost.cpu_seconds for cost in costs),
        min(cost.seconds for cost in costs),
        max(cost.peak_gib for cost in costs),
    )


def in_turn(bare: Callable[[], Any], gracl: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """CPU seconds of both, one after the other in each round, and their ratio; medians.

    A round before the counted ones is left out: it fills caches.
    """
    seconds: dict[str, list[float]] = {"bare": [], "gracl": []}
    for _ in range(rounds + 1):
        for name, action in (("bare", bare), ("gracl", gracl)):
            start = time.process_time()
            action()
            seconds[name].append(time.process_time() - start)
    ratios = [g / b for b, g in zip(seconds["bare"][1:], seconds["gracl"][1:], strict=True)]
    return {
        "rounds": rounds,
        **{f"{name}_cpu_seconds": round(statistics.median(v[1:]), 3) for name, v in seconds.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_lowest_and_highest": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def _highest() -> int:
    """KiB."""
    if LINUX:
        return _status("VmHWM")
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest // 1024 if platform.system() == "Darwin" else highest  # bytes there


def _status(name: str) -> int:
    """KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
