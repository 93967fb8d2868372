"""`gracl profile`: where the time of a training went."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gracl.terminal import print_profile


@dataclass(frozen=True)
class Profile:
    """Where the time of a training went, how fast it was, the memory it took."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder; the run may still be going on."""
    json: bool = False
    """Print JSON."""


def profile(command: Profile) -> None:
    """Print where the time of a run went."""
    from gracl.profiling import profile_run
    from gracl.runs import Run

    found = profile_run(Run(command.run))
    if command.json:
        print(json.dumps(asdict(found)))
    else:
        print_profile(found)
