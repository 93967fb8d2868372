"""What a disk did not take, in words; and nothing half-written under a file's own name.

A full disk, one that can only be read, a folder that is not the user's or is gone: each is told here,
for all that gracl writes. SQLite has its own words for the same, which are traced back to the disk.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gracl.errors import GraclError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DENIED = (errno.EACCES, errno.EPERM)
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
"""What the system says when there is no room, no permission and no folder."""
LEAST = 2**20
"""Bytes that SQLite may need beside a file to open it; below, what fails is taken to fail by them."""
UNFINISHED = ".unfinished"
"""How the names of files and folders end that are being written."""
OTHER_CACHE = "another cache folder (export GRACL_CACHE=FOLDER)"
"""What is told where gracl's cache cannot be written."""


def put(path: Path, content: bytes, kind: type[GraclError], elsewhere: str) -> None:
    """Writes a file in one step: a reader, and a killed process, sees the old one or the new.

    Args:
        path: the file.
        content: all of it.
        kind: what is raised where it cannot be written.
        elsewhere: what the user may give instead, such as "another --out".

    >>> import tempfile
    >>> from gracl.errors import RunError
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     put(Path(folder, "gone", "a.csv"), b"", RunError, "another --out")
    Traceback (most recent call last):
    gracl.errors.RunError: cannot write .../gone/a.csv: there is no folder .../gone. Make it, or give
    another --out; what was written before is intact
    """
    with one_step(path, kind, elsewhere) as unfinished, unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def one_step(
    path: Path, kind: type[GraclError], elsewhere: str, *, beside: Path | None = None
) -> Iterator[Path]:
    """A name to write to, which becomes the file's own at the end; nothing is left by what fails.

    Args:
        path: the file.
        kind, elsewhere: see `put`.
        beside: the name; the file's own with `.unfinished` behind it if not given.
    """
    unfinished = beside or path.with_name(path.name + UNFINISHED)
    with told(path, kind, elsewhere):
        try:
            yield unfinished
            unfinished.replace(path)
        except BaseException:
            with suppress(OSError):  # most often it is not there any more, or never was
                unfinished.unlink()
            raise


@contextmanager
def whole_folder(out: Path, kind: type[GraclError], elsewhere: str) -> Iterator[Path]:
    """A new folder to fill, which takes its own name at the end; nothing is left by what fails.

    Args:
        out: the folder, which is empty or not there.
        kind, elsewhere: see `put`.
    """
    unfinished = out.with_name(f".{out.name}.{uuid.uuid4().hex}{UNFINISHED}")
    with told(out, kind, elsewhere):
        try:
            unfinished.mkdir(parents=True)
            yield unfinished
            if out.exists():
                out.rmdir()  # it is empty; not every system renames onto an empty folder
            unfinished.rename(out)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def told(
    path: Path, kind: type[GraclError], elsewhere: str, *, what: str | None = None
) -> Iterator[None]:
    """Says in words why something cannot be written.

    Args:
        path: the file or folder.
        kind, elsewhere: see `put`.
        what: is written, where a path alone would tell nobody anything.
    """
    try:
        yield
    except OSError as error:
        words = in_words(error, path, elsewhere)
        raise kind(
            f"cannot write {what or path}: {words}; what was written before is intact"
        ) from error


def in_words(error: OSError, path: Path, elsewhere: str) -> str:
    """Why something could not be written, and what to do about it.

    Args:
        error: what the system said.
        path: what was to be written.
        elsewhere: what the user may give instead, such as "another --out".
    """
    folder, said = _nearest(path), error.strerror or str(error)
    if error.errno == errno.EFBIG:
        return f"{said}: this process may write no larger one (ulimit -f). Raise that limit"
    if error.errno in FULL:
        return f"{said}, {_room(folder)} in {folder}. Free some space there or give {elsewhere}"
    if error.errno == errno.EROFS:
        return f"{said}. Give {elsewhere}, on a disk that is not read-only"
    if error.errno in DENIED:
        return f"{said}: you may not write there. Give {elsewhere}, or get the permission"
    if error.errno in GONE:
        return f"there is no folder {path.parent}. Make it, or give {elsewhere}"
    return f"{said}. Give {elsewhere}"


def require_writable(path: Path, kind: type[GraclError], elsewhere: str) -> None:
    """Refuses a file in a folder that may not be written, before work is spent on it; see `put`."""
    if denied := _denied(path.with_name(path.name + UNFINISHED)):
        with told(path, kind, elsewhere):
            raise OSError(denied, os.strerror(denied))


def require_room(folder: Path, needed: int, what: str, kind: type[GraclError], elsewhere: str) -> None:
    """Refuses work whose result the disk has no room for; before it starts.

    Args:
        folder: where it is written; it need not be there yet.
        needed: bytes.
        what: is written, such as "the image store of 80 images".
        kind, elsewhere: see `put`.
    """
    try:
        free = shutil.disk_usage(_nearest(folder / "file")).free
    except OSError:  # a file system that does not say; then writing will
        return
    if needed > free:
        raise kind(
            f"the disk is too full: {what} needs {in_bytes(needed)} in {folder}, and {in_bytes(free)} "
            f"are free. Free some space there or give {elsewhere}"
        )


def in_bytes(n: int) -> str:
    """A number of bytes as people read it.

    >>> in_bytes(0), in_bytes(61_000), in_bytes(2_340_000), in_bytes(71_000_000_000)
    ('0.0 MB', '0.1 MB', '2.3 MB', '71.0 GB')
    """
    return f"{n / 1e6:.1f} MB" if n < 1e9 else f"{n / 1e9:.1f} GB"


# -- SQLite ---------------------------------------------------------------------------------------


def of_sqlite(error: sqlite3.Error, path: Path) -> OSError | None:
    """What the system said when SQLite could not go on; None where that was not the disk's doing."""
    name = getattr(error, "sqlite_errorname", None) or ""
    denied = _denied(path)
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR")) and denied:
        return OSError(denied, os.strerror(denied))
    is_full = name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")) and _free(path) < LEAST
    if name == "SQLITE_FULL" or is_full:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None


def database_address(path: Path) -> str:
    """The address by which SQLite opens a file, for `uri=True`: to read where it may not be written.

    A log of writes beside it holds what is not in the file yet, so then it is read as well. Without one
    the file is read as it lies: SQLite would make files of its own beside it.
    """
    if may_write(path):
        return path.absolute().as_uri()
    return path.absolute().as_uri() + ("?mode=ro" if unread_log(path) else "?mode=ro&immutable=1")


def unread_log(path: Path) -> Path | None:
    """The log of writes beside a database that may not be written, if it holds any."""
    log = path.with_name(path.name + "-wal")
    return log if not may_write(path) and log.is_file() and log.stat().st_size else None


def may_write(path: Path) -> bool:
    """Whether a file and its folder may be written, as far as they are there."""
    return all(os.access(p, os.W_OK) for p in (path.parent, path) if p.exists())


# -- small parts ----------------------------------------------------------------------------------


def _denied(path: Path) -> int:
    """The number of what the system says of a place that may not be written; 0 where it may."""
    if not path.parent.is_dir():
        return errno.ENOENT
    if may_write(path):
        return 0
    flags = os.statvfs(path.parent).f_flag if hasattr(os, "statvfs") else 0
    return errno.EROFS if flags & getattr(os, "ST_RDONLY", 1) else errno.EACCES


def _nearest(path: Path) -> Path:
    """The folder of a path, or the nearest above it that is there."""
    return next((folder for folder in path.absolute().parents if folder.is_dir()), Path())


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(_nearest(path)).free
    except OSError:
        return LEAST


def _room(folder: Path) -> str:
    """How much is left: bytes, or files where it is these that have run out."""
    try:
        free = shutil.disk_usage(folder).free
        files = os.statvfs(folder).f_favail if hasattr(os, "statvfs") else 1
    except OSError:
        return "and nobody knows how much is free"
    return f"{in_bytes(free)} are free" + ("" if files else ", but no more files can be made")
