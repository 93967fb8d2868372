"""Real faults for tests: small disks that fill up, folders without permission, a typed command."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gracl.cli import main

NOBODY = 65534
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


@contextmanager
def no_permission(folder):
    """A folder of somebody else's, which may be read; root is nobody meanwhile."""
    if os.name == "nt":
        pytest.skip("permissions of Windows are others")
    was_root = os.geteuid() == 0
    before = folder.stat().st_mode
    folder.chmod(0o555)
    above = [p for p in folder.parents if not p.stat().st_mode & 0o001]
    modes = [(p, p.stat().st_mode) for p in above]
    for p, mode in modes:  # pytest's own folders are for their user alone
        p.chmod(mode | 0o011)
    if was_root:
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        if was_root:
            os.setresuid(0, 0, 0)
        for p, mode in modes:
            p.chmod(mode)
        folder.chmod(before)


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
