"""`gracl gallery`: build one, add to it, enrol individuals, search, remove, forget."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from gracl.commands.options import Flat, require_own_table
from gracl.errors import ConfigError
from gracl.terminal import Bars, console, print_found, print_left_out

if TYPE_CHECKING:
    from gracl.calibration import Calibration
    from gracl.gallery.entries import Where
    from gracl.gallery.gallery import Gallery as OpenGallery
    from gracl.gallery.results import Added, Found, Threshold

HITS = ("query", "answer", "rank", "similarity", "id", "identity", "camera", "site", "time", "path")
"""Columns of the table of hits."""
Place = Annotated[
    tyro.conf.Positional[str],
    tyro.conf.arg(
        metavar="GALLERY",
        help="A file, or postgresql://server/database#name (extra postgres).",
    ),
]
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


@dataclass(frozen=True)
class Gallery:
    """Images to search: build, add, enrol, list, search, name, remove, forget."""

    what: Annotated[
        Annotated[Build, tyro.conf.subcommand("build")]
        | Annotated[Add, tyro.conf.subcommand("add")]
        | Annotated[Enrol, tyro.conf.subcommand("enrol")]
        | Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Search, tyro.conf.subcommand("search")]
        | Annotated[Name, tyro.conf.subcommand("name")]
        | Annotated[Remove, tyro.conf.subcommand("remove")]
        | Annotated[Forget, tyro.conf.subcommand("forget")],
        Flat,
    ]


def build(command: Build) -> None:
    """Make a gallery, or go on with one."""
    from gracl.errors import NoGallery
    from gracl.gallery.gallery import Gallery as Galleries
    from gracl.training import use_threads

    use_threads(command.how.threads)
    _require_images(command.images)
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
    with _opened(command) as opened:
        _add(opened, command, unnamed=command.unnamed)


def enrol(command: Enrol) -> None:
    """Add images of one individual."""
    with _opened(command) as opened:
        _add(opened, command, identity=command.identity)


def list_entries(command: List) -> None:
    """Print individuals, or images."""
    with _opened(command) as opened:
        entries = opened.entries(_where(command.filters))
        if command.save_thumbnails is not None:
            _save_thumbnails(opened, [entry.id for entry in entries], command.save_thumbnails)
        if command.json:
            about = asdict(opened.about)
            print(json.dumps({**about, "entries": [_plain(asdict(entry)) for entry in entries]}))
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
    images = _boxed(command.images, command.box)
    where = _where(command.filters)
    with ExitStack() as stack:
        opened = stack.enter_context(_opened(command))
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
            print(json.dumps(_plain(asdict(one))))
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


def name(command: Name) -> None:
    """Name images."""
    with _opened(command) as opened:
        opened.name(command.ids, command.identity)
    console.print(f"{len(command.ids)} images are of {command.identity}", markup=False)


def remove(command: Remove) -> None:
    """Take images out."""
    with _opened(command) as opened:
        gone = opened.remove(_where(command.filters, ids=command.ids))
    console.print(f"{len(gone)} images removed from {command.gallery}; their files are untouched")


def forget(command: Forget) -> None:
    """Remove somebody for good."""
    from gracl.gallery.postgres import is_url

    with _opened(command) as opened:
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


# -- the parts ------------------------------------------------------------------------------------


def _opened(command: Add | Enrol | List | Search | Name | Remove | Forget) -> OpenGallery:
    from gracl.gallery.gallery import Gallery as Galleries
    from gracl.training import use_threads

    how = getattr(command, "how", None) or ModelOptions()
    use_threads(how.threads)
    if isinstance(command, Add | Enrol | Search):
        _require_images(command.images)
    return Galleries.open(command.gallery, how.model, device=how.device)


def _require_images(images: Sequence[Path]) -> None:
    from gracl.data.parts import existing

    if not images:
        raise ConfigError("no images were given; type their files or folders after the gallery's name")
    for path in images:
        existing(path.expanduser())


def _add(opened: OpenGallery, command: Build | Add | Enrol, **how: Any) -> Added:
    with Bars() as bars:
        done = opened.add(
            command.images,
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
    return done


def _where(filters: Filters, *, ids: Sequence[int] = ()) -> Where:
    from gracl.gallery.entries import Where

    return Where(
        ids=ids or None,
        identities=filters.identity or None,
        cameras=filters.camera or None,
        sites=filters.site or None,
        since=filters.since,
        until=filters.until,
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


def _save_thumbnails(opened: OpenGallery, ids: Sequence[int], folder: Path) -> None:
    if not opened.about.thumbnails:
        raise ConfigError(
            "this gallery keeps no thumbnails; it would have to be built with --thumbnails"
        )
    if folder.exists():
        raise ConfigError(f"--save-thumbnails is {folder}, which exists; expected a new folder")
    folder.mkdir(parents=True)
    for id in ids:
        picture = opened.thumbnail(id)
        if picture is not None:
            picture.save(folder / f"{id}.jpg", quality="keep")


def _plain(held: dict[str, Any]) -> dict[str, Any]:
    """Paths as text, for JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(held, default=str))
    return plain


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
