"""What all readers share: a data set in parts, image files in a folder, a path that must be there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gracl.data.records import Dataset, Problem, Record, Records
from gracl.errors import DataError, did_you_mean
from gracl.paths import is_folder, is_there

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"}
UNREAD_SUFFIXES = {
    *(".heic", ".heif", ".avif", ".jxl", ".jp2"),  # what phones and archives write
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),  # raw
    *(".mp4", ".mov", ".avi", ".mkv"),
}
"""Of pictures and films that somebody may well have meant, and that are not read."""
ENDINGS = 5
"""Of other files, that a note names at most."""
SPLITS = ("train", "query", "gallery", "test")
DEBRIS = {"__macosx", "@eadir", "$recycle.bin"}
"""Folders that systems leave among images; so are all names that begin with a dot."""


@dataclass
class Parts:
    """A data set while it is being read: what is found goes in, a `Dataset` comes out."""

    train: list[Record] = field(default_factory=list)
    query: list[Record] = field(default_factory=list)
    gallery: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, split: str, record: Record) -> None:
        """Puts a record into train, query or gallery; "test" is query and gallery at once."""
        if split == "train":
            self.train.append(record)
        if split in ("query", "test"):
            self.query.append(record)
        if split in ("gallery", "test"):
            self.gallery.append(record)

    def dataset(self, name: str, root: Path, layout: str, *, protocol: str | None = None) -> Dataset:
        """All that was found, or a `DataError` if that is nothing."""
        if not (self.train or self.query or self.gallery):
            first = f" First problem: {self.problems[0].reason}." if self.problems else ""
            first += "".join(f" Note: {note}." for note in self.notes)
            raise DataError(
                f"{root} (read as {layout}) holds no image; {len(self.problems)} "
                f"files or rows could not be used.{first} Images end in "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}; see `gracl data check`"
            )
        return Dataset(
            name=name or root.resolve().name or layout,  # "." has no name
            root=root,
            layout=layout,
            train=Records(tuple(self.train)),
            query=Records(tuple(self.query)),
            gallery=Records(tuple(self.gallery)),
            problems=tuple(self.problems),
            notes=tuple(self.notes),
            protocol=protocol,
        )


def existing(path: Path) -> Path:
    """The path, or a `DataError` with the nearest name that is there."""
    if not is_there(path):
        here = path.parent
        siblings = [p.name for p in here.iterdir()] if is_folder(here) else []
        near = did_you_mean(path.name, siblings).split("?")[0] + "?" if siblings else ""
        near = near if near.startswith("did you mean") else ""
        raise DataError(f"{path} does not exist. {near}".rstrip())
    return path


class Listing(NamedTuple):
    """Names in one folder, sorted; debris is not among them."""

    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    """Links to folders."""
    lost: tuple[str, ...] = ()
    """Names of images that are links to nothing."""
    error: str | None = None
    """Why the folder cannot be opened."""


class Images(NamedTuple):
    """All images below a folder, sorted."""

    found: list[tuple[str, Path]]
    """Path below that folder, with "/" on every system, and the path itself."""
    problems: list[Problem]
    others: Counter[str]
    """How many files are no images by their names, by the ending of these."""


class Tree:
    """Folders on disk, each of them read once, whoever asks and how often.

    A folder is one `os.scandir`, which tells files from folders without a look at each: 100,000
    images take 100,000 names, not 100,000 calls of the system.
    """

    def __init__(self) -> None:
        self._listings: dict[Path, Listing] = {}
        self._names: dict[Path, dict[str, str]] = {}
        self._images: dict[Path, Images] = {}

    def listing(self, folder: Path) -> Listing:
        """What lies in a folder; empty, with an `error`, if it cannot be opened."""
        if folder not in self._listings:
            self._listings[folder] = _scan(folder)
        return self._listings[folder]

    def folders(self, folder: Path) -> list[Path]:
        """The folders in it, links to folders included."""
        listing = self.listing(folder)
        return sorted(folder / name for name in (*listing.folders, *listing.links))

    def find(self, folder: Path, inner: str) -> Path | None:
        """A file or a folder, by its path below `folder` in whichever case, or None.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as top:
        ...     (Path(top) / "Mask_Train_V2").mkdir()
        ...     print(Tree().find(Path(top), "mask_train_v2").name)
        Mask_Train_V2
        """
        for wanted in inner.split("/"):
            if folder not in self._names:
                self._names[folder] = _in_any_case(self.listing(folder))
            name = self._names[folder].get(wanted) or self._names[folder].get(wanted.lower())
            if name is None:
                return None
            folder = folder / name
        return folder

    def images(self, folder: Path) -> Images:
        """All images below a folder. A folder that links lead to as well is read once."""
        if folder not in self._images:
            self._images[folder] = self._walk(folder)
        return self._images[folder]

    def _walk(self, top: Path) -> Images:
        found: list[tuple[str, Path]] = []
        problems = []
        others: Counter[str] = Counter()
        seen = set()
        folders = [("", top, os.path.realpath(top))]
        links: list[tuple[str, Path, str]] = []
        while folders or links:  # links last, so that a folder's own place goes before any link's
            inner, here, real = (folders or links).pop()
            if real in seen:
                continue
            seen.add(real)
            listing = self.listing(here)
            if listing.error is not None:
                problems.append(Problem(here, f"a folder that cannot be opened: {listing.error}"))
            problems += [Problem(here / name, "a link that leads nowhere") for name in listing.lost]
            for name in listing.files:
                if is_image(name):
                    found.append((inner + name, here / name))
                else:
                    others[Path(name).suffix.lower()] += 1
            folders += [(f"{inner}{n}/", here / n, real + os.sep + n) for n in listing.folders]
            links += [(f"{inner}{n}/", here / n, os.path.realpath(here / n)) for n in listing.links]
        # As paths are sorted: folder by folder, so that "a/1" goes before "a b/1"
        found.sort(key=lambda image: image[0].replace("/", "\0"))
        return Images(found, sorted(problems, key=lambda problem: problem.path), others)


def images_below(folder: Path, problems: list[Problem], tree: Tree | None = None) -> list[Path]:
    """All image files below, sorted; debris of operating systems is passed over."""
    images = (tree or Tree()).images(folder)
    problems.extend(images.problems)
    return [path for _, path in images.found]


def told_of(others: Counter[str]) -> list[str]:
    """Notes on files below a folder that were passed over; pictures among them have one of their own.

    >>> told_of(Counter({".heic": 12, ".txt": 1, "": 1}))  # doctest: +NORMALIZE_WHITESPACE
    ['not read; save them, or frames of films, as .jpg or .png: 12 .heic',
     'passed over, not images: 1 .txt, 1 without ending']
    """

    def listed(endings: Iterable[str]) -> str:
        return ", ".join(f"{others[ending]} {ending or 'without ending'}" for ending in endings)

    by_number = [ending for ending, _ in others.most_common()]
    pictures = [ending for ending in by_number if ending in UNREAD_SUFFIXES]
    rest = [ending for ending in by_number if ending not in UNREAD_SUFFIXES]
    notes = []
    if pictures:
        notes.append(f"not read; save them, or frames of films, as .jpg or .png: {listed(pictures)}")
    if rest:
        more = f" and files of {len(rest) - ENDINGS} more endings" if len(rest) > ENDINGS else ""
        notes.append(f"passed over, not images: {listed(rest[:ENDINGS])}{more}")
    return notes


def is_image(name: str) -> bool:
    """Whether a file is an image, by the ending of its name.

    >>> is_image("a.JPG"), is_image("a.jpg.txt"), is_image("jpg")
    (True, False, False)
    """
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES


def _scan(folder: Path) -> Listing:
    files: list[str] = []
    folders: list[str] = []
    links: list[str] = []
    lost: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in DEBRIS:
                    continue
                if _leads_to(entry.is_dir):
                    (links if _is_link(entry) else folders).append(entry.name)
                elif not is_image(entry.name) or _leads_to(entry.is_file):
                    files.append(entry.name)
                else:
                    lost.append(entry.name)
    except OSError as error:
        return Listing(error=error.strerror or str(error))
    for names in (files, folders, links, lost):
        names.sort()
    return Listing(tuple(files), tuple(folders), tuple(links), tuple(lost))


def _leads_to(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False


def _is_link(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() or bool(getattr(entry, "is_junction", bool)())  # Windows, Python 3.12


def _in_any_case(listing: Listing) -> dict[str, str]:
    names = (*listing.files, *listing.links, *listing.folders)
    return {name.lower(): name for name in names} | {name: name for name in names}
