"""`gracl serve`: a search page on a gallery, on this machine, and the same as a JSON API."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from gracl.commands.gallery_options import Place
from gracl.errors import ConfigError
from gracl.terminal import console

NEEDED = ("fastapi", "jinja2", "python_multipart", "uvicorn")


@dataclass(frozen=True)
class Serve:
    """Search a gallery in the browser, or from programs by its JSON API; on this machine alone."""

    gallery: Place
    calibration: Path | None = None
    """What 'gracl calibrate' wrote: the similarity below which a picture is of somebody unknown."""
    model: Path | None = None
    """The run, where the gallery keeps no copy of its model."""
    port: int = 8765
    """Of 127.0.0.1; 0 takes a free one."""
    token_file: Path | None = None
    """Where to write the token for scripts, readable by you alone; deleted at the end."""
    open: bool = False
    """Open the page in the browser."""
    device: str = "auto"
    """The first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps."""
    threads: int = 0
    """CPU threads; 0 is as many as there are cores."""


def serve(command: Serve) -> None:
    """Serve a gallery until it is stopped."""
    _require_extra()
    from contextlib import ExitStack

    from gracl.files import read_calibration
    from gracl.training import use_threads
    from gracl.web import handover, serving
    from gracl.web.search_app import search_application
    from gracl.web.search_desk import Desk

    use_threads(command.threads)
    token = serving.new_token()
    calibration = None if command.calibration is None else read_calibration(command.calibration)
    with ExitStack() as stack:
        if command.token_file is not None:
            stack.enter_context(handover.token_file(command.token_file, token))
        desk = stack.enter_context(
            Desk(command.gallery, command.model, calibration=calibration, device=command.device)
        )

        def tell(address: str) -> None:
            console.print(f"{desk.name} can be searched at\n\n  {address}\n", soft_wrap=True)
            console.print(
                "on this machine alone, with that address; Ctrl-C ends it. Its API is described at "
                "/docs of the same address.",
                soft_wrap=True,
            )
            if calibration is None:
                console.print(
                    "no --calibration was given, so the nearest is named however far it is; 'gracl "
                    "calibrate' makes one",
                    soft_wrap=True,
                )
            if command.open:
                stack.enter_context(handover.opened_in_browser(address))

        serving.serve(search_application(desk), port=command.port, token=token, tell=tell)


def _require_extra() -> None:
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"pages need {error.name or name}, which is not installed. Type: pip install "
                "'gracl[serve]'"
            ) from error
