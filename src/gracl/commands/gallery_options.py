"""What the commands of `gracl gallery` share: place, images, filters, how images are embedded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import tyro

from gracl.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from gracl.gallery.entries import Where
    from gracl.gallery.gallery import Gallery as OpenGallery


Place = Annotated[
    tyro.conf.Positional[str],
    tyro.conf.arg(
        metavar="GALLERY",
        help="A file, or postgresql://server/database#name (extra postgres).",
    ),
]


FILTERED: Final = ("identity", "camera", "site")
"""Facts that a filter gives by name, as one of those that are there."""
Pictures = Annotated[
    tyro.conf.Positional[tuple[Path, ...]],
    tyro.conf.arg(metavar="IMAGES...", help="Files of images, folders, tables, boxes as JSON."),
]


@dataclass(frozen=True)
class ModelOptions:
    """How images are embedded."""

    model: Path | None = None
    """The run, where the gallery keeps no copy of its model."""
    device: str = "auto"
    """The first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps."""
    threads: int = 0
    """CPU threads; 0 is as many as there are cores."""
    batch_size: int = 256
    """Images that the model sees at a time."""
    on_bad: Literal["refuse", "skip"] = "refuse"
    """An image that cannot be read: stop with its name, or leave it out and say so."""


@dataclass(frozen=True)
class Facts:
    """What is said of all images that are added, over what is known of each."""

    camera: str | None = None
    """The camera that took them."""
    site: str | None = None
    """Where it stood."""
    time: str | None = None
    """A day or a moment, such as 2025-04-01 or 2025-04-01T09:30."""


@dataclass(frozen=True)
class Filters:
    """Which images are meant: those that meet all that is given."""

    identity: tuple[str, ...] = ()
    """Of these individuals."""
    camera: tuple[str, ...] = ()
    """Taken by these cameras."""
    site: tuple[str, ...] = ()
    """Taken at these sites."""
    since: str | None = None
    """From this day or moment on."""
    until: str | None = None
    """Up to the end of this day, month or year."""


def open_for(place: str, how: ModelOptions | None = None) -> OpenGallery:
    """The gallery of a place, ready to embed images where it is said how."""
    from gracl.gallery.gallery import Gallery
    from gracl.training import use_threads

    how = how or ModelOptions()
    use_threads(how.threads)
    return Gallery.open(place, how.model, device=how.device)


def require_images(images: Sequence[Path]) -> None:
    """Refuses a call without images, or with paths where nothing is."""
    from gracl.data.parts import existing

    if not images:
        raise ConfigError("no images were given; type their files or folders after the gallery's name")
    for path in images:
        existing(path.expanduser())


def where_of(filters: Filters, gallery: OpenGallery, *, ids: Sequence[int] = ()) -> Where:
    """The entries of a gallery that filters mean.

    Raises:
        ConfigError: one names an individual, camera or site that no image of the gallery has.
    """
    from gracl.gallery.entries import Where

    for fact in FILTERED:
        given = getattr(filters, fact)
        known = gallery.counts(fact) if given else {}
        for name in given:
            if name not in known:
                hint = did_you_mean(name, known) if known else f"no image has a known {fact}"
                raise ConfigError(f"--{fact} {name}: no image of this gallery has it; {hint}")
    return Where(
        ids=ids or None,
        identities=filters.identity or None,
        cameras=filters.camera or None,
        sites=filters.site or None,
        since=filters.since,
        until=filters.until,
    )


def as_plain(held: dict[str, Any]) -> dict[str, Any]:
    """Paths as text, for JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(held, default=str))
    return plain
