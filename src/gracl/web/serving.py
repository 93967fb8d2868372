"""An application behind its guard, listening on this machine until it is stopped."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates

from gracl.errors import ConfigError
from gracl.web.guard import Guard

HERE = Path(__file__).parent
MAX_BODY = 16 * 1024 * 1024
"""Bytes of a request's body at most."""
ADDRESS = "127.0.0.1"
MOST_CONNECTIONS = 512
"""At a time; more are answered 503, so that idle ones cannot take the memory."""

templates = Jinja2Templates(HERE / "templates")


def new_token() -> str:
    """A secret of 256 bits that needs no quoting in an address."""
    return secrets.token_urlsafe(32)


def new_application(title: str, **how: object) -> FastAPI:
    """An empty application with the pages' own styles and scripts below `/static`.

    FastAPI's own pages of documentation are left out: they load scripts from elsewhere.
    """
    settings: dict[str, Any] = {"docs_url": None, "redoc_url": None, **how}
    app = FastAPI(title=title, **settings)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    return app


def guarded(app: FastAPI, token: str, *, max_body: int = MAX_BODY) -> Guard:
    """An application that answers this machine with the token alone."""
    return Guard(app, token=token, max_body=max_body)


def listen(port: int) -> socket.socket:
    """A socket on this machine alone.

    Args:
        port: which; 0 takes a free one.

    Raises:
        ConfigError: it cannot be had.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port is {port}; expected 1 to 65535, or 0 for a free one")
    try:
        place = socket.create_server((ADDRESS, port), backlog=MOST_CONNECTIONS)
    except OSError as error:
        raise ConfigError(
            f"port {port} of {ADDRESS} cannot be listened on: {error.strerror or error}. Give another "
            "--port, or 0 for a free one"
        ) from error
    # Connections take it over. Else the second packet of an answer would wait 40 ms for the first.
    place.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return place


def serve(app: FastAPI, *, port: int, token: str, tell: Callable[[str], None]) -> None:
    """Serves until it is interrupted.

    Args:
        app: what to serve.
        port: see `listen`.
        token: what a request must bring.
        tell: called with the address to open, once it can be opened.
    """
    import uvicorn

    with listen(port) as place:
        tell(f"http://{ADDRESS}:{place.getsockname()[1]}/?token={token}")
        # Without an access log: its lines would hold the token.
        settings = uvicorn.Config(
            guarded(app, token),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=5,
        )
        # The server ends quietly by SIGTERM, then sends it to itself again: so what the caller has
        # left, such as a file with the token, is cleaned up by it too.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with contextlib.suppress(KeyboardInterrupt):  # the way to stop it
            uvicorn.Server(settings).run(sockets=[place])
