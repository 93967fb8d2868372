"""One process at a time writes a folder; a second is told who does.

The lock is the operating system's, on a file in the folder, so it ends with the process that holds it,
however that ends: a file that a killed process left locks nobody out. Else the file goes with the lock.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from gracl.disk import told
from gracl.errors import RunError

LOCK = ".lock"
"""What the file is called."""
GUARDED = 1 << 30
"""The byte that is locked, beyond what is written, so that the holder's name can be read on Windows."""


@contextmanager
def held(folder: Path, *, doing: str) -> Iterator[None]:
    """Keeps other processes from writing a folder while the block runs.

    Args:
        folder: one that exists.
        doing: what the others are told, such as "trained".

    Raises:
        RunError: another process holds it, which is named; or the folder cannot be written.
    """
    path = folder / LOCK
    with _taken(path, doing) as file:
        try:
            with told(path, RunError, "another folder"):
                file.truncate(0)
                os.write(file.fileno(), this_process())  # what no disk took waits nowhere
            yield
        finally:
            with suppress(OSError):  # an open file cannot be removed on Windows; there it stays
                path.unlink()


def this_process() -> bytes:
    """What others are told of the one that holds something; see `holder`."""
    who = {"process": os.getpid(), "host": platform.node(), "since": time.strftime("%F %T %z")}
    return json.dumps(who).encode()


def holder(text: str) -> str:
    """Who that is in words, as far as it said so."""
    try:
        who = json.loads(text)
        return f"process {who['process']} of {who['host']}, since {who['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _taken(path: Path, doing: str) -> IO[str]:
    """The file, locked."""
    while True:
        try:
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise RunError(
                f"{path.parent} cannot be written: {error.strerror or error}. Give a folder that can "
                "be, or permission"
            ) from error
        if not _take(file):
            with file:
                file.seek(0)
                who = holder(_content(file))
            raise RunError(f"{path.parent} is being {doing} by {who}. Wait for it, or stop it first")
        # Whoever held it may have removed it meanwhile: then this is the lock of a file that is gone.
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _content(file: IO[str]) -> str:
    try:
        return file.read()
    except (ValueError, OSError):
        return ""


if os.name == "nt":  # pragma: no cover - tried on Linux only
    import msvcrt

    def _take(file: IO[str]) -> bool:
        file.seek(GUARDED)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True

else:
    import fcntl

    def _take(file: IO[str]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
