"""Whether something lies at a path: what cannot be looked at is not there.

pathlib raises, before Python 3.14, at a name that is too long and in a folder that may not be entered.
"""

from __future__ import annotations

from pathlib import Path


def is_there(path: Path) -> bool:
    """Whether a path leads to anything.

    >>> is_there(Path()), is_there(Path("x" * 5000)), is_there(Path("a\\0b"))
    (True, False, False)
    """
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether a path leads to a file.

    >>> is_file(Path()), is_file(Path("x" * 5000))
    (False, False)
    """
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder.

    >>> is_folder(Path()), is_folder(Path("x" * 5000))
    (True, False)
    """
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
