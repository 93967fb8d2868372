"""`gracl gallery`: build one, add to it, enrol individuals, search, remove, forget."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gracl.commands.gallery_options import (
    Facts,
    Filters,
    ModelOptions,
    Pictures,
    Place,
    as_plain,
    open_for,
    require_images,
    where_of,
)
from gracl.commands.gallery_search import Search, search
from gracl.commands.options import Flat, Group
from gracl.disk import whole_folder
from gracl.errors import ConfigError
from gracl.paths import is_folder, is_there
from gracl.terminal import Bars, console, print_left_out, print_notes

if TYPE_CHECKING:
    from gracl.gallery.gallery import Gallery as OpenGallery
    from gracl.gallery.results import Added


@dataclass(frozen=True)
class Build:
    """Make a gallery of a run's model and add images; if it is there, just add."""

    gallery: Place
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder, or a model.safetensors; the gallery keeps a copy of the model."""
    images: Pictures
    thumbnails: bool = False
    """Also keep a small picture of each image; without it the gallery holds no image."""
    unnamed: bool = False
    """Take no identities from the data: its folders are no individuals."""
    facts: Annotated[Facts, Flat] = field(default_factory=Facts)
    how: Annotated[ModelOptions, Flat] = field(default_factory=ModelOptions)


@dataclass(frozen=True)
class Add:
    """Add images; files that are there already are passed over."""

    gallery: Place
    images: Pictures
    unnamed: bool = False
    """Take no identities from the data: its folders are no individuals."""
    facts: Annotated[Facts, Flat] = field(default_factory=Facts)
    how: Annotated[ModelOptions, Flat] = field(default_factory=ModelOptions)


@dataclass(frozen=True)
class Enrol:
    """Add images of one individual, by name; those that are there are named."""

    gallery: Place
    identity: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Whose images they are."""
    images: Pictures
    facts: Annotated[Facts, Flat] = field(default_factory=Facts)
    how: Annotated[ModelOptions, Flat] = field(default_factory=ModelOptions)


@dataclass(frozen=True)
class List:
    """Say what a gallery holds."""

    gallery: Place
    images: bool = False
    """A line an image, not a line an individual."""
    save_thumbnails: Path | None = None
    """Write the thumbnails of the images meant into this new folder, as <number>.jpg."""
    json: bool = False
    """Print JSON."""
    filters: Annotated[Filters, Flat] = field(default_factory=Filters)


@dataclass(frozen=True)
class Name:
    """Say whose images are, by their numbers."""

    gallery: Place
    identity: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Whose they are."""
    ids: Annotated[tyro.conf.Positional[tuple[int, ...]], tyro.conf.arg(metavar="NUMBER...")]
    """As 'gracl gallery list --images' shows them."""


@dataclass(frozen=True)
class Remove:
    """Take images out of a gallery; the image files are not touched."""

    gallery: Place
    ids: tuple[int, ...] = ()
    """Those of these numbers."""
    filters: Annotated[Filters, Flat] = field(default_factory=Filters)


@dataclass(frozen=True)
class Forget:
    """Remove an individual for good: features, thumbnails, all that was known; looked for on disk."""

    gallery: Place
    identity: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Who is forgotten."""


def build(command: Build) -> None:
    """Make a gallery, or go on with one."""
    from gracl.errors import NoGallery
    from gracl.gallery.gallery import Gallery as Galleries
    from gracl.training import use_threads

    use_threads(command.how.threads)
    if is_folder(Path(command.gallery)):
        raise ConfigError(
            f"{command.gallery} is a folder, and a gallery is one file. The order is: gracl gallery "
            "build NEW.gallery RUN IMAGES"
        )
    require_images(command.images)
    if command.how.model is not None:
        raise ConfigError("--model belongs to a gallery that is there; RUN names the model here")
    device = command.how.device
    try:
        opened = Galleries.open(command.gallery, command.run, device=device)
    except NoGallery:
        opened = Galleries.create(
            command.gallery, command.run, thumbnails=command.thumbnails, device=device
        )
    with opened:
        if command.thumbnails and not opened.about.thumbnails:
            raise ConfigError(f"{command.gallery} was made without thumbnails; leave --thumbnails out")
        _add(opened, command, unnamed=command.unnamed)


def add(command: Add) -> None:
    """Add images."""
    require_images(command.images)
    with open_for(command.gallery, command.how) as opened:
        _add(opened, command, unnamed=command.unnamed)


def enrol(command: Enrol) -> None:
    """Add images of one individual."""
    require_images(command.images)
    with open_for(command.gallery, command.how) as opened:
        _add(opened, command, identity=command.identity)


def list_entries(command: List) -> None:
    """Print individuals, or images."""
    with open_for(command.gallery) as opened:
        entries = opened.entries(where_of(command.filters, opened))
        if command.save_thumbnails is not None:
            _save_thumbnails(opened, [entry.id for entry in entries], command.save_thumbnails)
        if command.json:
            about = asdict(opened.about)
            print(json.dumps({**about, "entries": [as_plain(asdict(entry)) for entry in entries]}))
            return
        held = f"{len(entries)} images, {opened.size_on_disk() / 1e6:.1f} MB on disk"
        console.print(f"{command.gallery}: {held}; of {opened.about.backbone}", soft_wrap=True)
    if command.images:
        for entry in entries:
            known = (entry.identity or "-", entry.camera, entry.site, entry.time, entry.path)
            console.print(entry.id, *(fact for fact in known if fact), soft_wrap=True, markup=False)
        return
    counts: dict[str, int] = {}
    for entry in entries:
        name = entry.identity or "(no name)"
        counts[name] = counts.get(name, 0) + 1
    for name, count in sorted(counts.items()):
        console.print(f"{count:>6}  {name}", soft_wrap=True, markup=False)


def name(command: Name) -> None:
    """Name images."""
    with open_for(command.gallery) as opened:
        opened.name(command.ids, command.identity)
    console.print(f"{len(command.ids)} images are of {command.identity}", markup=False)


def remove(command: Remove) -> None:
    """Take images out."""
    with open_for(command.gallery) as opened:
        gone = opened.remove(where_of(command.filters, opened, ids=command.ids))
    console.print(f"{len(gone)} images removed from {command.gallery}; their files are untouched")


def forget(command: Forget) -> None:
    """Remove somebody for good."""
    from gracl.gallery.postgres import is_url

    with open_for(command.gallery) as opened:
        gone = opened.forget(command.identity)
    if not gone:
        console.print(
            f"nobody is called '{command.identity}' here; a forgetting that had been stopped was "
            "ended: what was deleted then was cleared",
            soft_wrap=True,
            markup=False,
        )
        return
    console.print(f"{len(gone)} images of {command.identity} are forgotten", markup=False)
    if is_url(command.gallery):
        console.print(
            "the server's log of writes and its backups may hold them for a while", soft_wrap=True
        )
    else:
        console.print(
            f"{command.gallery} was rewritten, and nothing of them was found in it", soft_wrap=True
        )


def _add(opened: OpenGallery, command: Build | Add | Enrol, **how: Any) -> Added:
    from gracl.data.records import Dataset
    from gracl.embedding import open_images

    images = [open_images(path) for path in command.images]
    for dataset in images:
        if isinstance(dataset, Dataset):
            print_notes(dataset)  # whose names these are, before they are taken over
    with Bars() as bars:
        done = opened.add(
            images,
            **asdict(command.facts),
            **how,
            batch_size=command.how.batch_size,
            on_bad=command.how.on_bad,
            progress=lambda seen: bars("add", seen, seen),
        )
    print_left_out(done.left_out)
    told = [f"{len(done)} images added"]
    if done.already:
        told.append(f"{done.already} were there already")
    if done.completed:
        told.append(f"of {done.completed} of these more is known now")
    if done.kept:
        told.append(f"{done.kept} of these keep what was said of them before")
    console.print(f"{', '.join(told)}; {len(opened)} in all: {command.gallery}", soft_wrap=True)
    are_nameless = bool(done.entries) and all(entry.identity is None for entry in done.entries)
    if are_nameless and not how.get("unnamed"):
        console.print(
            "none of them has a name, so no search is answered by one. A table names images in a "
            "column 'identity', a folder by folders within it",
            soft_wrap=True,
        )
    return done


def _save_thumbnails(opened: OpenGallery, ids: Sequence[int], folder: Path) -> None:
    if not opened.about.thumbnails:
        raise ConfigError(
            "this gallery keeps no thumbnails; it would have to be built with --thumbnails"
        )
    if is_there(folder):
        raise ConfigError(f"--save-thumbnails is {folder}, which exists; expected a new folder")
    with whole_folder(folder, ConfigError, "another --save-thumbnails") as unfinished:
        for id in ids:
            picture = opened.thumbnail(id)
            if picture is not None:
                picture.save(unfinished / f"{id}.jpg", quality="keep")


GALLERY = Group(
    "Images to search: build, add, enrol, list, search, name, remove, forget.",
    {
        "build": Build,
        "add": Add,
        "enrol": Enrol,
        "list": List,
        "search": Search,
        "name": Name,
        "remove": Remove,
        "forget": Forget,
    },
)
ACTIONS: dict[type, Callable[[Any], bool | None]] = {
    Build: build,
    Add: add,
    Enrol: enrol,
    List: list_entries,
    Search: search,
    Name: name,
    Remove: remove,
    Forget: forget,
}
