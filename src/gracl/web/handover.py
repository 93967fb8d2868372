"""How the token comes to the user's own browser and scripts, and to nobody else on this machine."""

from __future__ import annotations

import contextlib
import html
import os
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gracl.errors import ConfigError


@contextmanager
def token_file(path: Path, token: str) -> Iterator[None]:
    """Writes the token into a file that its owner alone may read, and deletes it at the end.

    Args:
        path: a file that is not there yet, or what an earlier server that was killed left.
        token: see `gracl.web.serving.new_token`.

    Raises:
        ConfigError: something else is there, or it cannot be written.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "token")
    ...     with token_file(path, "secret"):
    ...         print(path.read_text().strip(), oct(path.stat().st_mode)[-3:])
    ...     path.exists()
    secret 600
    False
    """
    content = f"{token}\n".encode()
    try:
        if _is_left_over(path):
            path.unlink()
        # Made anew and never followed: nobody else can have it open, or have laid a link there.
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(made, "wb") as file:
            file.write(content)
    except FileExistsError as error:
        raise ConfigError(
            f"--token-file {path} is there already and holds no token of gracl's, so it is not "
            "overwritten. Give another"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"--token-file {path} cannot be written: {error.strerror or error}. Give a file in a "
            "folder of yours"
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # another server's since, or gone
            if path.read_bytes() == content:
                path.unlink()


def _is_left_over(path: Path) -> bool:
    """Whether a file is what `token_file` writes: one line of 43 letters, digits, - and _."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != 44:
        return False
    word = path.read_bytes()
    return word.endswith(b"\n") and word.strip().replace(b"-", b"").replace(b"_", b"").isalnum()


@contextmanager
def opened_in_browser(address: str) -> Iterator[None]:
    """Opens an address with a token in the browser.

    It is handed over in a file that leads on, in a folder of the user's alone: what programs are
    started with can be read by everybody on the machine.
    """
    with tempfile.TemporaryDirectory(prefix="gracl-") as folder:
        page = Path(folder, "open.html")
        page.touch(0o600)
        whither = html.escape(address)
        page.write_text(
            '<!doctype html><meta charset="utf-8"><title>gracl</title>'
            f'<meta http-equiv="refresh" content="0; url={whither}"><a href="{whither}">gracl</a>',
            encoding="utf-8",
        )
        webbrowser.open(page.as_uri())
        yield
