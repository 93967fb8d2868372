"""`gracl data`: look at a data set, convert it, split it, or draw one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gracl.commands.options import Group, Images, LayoutName, load
from gracl.errors import ConfigError, DataError
from gracl.terminal import Bars, console, print_notes, print_report


@dataclass(frozen=True)
class Check:
    """Read every image of a data set and say what is there, what is wrong, what can be scored."""

    data: Images
    json: bool = False
    """Print JSON."""
    layout: LayoutName = None


@dataclass(frozen=True)
class Draw:
    """Draw people seen by several cameras, as a data set to try things on."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """An empty or new folder."""
    identities: int = 100
    """People to train on."""
    test_identities: int = 50
    """Further people to test with."""
    cameras: int = 4
    """Cameras that see each of them."""
    images_per_camera: int = 4
    """Pictures of a person by each camera."""
    seed: int = 0
    """Of everything drawn."""


@dataclass(frozen=True)
class Convert:
    """Write a data set as plain image files and one table: boxes cut out, pictures upright."""

    data: Images
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """A new folder, or an empty one."""
    size: tuple[int, int] | None = None
    """Height and width to resize images to; their own if not given."""
    image_format: Literal["jpeg", "png"] = "jpeg"
    """jpeg at quality 95, or png, which loses nothing."""
    layout: LayoutName = None


@dataclass(frozen=True)
class Split:
    """Divide the training images of a data set into training and test, as a CSV."""

    data: Images
    out: Path
    """The CSV to write; it can be given wherever a data set is asked for."""
    by: Literal["identity", "date", "burst"] = "identity"
    """What is kept whole: identities; days, later ones to the test; bursts of nearly the same image."""
    test_share: float = 0.5
    """Share of the identities, the dated images, or the images that becomes the test part."""
    seed: int = 0
    """Of everything drawn."""
    cutoff: str | None = None
    """With --by date: the first day of the test part, in place of the share."""
    per_identity: bool = False
    """With --by date: the last days of each identity."""
    near: float = 0.95
    """With --by burst: correlation from which images are nearly the same; 0: sequences alone."""
    apart: bool = False
    """With --by burst: keep each identity on one side, too."""
    queries: bool = False
    """Draw one query for each identity and camera (date, sequence); the others are the gallery."""
    query_share: float | None = None
    """Draw this share of each identity's test images as queries instead."""
    layout: LayoutName = None


def check(command: Check) -> bool:
    """Print what a data set holds; whether it can be trained on."""
    from gracl.data.check import check_dataset

    dataset = load(command)
    with Bars() as bars:
        report = check_dataset(dataset, lambda done, total: bars("read", done, total))
    if command.json:
        print(json.dumps({**asdict(report), "usable": report.usable}, default=str))
    else:
        print_report(report)
    return report.usable


def convert(command: Convert) -> None:
    """Write a data set as plain files."""
    from gracl.data.convert import convert_dataset

    dataset = load(command)
    with Bars() as bars:
        done = convert_dataset(
            dataset,
            command.out,
            size=command.size,
            image_format=command.image_format,
            progress=lambda done, total: bars("convert", done, total),
        )
    console.print(str(done), soft_wrap=True)


def split(command: Split) -> None:
    """Divide a data set, and write that down."""
    from gracl.data import splits

    if command.by != "date" and (command.cutoff is not None or command.per_identity):
        raise ConfigError("--cutoff and --per-identity belong to --by date")
    if command.by != "burst" and command.apart:
        raise ConfigError("--apart belongs to --by burst; --by identity keeps identities apart anyway")
    dataset = load(command)
    share, seed = command.test_share, command.seed
    if command.by == "identity":
        divided = splits.split_by_identity(dataset, test_share=share, seed=seed)
    elif command.by == "date":
        divided = splits.split_by_date(
            dataset, cutoff=command.cutoff, test_share=share, per_identity=command.per_identity
        )
    else:
        with Bars() as bars:
            divided = splits.split_by_burst(
                dataset,
                test_share=share,
                seed=seed,
                near=command.near or None,
                by_identity=command.apart,
                progress=lambda done, total: bars("read", done, total),
            )
    if command.queries or command.query_share is not None:
        divided = splits.draw_queries(divided, share=command.query_share, seed=seed)
    splits.write_split(divided, command.out)
    sizes = f"{len(divided.train)} train, {len(divided.query)} query, {len(divided.gallery)} gallery"
    console.print(f"{command.out}: {sizes}", soft_wrap=True)
    print_notes(divided)


def draw(command: Draw) -> None:
    """Draw a data set."""
    from gracl.data.synthetic import draw_people

    try:
        folder = draw_people(**asdict(command))
    except DataError:
        raise
    except ValueError as error:
        raise DataError(str(error)) from error
    console.print(f"drawn into {folder}", soft_wrap=True)


DATA = Group(
    "Look at a data set, convert it, split it, or draw one.",
    {
        "check": Check,
        "convert": Convert,
        "split": Split,
        "draw": Draw,
    },
)
ACTIONS: dict[type, Callable[[Any], bool | None]] = {
    Check: check,
    Convert: convert,
    Split: split,
    Draw: draw,
}
