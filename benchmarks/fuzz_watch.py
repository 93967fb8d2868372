"""Bad input in a process of its own, under watch: a hang, a flood of memory and a signal are seen.

The process tells before each case what it is about to do, and afterwards how it ended; where it falls
silent, or grows, it is killed, the case is counted, and another one goes on behind it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np

from gracl.errors import GraclError
from measuring import measured

CPU_SECONDS, SECONDS = 10.0, 60.0
"""A hang is a case that takes more of the processor, or, where it waits, of the clock: a machine that
is shared with others slows the clock and not the processor."""
MEMORY = 1.5
"""GiB above what the process held when the case began."""

Ending = Literal["read", "refused", "crash"]
Feed = Callable[[], Ending]
"""Hands the input to its reader."""


class Case(NamedTuple):
    """One bad input."""

    what: str
    """What was done to it."""
    feed: Feed


Kind = Callable[[np.random.Generator, Path], Case]
"""Makes a case, in an empty folder that is its own."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    kind: str
    number: int
    what: str
    ending: Ending
    words: str = ""
    """Of the error; of a crash, where it came from."""
    seconds: float = 0.0
    peak_gib: float = 0.0
    """Above the start."""


class Plan(NamedTuple):
    """Cases of a kind: each follows from the seed, the kind's name and its number."""

    kind: str
    first: int
    behind: int


# -- the process that feeds -----------------------------------------------------------------------


def feed_all(kinds: dict[str, Kind], plans: Iterable[Plan], seed: int, scratch: Path) -> None:
    """Feeds all cases, and tells on the standard output; what the readers print goes nowhere."""
    told, errors = os.fdopen(os.dup(1), "w", buffering=1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    try:
        for name, first, behind in plans:
            for number in range(first, behind):
                _feed(kinds[name], name, number, seed, scratch / f"{name}-{number}", told)
    finally:
        os.dup2(errors, 2)  # for what is wrong with this script itself


def _feed(kind: Kind, name: str, number: int, seed: int, folder: Path, told: TextIO) -> None:
    folder.mkdir()
    case = kind(np.random.default_rng([seed, *name.encode(), number]), folder)
    told.write(json.dumps({"kind": name, "number": number, "what": case.what}) + "\n")
    with measured() as cost:
        ending, words = judge(case.feed)
    if ending != "crash" and cost.cpu_seconds > CPU_SECONDS:
        ending, words = "crash", f"{cost.cpu_seconds:.0f} s of the processor; {words}"
    if ending != "crash" and cost.peak_gib > MEMORY:
        ending, words = "crash", f"{cost.peak_gib:.2f} GiB; {words}"
    outcome = Outcome(
        name, number, case.what, ending, words[:1000], round(cost.seconds, 3), round(cost.peak_gib, 3)
    )
    told.write(json.dumps(asdict(outcome)) + "\n")
    _empty(folder)


def judge(feed: Feed) -> tuple[Ending, str]:
    """Hands an input over: read, refused by a named error, or a crash; and the error's words."""
    try:
        return feed(), ""
    except GraclError as error:
        name = type(error).__name__
        return ("refused", f"{name}: {error}") if str(error) else ("crash", f"{name} without a word")
    except BaseException as error:
        return "crash", f"{type(error).__name__}: {error}"[:300] + _where(error)


def _where(error: BaseException) -> str:
    """The last lines of gracl's own code that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames if "gracl" in f.filename]
    return " | " + " > ".join(own[-4:])


def _empty(folder: Path) -> None:
    """What a case made; a reader's threads may still let go of a file."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(OSError):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    with suppress(OSError):
        folder.rmdir()


# -- the process that watches ---------------------------------------------------------------------


def watch(command: Sequence[str], plans: Sequence[Plan]) -> Iterator[Outcome]:
    """How each case ended.

    Args:
        command: of a process that calls `feed_all` for the plans it is given as words.
        plans: all cases.
    """
    left = list(plans)
    while left:
        died: dict[str, Any] | None = None
        for told in _listen([*command, *(f"{p.kind}:{p.first}:{p.behind}" for p in left)]):
            if "died" in told:
                died = told
                break
            yield Outcome(**told)
        if died is None:
            return
        if "kind" not in died:
            raise RuntimeError(f"the process died before its first case: {died['died']}")
        yield Outcome(died["kind"], died["number"], died["what"], "crash", died["died"])
        while left[0].kind != died["kind"] or died["number"] not in range(left[0][1], left[0][2]):
            left.pop(0)
        left[0] = left[0]._replace(first=died["number"] + 1)


def _listen(command: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What the process tells of cases that ended; at last, if it must, that it died and at which."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    watched = _Watched(process)
    threading.Thread(target=watched.guard, daemon=True).start()
    last: dict[str, Any] = {}
    for line in process.stdout:
        told = json.loads(line)
        if "ending" in told:
            watched.rest()
            last = {}
            yield told
        else:
            last = told
            watched.begin()
    watched.over = True
    code = process.wait()
    process.stdout.close()
    if code:
        signalled = signal.Signals(-code).name if code < 0 else f"exit {code}"
        yield {**last, "died": watched.why or signalled}


class _Watched:
    """Kills a process whose case takes too long, or too much."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.over, self.why = process, False, ""
        self._began: tuple[float, float, float] | None = None

    def begin(self) -> None:
        """A case begins."""
        self._began = (time.monotonic(), *self._taken())

    def rest(self) -> None:
        """It ended."""
        self._began = None

    def guard(self) -> None:
        """Looks every twentieth of a second."""
        while not self.over and not self.why:
            time.sleep(0.05)
            began = self._began
            if began is None:
                continue
            seconds, (cpu, held) = time.monotonic() - began[0], self._taken()
            if self._began is not began:
                continue  # it ended meanwhile
            if cpu - began[1] > 2 * CPU_SECONDS or seconds > SECONDS:
                self.why = f"a hang: {seconds:.0f} s, {cpu - began[1]:.0f} s of the processor"
            elif held - began[2] > 2 * MEMORY:
                self.why = f"memory: {held - began[2]:.1f} GiB and growing"
            if self.why:
                self.process.kill()

    def _taken(self) -> tuple[float, float]:
        """Seconds of the processor and GiB, on Linux; elsewhere only the clock is watched."""
        if not sys.platform.startswith("linux"):
            return 0.0, 0.0
        try:
            words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            return 0.0, 0.0
        page = os.sysconf("SC_PAGE_SIZE")
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK"), (
            int(words[21]) * page / 2**30
        )
