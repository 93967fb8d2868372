"""Real faults for tests: small disks that fill up, folders without permission, a typed command."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from gracl.cli import main

CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1 << 1, 1 << 2
SIZE = 24 * 2**20


@dataclass(frozen=True)
class Disk:
    """A file system of its own, in memory, of a few MB."""

    path: Path

    def fill(self, free=0):
        """Leaves so many bytes, or up to a page more."""
        room = os.statvfs(self.path)
        with (self.path / "filler").open("wb") as file:
            file.write(bytes(max(0, room.f_bavail * room.f_frsize - free)))

    def make_room(self):
        (self.path / "filler").unlink()

    def set(self, mode):
        """Makes it read-only ("ro") or not ("rw")."""
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)

    def content(self):
        """All files by their names below it, but what fills it and what SQLite keeps beside a file."""
        files = (p for p in self.path.rglob("*") if p.is_file() and p.name != "filler")
        return {
            p.relative_to(self.path).as_posix(): p.read_bytes()
            for p in files
            if not p.name.endswith(("-shm", "-wal"))
        }


@pytest.fixture
def disk(tmp_path):
    """A disk of 24 MB; where none may be mounted the test is skipped."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:  # no Linux
        pytest.skip(f"no disk can be mounted: {error}")
    if done.returncode:
        pytest.skip(f"no disk can be mounted: {done.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def without_permission(folder, do, *, mode=0o555):
    """What a function gives while a folder may be read and not written to, for root also.

    With `mode` 0 it may not be entered either.
    """
    if os.name == "nt":
        pytest.skip("permissions of Windows are others")
    before = folder.stat().st_mode
    folder.chmod(mode)
    try:
        return _held_to_permissions(do) if os.geteuid() == 0 else do()
    finally:
        folder.chmod(before)


def _held_to_permissions(do):
    """Runs it in a thread that has given up root's right to pass over permissions: capabilities(7).

    Another user would not do: Python's own files may lie where their owner alone can read them, and
    whatever is imported late would not be found.
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux can take this right from root")
    with ThreadPoolExecutor(1, initializer=_give_up_passing_over_permissions) as thread:
        return thread.submit(do).result()


def _give_up_passing_over_permissions():
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    rights = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their higher bits
    if libc.capget(header, rights):
        raise OSError(ctypes.get_errno(), "capget")
    for kind in range(3):
        rights[kind] &= ~(CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH)
    if libc.capset(header, rights):
        raise OSError(ctypes.get_errno(), "capset")


@dataclass(frozen=True)
class Typed:
    """What came of a command."""

    code: int
    text: str

    @property
    def error(self):
        """The one sentence that a failed command ends with."""
        assert self.code == 2, self.text
        assert "Traceback" not in self.text
        assert self.text.count("error:") == 1, self.text
        return " ".join(self.text.partition("error:")[2].split())


@pytest.fixture
def typed(capsys):
    """Types a command, in this process."""

    def run(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        seen = capsys.readouterr()
        return Typed(end.value.code or 0, seen.out + seen.err)

    return run
