"""What a big stage will need, said before it starts, and a refusal where it will not fit.

Memory follows from counts alone. Time follows from the products a stage is made of and from the speed
at which this machine multiplies, which is tried once and takes a few milliseconds.
"""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from gracl.errors import OutOfMemory

logger = logging.getLogger(__name__)

GIB = 2**30
RESERVE = 0.05
"""Share of the memory now available that is left to everything else."""


@dataclass(frozen=True)
class Forecast:
    """What a stage should need beyond what is in memory when it starts."""

    stage: str
    seconds: float
    """Wall time on this machine; a guide, good to a factor of about two."""
    memory: int
    """Bytes that the stage holds at its widest moment."""
    remedy: str
    """What to change where it does not fit."""

    @property
    def is_big(self) -> bool:
        """Whether somebody should be told before it starts."""
        return self.seconds >= 10 or self.memory >= GIB

    def __str__(self) -> str:
        return f"{self.stage}: about {duration(self.seconds)} and {self.memory / GIB:.1f} GiB"

    def announce(self) -> None:
        """Tells the log of a big stage, and raises `OutOfMemory` where it will not fit."""
        if self.is_big:
            logger.info("%s", self)
        require_memory(self.stage, self.memory, self.remedy)


def require_memory(stage: str, needed: int, remedy: str) -> None:
    """Raises `OutOfMemory` if so many bytes are not available; see `available_memory`."""
    available = available_memory()
    if needed > available * (1 - RESERVE):
        raise OutOfMemory(
            f"{stage} needs {needed / GIB:.1f} GiB and {available / GIB:.1f} GiB are available. "
            f"{remedy}"
        )


def available_memory() -> int:
    """Bytes this process may still take: what the system has free, or a container's bound."""
    available = int(psutil.virtual_memory().available)
    # A container's own bound (cgroup v2, then v1); absent or "max" where there is none.
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        bound, current = _number_in(limit), _number_in(used)
        if bound is not None and current is not None:
            return max(0, min(available, bound - current))
    return available


def product_seconds(terms: float) -> float:
    """Seconds that so many multiplications with addition take in a float32 product of this process."""
    return terms / _terms_a_second(torch.get_num_threads())


@functools.lru_cache
def _terms_a_second(threads: int) -> float:  # noqa: ARG001 - a key: other threads, another speed
    block = torch.ones(768, 768)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        block @ block
        times.append(time.perf_counter() - start)
    return float(768**3 / min(times))


def _number_in(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(12.3), duration(600), duration(9000)
    ('12 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
