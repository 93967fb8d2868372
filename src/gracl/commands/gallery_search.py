"""`gracl gallery search`: who is it, or unknown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gracl.commands.gallery_options import (
    Filters,
    ModelOptions,
    Pictures,
    Place,
    as_plain,
    open_for,
    require_images,
    where_of,
)
from gracl.commands.options import Flat, require_own_table
from gracl.errors import ConfigError
from gracl.terminal import Bars, console, print_found

if TYPE_CHECKING:
    from gracl.calibration import Calibration
    from gracl.gallery.results import Found, Threshold


HITS = ("query", "answer", "rank", "similarity", "id", "identity", "camera", "site", "time", "path")
"""Columns of the table of hits."""


@dataclass(frozen=True)
class Search:
    """Find the nearest images of a gallery, and say whose an image is, or that it is unknown."""

    gallery: Place
    images: Pictures
    k: int = 5
    """Hits for each image."""
    threshold: float | None = None
    """Similarity from which images are taken for one individual's."""
    calibration: Path | None = None
    """What 'gracl calibrate' wrote, in place of --threshold."""
    box: tuple[int, int, int, int] | None = None
    """x y w h: the part of the one image to look at, in pixels."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    """Write all hits as a CSV."""
    json: bool = False
    """Print JSON, a line an image."""
    filters: Annotated[Filters, Flat] = field(default_factory=Filters)
    how: Annotated[ModelOptions, Flat] = field(default_factory=ModelOptions)


def search(command: Search) -> None:
    """Search for each image."""
    from gracl.calibration import Calibration
    from gracl.errors import GalleryError
    from gracl.files import write
    from gracl.gallery.entries import whole_path

    if command.out is not None:
        require_own_table("--out", command.out, ",".join(HITS))
    if command.threshold is not None and command.calibration is not None:
        raise ConfigError("--threshold and --calibration both say what is unknown; give one of them")
    require_images(command.images)
    images = _boxed(command.images, command.box)
    with ExitStack() as stack:
        opened = stack.enter_context(open_for(command.gallery, command.how))
        where = where_of(command.filters, opened)
        calibrated, size = _threshold(command), len(opened)
        if not opened.entries(where):
            raise GalleryError(f"{command.gallery} is empty, or no image of it meets these filters")
        bars = None if command.json else stack.enter_context(Bars())
        found = opened.search_all(
            images,
            k=command.k,
            threshold=calibrated,
            where=where,
            batch_size=command.how.batch_size,
            on_bad=command.how.on_bad,
            progress=lambda done, total: bars("search", done, total or done) if bars else None,
        )
    if command.out is not None:
        write(command.out, _table(found).encode())
    if command.json:
        for one in found:
            print(json.dumps(as_plain(asdict(one))))
        return
    print_found(found)
    own = sum(any(hit.path == whole_path(one.query) for hit in one) for one in found)
    if own:
        told = f"note: {own} of {len(found)} images are in the gallery themselves, and found themselves"
        console.print(told, soft_wrap=True)
    if isinstance(calibrated, Calibration):
        _print_what_it_means(calibrated, size)
    if command.threshold is None and command.calibration is None:
        console.print(
            "no threshold was given, so the nearest is named however far it is; "
            "'gracl calibrate' finds one",
            soft_wrap=True,
        )


def _threshold(command: Search) -> Threshold | None:
    if command.calibration is None:
        return command.threshold
    from gracl.files import read_calibration

    return read_calibration(command.calibration)


def _print_what_it_means(calibration: Calibration, size: int) -> None:
    """How many strangers may be named, where that is not what the threshold was chosen for."""
    if calibration.rate_per == "search" and calibration.gallery >= size:
        return
    made = f"for searches among {calibration.gallery} images"
    if calibration.rate_per == "comparison":
        made = "for pairs of images"
    console.print(
        f"note: the calibration was made {made}; of strangers who search these {size}, up to "
        f"{calibration.most_answers(size):.0%} may be given a name. Calibrate on this gallery's "
        "images: gracl calibrate --rate-per search",
        soft_wrap=True,
    )


def _boxed(images: Sequence[Path], box: tuple[int, int, int, int] | None) -> Any:
    from gracl.data.records import Box, Record

    if box is None:
        return images
    if len(images) != 1 or images[0].is_dir():
        given = f"{images[0]} is a folder" if len(images) == 1 else f"there are {len(images)}"
        raise ConfigError(f"--box is a part of one image; {given}")
    return Record(images[0], box=Box(*box))


def _table(found: Sequence[Found]) -> str:
    """All hits as a CSV."""
    file = io.StringIO(newline="")
    rows = csv.writer(file)
    rows.writerow(HITS)
    for one in found:
        for rank, hit in enumerate(one, start=1):
            entry = hit.entry
            facts = (entry.identity, entry.camera, entry.site, entry.time, entry.path)
            head = (one.query.path, one.identity, rank, f"{hit.similarity:.4f}", entry.id)
            rows.writerow([*head, *facts])
    return file.getvalue()
