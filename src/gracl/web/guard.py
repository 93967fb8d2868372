"""Who may talk to a page of gracl: this machine's browser that holds the token, and nobody else.

A page on localhost can be reached by every program of the machine, and by every site that the browser
visits. So each request must name this machine as its host (else a stranger's domain that resolves to
127.0.0.1 could read it: DNS rebinding), come from no other origin, and bring the token that was printed
when the server began.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names of this machine for itself."""
COOKIE = "gracl-token"
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Sent with every answer: the page loads nothing from elsewhere, and no other page may hold it."""


class Guard:
    """ASGI middleware that lets in what comes from this machine with the token, of bounded size."""

    def __init__(self, app: ASGIApp, *, token: str, max_body: int) -> None:
        """Wraps an application.

        Args:
            app: the application.
            token: the secret; text that needs no quoting in an address.
            max_body: bytes of a request's body at most.
        """
        self.app, self.token, self.max_body = app, token, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no page of gracl opens a socket
            return
        headers = Headers(scope=scope)
        send = _with_headers(send)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        bounded = _Bounded(receive, self.max_body)
        try:
            await self.app(scope, bounded, _noting(send, bounded))
        except _TooLargeError:
            if not bounded.answered:
                await self._too_large()(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        """The answer to a request that is not let in."""
        host = _hostname(f"//{headers.get('host', '')}")
        if host not in HOSTS:
            return _error(
                421, "this server answers to 127.0.0.1 and localhost only. Use the printed address"
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers["host"]:
            return _error(403, "the request comes from another site")
        if (
            headers.get("sec-fetch-site") == "cross-site"
            and headers.get("sec-fetch-mode") != "navigate"
        ):
            return _error(403, "the request comes from another site")
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if scope["method"] == "GET" and self._is_token(query.pop("token", "")):
            # The address must not stay in the history with the secret in it.
            rest = f"?{urlencode(query)}" if query else ""
            answer = RedirectResponse(f"{scope['path']}{rest}", status_code=303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict", path="/")
            return answer
        if not self._is_token(_cookie(headers)) and not self._is_token(_bearer(headers)):
            return _error(
                401,
                "the token is missing or wrong. Open the address that was printed when the server "
                "began, or send 'Authorization: Bearer TOKEN'",
            )
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            return _error(400, "Content-Length is not a number")
        return self._too_large() if int(length) > self.max_body else None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def _too_large(self) -> ASGIApp:
        return _error(413, f"the request is larger than {self.max_body:,} bytes")


class _TooLargeError(Exception):
    pass


class _Bounded:
    """Reads a body and stops where it grows too large, whatever its head said."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.receive, self.left, self.answered = receive, limit, False

    async def __call__(self) -> Message:
        message = await self.receive()
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise _TooLargeError
        return message


def _noting(send: Send, bounded: _Bounded) -> Send:
    async def noted(message: Message) -> None:
        bounded.answered = True
        await send(message)

    return noted


def _with_headers(send: Send) -> Send:
    async def added(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return added


def _error(status: int, words: str) -> ASGIApp:
    return JSONResponse({"error": words}, status_code=status)


def _hostname(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _bearer(headers: Headers) -> str:
    kind, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else ""
