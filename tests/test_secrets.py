"""What is secret is shown to nobody: not in messages, not in what Python shows of an error."""

from __future__ import annotations

import traceback

import pytest

from gracl.errors import GraclError
from gracl.gallery.gallery import Gallery

pytest.importorskip("psycopg", reason="galleries on a server need it")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:hushhush@127.0.0.1:1/db",
        "postgresql://ada:hush hush@127.0.0.1:1/db",
        "postgresql://ada:p@hushhush@127.0.0.1:1/db",
        "postgresql://ada:p/hushhush@127.0.0.1:1/db",
        "postgresql://ada:p#hushhush@127.0.0.1:1/db",
        "postgresql://:hushhush@127.0.0.1:1/db",
        "postgresql://ada:hushhush@127.0.0.1:port/db",
        "postgresql://ada:hushhush@[::1/db",
        "postgresql://127.0.0.1:1/db?user=ada&password=hushhush",
        "postgresql://127.0.0.1:1/db?user=ada&Password=hushhush&unheard=of",
        "postgresql://127.0.0.1:1/db?sslpassword=hushhush#People",
        "postgres://ada:hushhush@127.0.0.1:1/db?connect_timeout=hush",
    ],
)
def test_no_message_holds_the_password_of_a_server(url):
    with pytest.raises(GraclError) as found:
        Gallery.open(url)
    shown = "".join(traceback.format_exception(found.value))
    assert "hushhush" not in shown
    assert "hush hush" not in shown
