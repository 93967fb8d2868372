"""Any data set as a folder of plain image files and one table, which reads back as the same data set.

Boxes are cut out, pictures turned upright, and everything that a camera wrote into a file beside its
pixels, such as where it stood, is left behind.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from gracl.data.duplicates import Crop, each_crop
from gracl.data.records import Dataset, Problem, Record, Records
from gracl.data.splits import require_kept, write_split
from gracl.data.store import Progress
from gracl.data.tables import TABLE
from gracl.disk import whole_folder
from gracl.errors import DataError, did_you_mean
from gracl.paths import is_folder, is_there

Format = Literal["jpeg", "png"]
IMAGES, ABOUT = "images", "conversion.json"
"""The folder with the images, and the file that says where they came from and what was left out."""
LONGEST = 48
"""Characters of a file's old name that its new one keeps."""


@dataclass(frozen=True)
class Conversion:
    """What came of a conversion."""

    folder: Path
    images: int
    """Files written; an image that is in several splits is one file."""
    problems: tuple[Problem, ...]
    """What could not be read, and so is not there; the same list is in conversion.json."""

    def __str__(self) -> str:
        left_out = f"; {len(self.problems)} left out, listed in {ABOUT}" if self.problems else ""
        return f"{self.images} images in {self.folder}{left_out}"


def convert_dataset(
    dataset: Dataset,
    out: str | Path,
    *,
    size: tuple[int, int] | None = None,
    image_format: Format = "jpeg",
    progress: Progress | None = None,
) -> Conversion:
    """Writes every image of a data set into a new folder, with `metadata.csv` for all that is known.

    `gracl.load_dataset(out)` gives the same identities, cameras, dates, sequences and splits, in the
    same order, without boxes: each image is what its box held. An image is named by its old name and a
    digest of its old path below the data set and its box, so it has the same name in each conversion.

    The folder appears in one step when all is done. A conversion that is killed leaves a folder whose
    name ends in `.unfinished`, which can be removed.

    Args:
        dataset: any.
        out: a folder that is not there yet, or is empty.
        size: (height, width) to resize images to (bicubic), whatever their proportions; None keeps
            each image's own.
        image_format: "jpeg" at quality 95, colours at full resolution; or "png", which loses nothing.
        progress: called with (done, total) images.

    Raises:
        DataError: the folder is not empty or cannot be written, no image can be read, a fact would not
            be read back as it is, or the size or format is none.

    >>> import tempfile
    >>> from gracl.data.readers import load_dataset
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "herd/rosa").mkdir(parents=True)
    >>> Image.new("RGB", (40, 20)).save(folder / "herd/rosa/1.png")
    >>> convert_dataset(load_dataset(folder / "herd"), folder / "out", size=(8, 8)).images
    1
    >>> [record.identity for record in load_dataset(folder / "out").train]
    ['rosa']
    """
    folder, out = Path(out), Path(out).resolve()
    if image_format not in get_args(Format):
        known = did_you_mean(image_format, get_args(Format))
        raise DataError(f"no image format '{image_format}'; {known}")
    if size is not None and min(size) < 1:
        raise DataError(
            f"images of {size[0]} x {size[1]} pixels are empty; expected a height and width"
        )
    _refuse(dataset, out)
    everything = (*dataset.train, *dataset.query, *dataset.gallery)
    require_kept(everything)
    suffix = {"jpeg": ".jpg", "png": ".png"}[image_format]
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if image_format == "jpeg" else {}

    with whole_folder(out, DataError, "another folder") as unfinished:
        (unfinished / IMAGES).mkdir()

        def save(record: Record, image: Image.Image) -> Path:
            path = unfinished / IMAGES / (_name(dataset, record) + suffix)
            if size is not None:
                image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
            image.save(path, **options)
            return path

        files, unreadable = each_crop(everything, save, progress)
        problems = (*dataset.problems, *unreadable.values())
        if not files:
            raise DataError(
                f"none of {len(unreadable)} images of {dataset.name} can be read; the first, "
                f"{problems[-1].path}: {problems[-1].reason}"
            )
        write_split(_moved(dataset, files), unfinished / TABLE)
        about = {
            "name": dataset.name,
            "root": dataset.root,
            "layout": dataset.layout,
            "notes": dataset.notes,
            "size": size,
            "images": len(files),
            "problems": [asdict(problem) for problem in problems],
        }
        (unfinished / ABOUT).write_text(json.dumps(about, default=str, indent=1), encoding="utf-8")
    return Conversion(folder, len(files), problems)


def _refuse(dataset: Dataset, out: Path) -> None:
    if is_there(out) and (not is_folder(out) or any(out.iterdir())):
        what = "is not empty" if out.is_dir() else "is a file"
        raise DataError(f"{out} {what}; expected a new folder, or an empty one. Give another name")
    as_tree = dataset.layout in ("folder", "huggingface") and dataset.root.is_dir()
    if as_tree and out.resolve().is_relative_to(dataset.root.resolve()):
        raise DataError(
            f"{out} lies in {dataset.root}, whose images are all read: the next reading would find "
            "every image twice. Give a folder outside of it"
        )


def _moved(dataset: Dataset, files: dict[Crop, Path]) -> Dataset:
    """The data set as it lies in the new files; what has none is left out."""

    def moved(records: Records) -> Records:
        there = ((record, files.get((record.path, record.box))) for record in records)
        return Records(tuple(replace(r, path=path, box=None) for r, path in there if path is not None))

    return replace(
        dataset,
        train=moved(dataset.train),
        query=moved(dataset.query),
        gallery=moved(dataset.gallery),
    )


def _name(dataset: Dataset, record: Record) -> str:
    """A file name that every system takes, that no other image has, and that stays the same."""
    path = record.path.absolute()
    root = dataset.root.absolute()
    below = path.relative_to(root) if path.is_relative_to(root) else path
    key = json.dumps([below.as_posix(), record.box])
    digest = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    letters = unicodedata.normalize("NFKD", record.path.stem).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", letters).strip("_-")
    return f"{plain[:LONGEST]}-{digest}" if plain else digest
