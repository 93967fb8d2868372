"""What all readers share: a data set in parts, image files in a folder, a path that must be there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gracl.data.records import Dataset, Problem, Record, Records
from gracl.errors import DataError, did_you_mean

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"}
SPLITS = ("train", "query", "gallery", "test")


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

    def dataset(self, name: str, root: Path, layout: str) -> Dataset:
        """All that was found, or a `DataError` if that is nothing."""
        if not (self.train or self.query or self.gallery):
            first = f" First problem: {self.problems[0].reason}." if self.problems else ""
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
        )


def existing(path: Path) -> Path:
    """The path, or a `DataError` with the nearest name that is there."""
    if not path.exists():
        here = path.parent
        siblings = [p.name for p in here.iterdir()] if here.is_dir() else []
        near = did_you_mean(path.name, siblings).split("?")[0] + "?" if siblings else ""
        near = near if near.startswith("did you mean") else ""
        raise DataError(f"{path} does not exist. {near}".rstrip())
    return path


def images_below(folder: Path, problems: list[Problem]) -> Iterable[Path]:
    """All image files below, sorted; debris of operating systems is passed over."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        hidden = "__MACOSX" in inner or any(part.startswith(".") for part in inner)
        if hidden or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if path.is_file():
            yield path
        elif not path.is_dir():
            problems.append(Problem(path, "a link that leads nowhere"))
