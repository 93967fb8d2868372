"""Whether something lies at a path, and whether a name stays in its folder.

What cannot be looked at is not there: pathlib raises, before Python 3.14, at a name that is too long
and in a folder that may not be entered.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def is_there(path: Path) -> bool:
    """Whether a path leads to anything.

    >>> is_there(Path()), is_there(Path("x" * 5000)), is_there(Path("a\\0b"))
    (True, False, False)
    """
    return _answer(path.exists)


def is_file(path: Path) -> bool:
    """Whether a path leads to a file.

    >>> is_file(Path()), is_file(Path("x" * 5000))
    (False, False)
    """
    return _answer(path.is_file)


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder.

    >>> is_folder(Path()), is_folder(Path("x" * 5000))
    (True, False)
    """
    return _answer(path.is_dir)


def named(folder: Path, name: str) -> Path:
    r"""The file that a table calls so, by slashes of either kind.

    >>> named(Path("herd"), r"cows\rosa.jpg").as_posix()
    'herd/cows/rosa.jpg'
    """
    path = folder / name
    if "\\" in name and not is_file(path):  # written on Windows
        return folder / name.replace("\\", "/")
    return path


def leads_out(folder: Path, path: Path) -> bool:
    """Whether a path lies elsewhere than in a folder, as it is written: links are not followed.

    >>> herd = Path("herd")
    >>> [leads_out(herd, herd / name) for name in ("a/../b.jpg", "a/../../b.jpg", "/etc/passwd")]
    [False, True, True]
    """
    inside, found = (os.path.normpath(p.absolute()) for p in (folder, path))
    return not Path(found).is_relative_to(inside)


def _answer(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except (OSError, ValueError):
        return False
