"""Where the time of a run goes, stage by stage, and the most memory it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


class Stopwatch:
    """Seconds by stage; stages of one name add up.

    An accelerator works behind the clock's back, so a stage ends when the device has finished it.

    >>> watch = Stopwatch(torch.device("cpu"))
    >>> with watch("search"):
    ...     _ = torch.eye(3) @ torch.eye(3)
    >>> list(watch.seconds)
    ['search']
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Adds the block's time to a stage."""
        start = time.perf_counter()
        yield
        wait_for(self.device)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Returns when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> dict[str, int]:
    """The most bytes that this process has had: "host" in memory, "device" on a GPU.

    The host's counts what the process has read through memory maps, such as the image store, as far
    as the system keeps it in memory; it could be given back at any time.
    """
    if sys.platform == "win32":
        peak = int(psutil.Process().memory_info().peak_wset)
    else:
        import resource

        # Kilobytes on Linux, bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"host": peak}
    if device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(device)
    return found
