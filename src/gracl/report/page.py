"""A run as one HTML file that opens from disk, asks for nothing outside itself and can be passed on."""

from __future__ import annotations

import base64
import hashlib
import os
from importlib import metadata
from pathlib import Path

from gracl import training
from gracl.errors import ConfigError
from gracl.files import write
from gracl.paths import is_folder, is_there
from gracl.report.album import Album
from gracl.report.contents import Contents, gather
from gracl.report.figures import number, percent
from gracl.runs import Run
from gracl.study import open_study
from gracl.training import Progress

TEMPLATES = Path(__file__).parent / "templates"
OWN = '<meta name="generator" content="gracl report'
"""What a report that gracl wrote begins with, so that nothing else is overwritten."""
HEAD = 2048
"""Characters in which that stands."""
IMAGES = 2000


def write_report(
    run: Run | str | Path,
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    images: int = IMAGES,
    pictures: bool = True,
    calibration: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Writes what a finished run learnt as one self-contained HTML file; gives its path.

    It holds pictures of the data, and says so at its top. Paths stand in it below the data's root only.
    The same run, seed and number of images give the same file on the same machine.

    Args:
        run: the run, or its folder.
        out: the file; report.html in the run's folder if not given. A report of gracl's is overwritten.
        data: where its images lie now, if no longer where they were.
        images: on the map of the features, drawn at random where there are more; most of the file's
            pictures and of the time are theirs.
        pictures: False writes a file without any picture, with paths in their place.
        calibration: a file of `gracl calibrate`, whose threshold is shown; calibration.json in the
            run's folder if there is one and none is given.
        seed: of all that is drawn at random.
        device: to compute on.
        progress: called with (stage, done, total).

    Raises:
        ConfigError: jinja2 is not installed, nothing can be written there, or another file is there.
        RunError, DataError: see `gracl.open_study`; or the calibration cannot be read.
        FingerprintError: the calibration that was given is another model's.

    >>> write_report("runs/photos", out="photos.html")                       # doctest: +SKIP
    PosixPath('photos.html')
    """
    require_jinja()
    if images < 1:
        raise ConfigError(f"images is {images}; expected 1 or more. --no-images leaves pictures out")
    run = run if isinstance(run, Run) else Run(Path(run))
    out = Path(out).expanduser() if out is not None else run.folder / "report.html"
    if out.parent != run.folder or run.folder.is_dir():  # a run that is not there is named as such
        require_writable(out)
    study = open_study(run, data=data, device=device, progress=progress)
    album = Album(study.dataset.root, empty=not pictures)
    contents = gather(
        study,
        run.model.to(training.choose_device(device)),
        album,
        images=images,
        seed=seed,
        calibration=None if calibration is None else Path(calibration).expanduser(),
        progress=progress,
    )
    album.develop(training.stage(progress, "pictures"))
    write(out, render(contents, album).encode())
    return out


def render(contents: Contents, album: Album) -> str:
    """The page. No script but its own may run in it, and nothing is fetched: its policy says so."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {}  # in the order given
    environment.filters |= {"percent": percent, "number": number}
    style, script = (
        (TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    page = environment.get_template("report.html")
    return page.render(
        page=contents,
        album=album,
        prints=album.prints,
        style=style,
        script=script,
        policy="default-src 'none'; img-src data:; "
        f"style-src {_hash(style)}; script-src {_hash(script)}",
        version=metadata.version("gracl"),
    )


def require_jinja() -> None:
    """Raises a `ConfigError` where jinja2 is missing, before work is spent."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise ConfigError("a report needs jinja2: pip install 'gracl[report]'") from error


def require_writable(path: Path) -> None:
    """Refuses a file that a report could not, or should not, be written to.

    Raises:
        ConfigError: no such folder, one that cannot be written into, or a file there that is no report
            of gracl's.
    """
    if is_folder(path) or not is_folder(path.parent):
        raise ConfigError(f"--out is {path}; expected a file in a folder that exists")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{path.parent} cannot be written into. Give another --out")
    if is_there(path):
        with path.open(encoding="utf-8", errors="replace") as file:
            own = OWN in file.read(HEAD)
        if not own:
            raise ConfigError(
                f"{path} exists and is no report that gracl wrote, so it is not overwritten. Give "
                "another --out"
            )


def _hash(text: str) -> str:
    """What a content security policy calls a text that may stand in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
