"""Where the time of a run went, from its log."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from gracl.errors import RunError
from gracl.runs import Run


@dataclass(frozen=True)
class Profile:
    """A run's time by stage, its speed and its memory."""

    epochs: int
    """Epochs that are done."""
    seconds: dict[str, float]
    """By stage, of the whole run: decode, evaluate, and an epoch's stages added up."""
    images_per_second: dict[str, float]
    """Of all processes together, in the stages extract and train; the median over the epochs."""
    peak_memory: dict[str, int]
    """Bytes, of the first process: "host" and, on a GPU, "device"."""
    device: str
    """What the first process computes on."""
    processes: int
    """How many trained together."""

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())


def profile_run(run: Run) -> Profile:
    """Reads a run's log, of a finished run or one that is going on.

    What an interrupted epoch took, and was done again, is not in it.

    Raises:
        RunError: no epoch is done yet.
    """
    epochs = run.epochs
    if not epochs or "images_per_second" not in epochs[0]:
        raise RunError(
            f"{run.folder} has no epoch with times in its log yet. Train it with: gracl train"
        )
    seconds: dict[str, float] = {}
    for line in run.log:
        for stage, spent in line["seconds"].items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    speeds = [line["images_per_second"] for line in epochs]
    start = run.line("start")
    return Profile(
        epochs=len(epochs),
        seconds=seconds,
        images_per_second={
            stage: median(s[stage] for s in speeds if stage in s) for stage in speeds[0]
        },
        peak_memory=epochs[-1]["peak_memory"],
        device=start["device"],
        processes=start["processes"],
    )
