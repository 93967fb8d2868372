"""`gracl review`: a page in the browser to go through the clusters of a run, and say what is wrong."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from gracl.errors import ConfigError
from gracl.terminal import Bars, console

if TYPE_CHECKING:
    from gracl.review.review import Review as Reviewed
    from gracl.study import Study

PORT = 8766


@dataclass(frozen=True)
class Review:
    """Go through a run's clusters in the browser: merge, split, name, confirm, undo.

    Every decision is kept in RUN/review.sqlite at once; with --export or --import nothing is served.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder of a finished run."""
    data: Path | None = None
    """Where its images lie now, if no longer where they were."""
    by: str | None = None
    """Who decides, kept with each decision; the name of the computer's user if not given."""
    port: int = PORT
    """Where the page is served, on this machine alone; 0 takes a free one."""
    open: bool = False
    """Open the page in the browser."""
    export: Path | None = None
    """Write who is who to this file, and end: .csv, or .json as COCO."""
    form: Literal["auto", "table", "animalclef", "coco"] = "auto"
    """Of the file of --export; auto is by its ending."""
    confirmed: bool = False
    """With --export: only images that a person spoke of."""
    import_: Annotated[Path | None, tyro.conf.arg(name="import")] = None
    """Take over who is who from such a file, and end."""
    overrule: bool = False
    """With --import: also against what was decided before."""
    device: str = "auto"
    """The first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps."""
    threads: int = 0
    """CPU threads; 0 is as many as there are cores."""


def review(command: Review) -> None:
    """Review a run's clusters, or write or read who is who."""
    from gracl.review.review import Review as Reviewed
    from gracl.study import open_study
    from gracl.training import use_threads

    if command.export is not None and command.import_ is not None:
        raise ConfigError("--export and --import were both given; give one, then the other")
    if command.confirmed and command.export is None:
        raise ConfigError("--confirmed is of a table; give --export FILE with it")
    if command.export is None and command.import_ is None:
        _require_served()
    use_threads(command.threads)
    with Bars() as bars:
        study = open_study(command.run, data=command.data, device=command.device, progress=bars)
    with Reviewed.open(study, by=_user() if command.by is None else command.by) as reviewed:
        if command.export is not None:
            reviewed.export(command.export, form=command.form, only_confirmed=command.confirmed)
            _tell_exported(reviewed, command.export, only_confirmed=command.confirmed)
        elif command.import_ is not None:
            decision = reviewed.read(command.import_, overrule=command.overrule)
            console.print(f"{decision.text}; 'gracl review {command.run}' can undo it", soft_wrap=True)
        else:
            _serve(reviewed, study, command)


def _tell_exported(reviewed: Reviewed, path: Path, *, only_confirmed: bool) -> None:
    how = reviewed.progress()
    if only_confirmed:
        told = f"{how.n_confirmed_images} of {how.n_images} images, those that were confirmed: {path}"
        console.print(told, soft_wrap=True)
        return
    console.print(
        f"{how.n_images} images in {how.n_clusters} clusters, {how.n_confirmed_images} confirmed, "
        f"{how.n_outliers} in none: {path}",
        soft_wrap=True,
    )


def _serve(reviewed: Reviewed, study: Study, command: Review) -> None:
    from gracl.web.review_app import review_application
    from gracl.web.review_desk import Desk
    from gracl.web.serving import new_token, serve

    title = command.run.resolve().name
    app = review_application(Desk(reviewed, study), title=title, by=reviewed.by)
    serve(app, port=command.port, token=new_token(), tell=lambda address: _tell(address, command.open))


def _tell(address: str, is_opened: bool) -> None:
    console.print(f"open {address}", soft_wrap=True)
    console.print("Every decision is kept at once. Ctrl+C ends; the same command goes on.")
    if is_opened:
        import webbrowser

        webbrowser.open(address)


def _require_served() -> None:
    try:
        import fastapi  # noqa: F401
        import jinja2  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the page needs {error.name}, which is not installed. Type: pip install 'gracl[serve]'"
        ) from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a machine that knows no name of its user
        return "someone"
