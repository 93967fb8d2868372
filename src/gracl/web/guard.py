"""Who may talk to a page of gracl: this machine's browser that holds the token, and nobody else.

A page on localhost can be reached by every program of the machine, and by every site that the browser
visits. So each request must name this machine as its host (else a stranger's domain that resolves to
127.0.0.1 could read it: DNS rebinding), come from no other origin, and bring the token that was printed
when the server began. What it sends is of bounded size, and has bounded time to arrive.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import html
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlencode

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(?::(\d{1,5}))?", re.ASCII | re.IGNORECASE)
"""This machine's names for itself. The port may be another one than that which is listened on: `ssh -L`
brings the page of a far machine to a port of this one."""
COOKIE = "gracl-token"
"""A browser gives the ports of a host one jar of cookies, so each name has its port at the end."""
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Sent with every answer: the page loads nothing from elsewhere, no other page may hold it, and nothing
of it is kept by the browser."""
PATIENCE = 60.0
"""Seconds that a request's body may take to arrive."""
LINGER = 5.0
"""Seconds that the body of a refused request is read and thrown away, so that its sender comes to read
the answer. Else the connection would be reset under its hands."""
STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:32em;margin:15vh auto;padding:0 1em}"
"""Of the page that refuses; without the token there is no stylesheet."""


class Guard:
    """ASGI middleware that lets in what comes from this machine with the token, of bounded size."""

    def __init__(self, app: ASGIApp, *, token: str, max_body: int, patience: float = PATIENCE) -> None:
        """Wraps an application.

        Args:
            app: the application.
            token: the secret; text that needs no quoting in an address.
            max_body: bytes of a request's body at most.
            patience: seconds that it may take to arrive.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", token):
            raise ValueError("a token is letters, digits, - and _, and there must be one")
        self.app, self.token, self.max_body, self.patience = app, token, max_body, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no page of gracl opens a socket
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        send = _with_headers(send)
        body = _Body(receive, self.max_body, self.patience)
        # Who asks before sending has sent nothing yet, and would begin if the body were read.
        body.is_whole = "100-continue" in headers.get("expect", "")
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, body.answering(send))
            return
        body.is_whole = False
        with contextlib.suppress(_BodyError):
            await self.app(scope, body, body.answering(send))
        # Whatever the application made of a body that broke off, the answer says why it did.
        if body.refused is not None and not body.answered:
            await body.drain()
            await _error(*body.refused, headers)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        """The answer to a request that is not let in."""
        port = _port(headers)
        if port is None:
            words = "this server answers to 127.0.0.1 and localhost only. Use the printed address"
            return _error(421, words, headers)
        if _is_from_elsewhere(scope, headers):
            return _error(403, "the request comes from another site", headers)
        name = f"{COOKIE}-{port}"
        answer = self._with_cookie(scope, name)
        if answer is not None:
            return answer
        if not any(map(self._is_token, [*_cookies(headers, name), _bearer(headers)])):
            words = (
                "the token is missing or wrong. Open the address that was printed when the server "
                "began, or send 'Authorization: Bearer TOKEN'"
            )
            return _error(401, words, headers)
        length = headers.get("content-length", "0")
        if not re.fullmatch(r"\d{1,18}", length, re.ASCII):
            return _error(400, "Content-Length is not a number", headers)
        return _error(*_too_large(self.max_body), headers) if int(length) > self.max_body else None

    def _with_cookie(self, scope: Scope, name: str) -> ASGIApp | None:
        """Of an address with the token, the same without it, which the history may keep."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for key, value in query if key == "token"]
        if scope["method"] not in ("GET", "HEAD") or not any(map(self._is_token, given)):
            return None
        rest = urlencode([(key, value) for key, value in query if key != "token"])
        path = "/" + quote(scope["path"].lstrip("/\\"))  # two strokes would be another host
        answer = RedirectResponse(path + (f"?{rest}" if rest else ""), status_code=303)
        answer.set_cookie(name, self.token, httponly=True, samesite="strict", path="/")
        return answer

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())


class _BodyError(Exception):
    pass


class _Body:
    """Reads a body, and stops where it grows too large, whatever its head said, or takes too long."""

    def __init__(self, receive: Receive, limit: int, patience: float) -> None:
        self.receive, self.limit, self.left = receive, limit, limit
        self.patience, self.until = patience, anyio.current_time() + patience
        self.is_whole = self.answered = False
        self.refused: tuple[int, str] | None = None

    async def __call__(self) -> Message:
        if self.refused is not None:
            raise _BodyError
        if self.is_whole:  # what is asked for now is whether the other side has gone
            return await self.receive()
        with anyio.move_on_after(max(0.0, self.until - anyio.current_time())) as scope:
            message = await self.receive()
        if scope.cancelled_caught:
            self.refused = 408, f"the request was not there after {self.patience:g} seconds"
            raise _BodyError
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            self.refused = _too_large(self.limit)
            raise _BodyError
        self.is_whole = not message.get("more_body", False)
        return message

    def answering(self, send: Send) -> Send:
        """Passes the application's answer on, unless its request broke off before."""

        async def noted(message: Message) -> None:
            if self.refused is not None and not self.answered:
                return
            if not self.answered and message.get("status", 200) >= 400:
                await self.drain()
            self.answered = True
            await send(message)

        return noted

    async def drain(self) -> None:
        """Reads what is left and throws it away, up to four bodies, for `LINGER` seconds."""
        left = 4 * self.limit
        with anyio.move_on_after(LINGER):
            while left > 0 and not self.is_whole:
                message = await self.receive()
                left -= len(message.get("body", b""))
                self.is_whole = not message.get("more_body", False)


def _too_large(limit: int) -> tuple[int, str]:
    return 413, f"the request is larger than {limit:,} bytes"


def _with_headers(send: Send) -> Send:
    async def added(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return added


def _error(status: int, words: str, headers: Headers) -> ASGIApp:
    """JSON for programs; for a person who opened an address, a page."""
    if "text/html" not in headers.get("accept", ""):
        return JSONResponse({"error": words}, status)
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    said = f"{html.escape(words[0].upper() + words[1:], quote=False)}."
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>gracl</title>'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" '
        f'content="light dark"><style>{STYLE}</style><h1>Not let in</h1><p>{said}</p></html>',
        status,
        {"Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{digest}'"},
    )


def _port(headers: Headers) -> int | None:
    """The port that the browser knows this server by; None where it calls it by a strange name."""
    hosts = headers.getlist("host")
    found = HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    return None if found is None else int(found[2] or 80)


def _is_from_elsewhere(scope: Scope, headers: Headers) -> bool:
    """Whether another page sent this, be it of another port of this machine: ports share cookies."""
    own = f"http://{headers['host']}".lower()
    if any(origin.lower() != own for origin in headers.getlist("origin")):
        return True
    is_link = (
        scope["method"] in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest", "document") == "document"
    )
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not is_link


def _cookies(headers: Headers, name: str) -> list[str]:
    """The values of a cookie; those of other servers on this machine may look like anything."""
    pairs = (part.partition("=") for line in headers.getlist("cookie") for part in line.split(";"))
    return [value.strip() for key, _, value in pairs if key.strip() == name]


def _bearer(headers: Headers) -> str:
    kind, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else ""
