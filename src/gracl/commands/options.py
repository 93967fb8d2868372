"""What several commands share: how data is named and read, and what is never overwritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import tyro

from gracl.disk import require_writable
from gracl.errors import ConfigError
from gracl.paths import is_folder, is_there

if TYPE_CHECKING:
    from gracl.data.records import Dataset, Records


@dataclass(frozen=True)
class Group:
    """Commands below one word, such as those of `gracl data`."""

    help: str
    """What they are for."""
    commands: Mapping[str, type | Group]
    """By the word that is typed, in the order in which help lists them."""


Flat = tyro.conf.arg(name="")
"""Takes a level of names away: --method.eps, not --config.method.eps."""


Images = Annotated[
    tyro.conf.Positional[Path],
    tyro.conf.arg(
        metavar="DATA",
        help="A folder of images, a table, boxes as JSON, or a published data set as it was unpacked.",
    ),
]


OptionalImages = Annotated[
    tyro.conf.Positional[Path | None],
    tyro.conf.arg(
        metavar="DATA",
        help="A folder of images, a table, boxes as JSON, or a published data set as it was unpacked.",
    ),
]


LayoutName = Annotated[
    str | None,
    tyro.conf.arg(
        help="How to read DATA, where there are several ways: market1501, msmt17-v2-train, ..."
    ),
]


def require_own_table(option: str, path: Path, head: str) -> None:
    """Refuses to write a table where it cannot be, or over something that is not one of its kind."""
    if is_folder(path) or not is_folder(path.parent):
        raise ConfigError(f"{option} is {path}; expected a file in a folder that exists")
    require_writable(path, ConfigError, f"another {option}")
    if is_there(path):
        with path.open(encoding="utf-8", errors="replace") as lines:
            first = lines.readline()
        if not first.startswith(head):
            raise ConfigError(
                f"{path} exists and is no table with the columns {head}, so it is not overwritten. "
                f"Give another {option}"
            )


def require_unique_names(option: str, images: Records) -> None:
    """An image's id is its file's name, which must then tell it from all others."""
    names = Counter(record.path.stem for record in images)
    name, count = max(names.items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        raise ConfigError(
            f"{option} names images by their files, and {count} are called '{name}'. Give them names "
            "of their own: gracl data convert DATA OUT"
        )


class NamesData(Protocol):
    """A command that is told which data to read."""

    @property
    def data(self) -> Path | None:
        """What was given as DATA."""

    @property
    def layout(self) -> str | None:
        """How to read it, where that was said."""


def load(command: NamesData) -> Dataset:
    """The data set that a command names."""
    from gracl.data.readers import load_dataset

    if command.data is None:
        raise ConfigError("no DATA was given")
    if command.layout is None:
        return load_dataset(command.data)
    return load_dataset(command.layout, root=command.data)
