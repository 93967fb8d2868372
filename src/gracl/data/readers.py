"""From what lies on disk to a `Dataset`: Market-1501's layout, a CSV, or any folder of images.

Nothing is ever written into a user's folder, and identities are always text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from gracl.data.parts import SPLITS, Parts, existing, images_below
from gracl.data.records import Dataset, Problem, Record
from gracl.data.tables import TABLE, read_csv
from gracl.errors import DataError, did_you_mean

MARKET_FOLDERS = {
    "train": "bounding_box_train",
    "query": "query",
    "gallery": "bounding_box_test",
}
MARKET_NAME = re.compile(r"^(-?\d+)_c(\d+)")
"""Identity and camera, matched at the start of the file *name*: a parent folder such as run3_c2
must not become an identity."""


def load_dataset(name: str | Path, root: str | Path | None = None) -> Dataset:
    """Reads a data set.

    Args:
        name: a folder, a CSV file, or the name of a layout ("market1501", "csv", "folder").
        root: where a named layout lies; any wrapper folder around it is looked through.

    Three layouts are recognised, in this order:

    * **market1501**: `bounding_box_train`, `query` and `bounding_box_test`; identity and camera
      from names such as `0002_c1s1_000451_03.jpg`. Identity -1 is left out, 0 is a distractor.
    * **csv**: a file (or a folder with `metadata.csv`) with the column `path`, relative to the
      file, and optionally identity, camera, split (train, query, gallery or test), date, sequence,
      and a crop box x, y, w, h in pixels. Further columns are left alone.
    * **folder**: any tree of images. Folders named train, query, gallery or test at its top are
      splits; within, images that lie in folders take the nearest folder's name as identity.

    Images of the split `test` are query and gallery at once: each searches all others.

    Raises:
        DataError: nothing there, no image, an unknown column or split.
    """
    if root is None and (str(name) not in READERS or Path(name).exists()):
        return _recognise(Path(name).expanduser())
    if str(name) not in READERS:
        raise DataError(f"no layout is called '{name}': {did_you_mean(str(name), READERS)}")
    if root is None:
        raise DataError(f"layout '{name}' needs to know where it lies: give root=FOLDER")
    return READERS[str(name)](existing(Path(root).expanduser()))


def _recognise(path: Path) -> Dataset:
    path = existing(path)
    if path.is_file():
        if path.suffix.lower() == ".csv":
            return read_csv(path)
        raise DataError(f"{path} is a file; expected a folder of images or a .csv table")
    if _market_root(path) is not None:
        return read_market(path)
    if (path / TABLE).is_file():
        return read_csv(path)
    return read_folder(path)


def read_market(root: Path) -> Dataset:
    """Market-1501's three folders, in `root` or in a folder within it."""
    found = _market_root(root)
    if found is None:
        raise DataError(
            f"no folder below {root} holds {', '.join(MARKET_FOLDERS.values())}. Give the folder "
            "that holds them, or use the layout 'folder'"
        )
    parts = Parts()
    for split, folder in MARKET_FOLDERS.items():
        for path in images_below(found / folder, parts.problems):
            match = MARKET_NAME.match(path.name)
            if match is None:
                parts.problems.append(Problem(path, "name is not <identity>_c<camera>..."))
            elif match[1] != "-1":  # -1 marks the detector's junk, which every protocol leaves out
                parts.add(split, Record(path, identity=match[1], camera=match[2]))
    return parts.dataset(found.name, found, "market1501")


def read_folder(root: Path) -> Dataset:
    """Any tree of images; see `load_dataset` for what its folders mean."""
    if not root.is_dir():
        raise DataError(f"{root} is a file; expected a folder of images")
    tops = {p.name.lower(): p for p in root.iterdir() if p.is_dir() and p.name.lower() in SPLITS}
    parts = Parts()
    for split, top in sorted(tops.items()) or [("train", root)]:
        for path in images_below(top, parts.problems):
            identity = path.parent.name if path.parent != top else None
            parts.add(split, Record(path, identity=identity))
    if parts.train and any(r.identity is not None for r in parts.train):
        parts.notes.append("identities are the names of the folders that images lie in")
    return parts.dataset(root.name, root, "folder")


READERS: dict[str, Callable[[Path], Dataset]] = {
    "market1501": read_market,
    "csv": read_csv,
    "folder": read_folder,
}


def _market_root(root: Path) -> Path | None:
    """The folder with Market's three folders: this one, or one at most two levels below it."""
    for depth in ("", "*", "*/*"):
        for folder in sorted(root.glob(depth)) if depth else [root]:
            if "__MACOSX" in folder.parts:
                continue
            if all((folder / name).is_dir() for name in MARKET_FOLDERS.values()):
                return folder
    return None
