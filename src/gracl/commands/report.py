"""`gracl report`: a run as one HTML file to look at and to pass on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gracl.terminal import Bars, console


@dataclass(frozen=True)
class Report:
    """Write what a run learnt as one HTML file that opens from disk, offline."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder of a finished run."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    """The file to write; report.html in the run's folder if not given."""
    data: Path | None = None
    """Where the run's images lie now, if no longer where they were."""
    images: int = 2000
    """Images on the map of the features, drawn at random where there are more."""
    no_images: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave all pictures out, and name images by their paths."""
    calibration: Path | None = None
    """A file of 'gracl calibrate'; calibration.json in the run's folder if there is one."""
    seed: int = 0
    """Of all that is drawn at random."""
    device: str = "auto"
    """The first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps."""
    threads: int = 0
    """CPU threads; 0 is as many as there are cores."""


def report(command: Report) -> None:
    """Write a report, and say where it is and what it holds."""
    from gracl.report.page import write_report
    from gracl.training import use_threads

    use_threads(command.threads)
    with Bars() as bars:
        out = write_report(
            command.run,
            command.out,
            data=command.data,
            images=command.images,
            pictures=not command.no_images,
            calibration=command.calibration,
            seed=command.seed,
            device=command.device,
            progress=bars,
        )
    holds = "no picture" if command.no_images else "pictures of your data: mind whom you give it to"
    console.print(f"{out} ({out.stat().st_size / 1e6:.1f} MB), with {holds}", soft_wrap=True)
