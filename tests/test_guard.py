"""Nobody but this machine's browser with the token is let in, whatever is sent."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import socket
import threading
import time
from contextlib import closing, contextmanager

import pytest
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from browser import running
from gracl.errors import ConfigError
from gracl.web import guard as guard_module
from gracl.web.guard import HEADERS, Guard
from gracl.web.serving import listen, new_application, new_token

TOKEN = "abc-DEF_123"
HOST = "127.0.0.1:8765"
OWN = {"authorization": f"Bearer {TOKEN}"}


def application():
    app = new_application("test", openapi_url=None)

    @app.get("/")
    def home(request: Request):
        return {"query": str(request.url.query)}

    @app.post("/echo")
    async def echo(request: Request):
        return {"bytes": len(await request.body())}

    @app.post("/form")
    async def form(request: Request):
        try:
            await request.form()
        except Exception:  # as FastAPI does with what goes wrong in a form
            return PlainTextResponse("the body could not be parsed", 400)
        return PlainTextResponse("parsed")

    return app


def client(app=None, *, host=HOST, max_body=1000, patience=60.0):
    wrapped = Guard(app or application(), token=TOKEN, max_body=max_body, patience=patience)
    return TestClient(wrapped, base_url=f"http://{host}", follow_redirects=False)


def get(path="/", **headers):
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return client().get(path, headers=OWN | given)


# -- the host -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8765", "localhost:1", "LOCALHOST:9", "[::1]:8765"]
)
def test_this_machines_own_names_are_answered(host):
    assert get(host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example@127.0.0.1",
        "127.0.0.1@evil.example",
        "localhost.",
        "0.0.0.0:8765",
        "127.1",
        "2130706433",
        "[::ffff:127.0.0.1]",
        "::1",
        "[::1",
        "localhost:port",
        "localhost:123456",
        "localhost:8765 ",
        "localhost/path",
        "127.0.0.1:8765, evil.example",
        "١٢٧.0.0.1",
    ],
)
def test_strange_hosts_are_refused_even_with_the_token(host):
    answer = raw([("host", host)])
    assert answer["status"] == 421


def test_a_request_must_name_one_host():
    assert raw([])["status"] == 421
    assert raw([("host", HOST), ("host", HOST)])["status"] == 421


def raw(headers, *, method="GET", path="/", query=b"", messages=None, app=None, kind="http"):
    """What the guard answers to a request that no client would send."""
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [
            (name.encode(), value.encode("utf-8"))
            for name, value in [*headers, ("authorization", OWN["authorization"])]
        ],
        "server": ("127.0.0.1", 8765),
        "root_path": "",
        "scheme": "http",
    }
    left = [*(messages or [{"type": "http.request", "body": b"", "more_body": False}])]
    sent = []

    async def receive():
        return left.pop(0) if left else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    wrapped = Guard(app or application(), token=TOKEN, max_body=1000)
    thread = threading.Thread(target=lambda: asyncio.run(wrapped(scope, receive, send)))
    thread.start()
    thread.join(20)
    return sent[0]


# -- other pages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:3000",
        "http://localhost:8765",
        "https://127.0.0.1:8765",
        "http://127.0.0.1:8765.evil.example",
        "http://127.0.0.1:8765/",
        "http://[",
        "",
    ],
)
def test_other_origins_are_refused(origin):
    assert get(origin=origin).status_code == 403


def test_its_own_origin_is_answered():
    assert get(origin=f"http://{HOST}").status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", "websocket"])
def test_pages_of_other_sites_and_ports_are_refused(site, mode):
    answer = get(sec_fetch_site=site, sec_fetch_mode=mode, sec_fetch_dest="image")
    assert answer.status_code == 403


@pytest.mark.parametrize("dest", ["iframe", "embed", "object"])
def test_no_page_may_frame_it(dest):
    how = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": dest}
    assert get(**how).status_code == 403


def test_a_link_may_lead_to_it():
    how = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert get(**how).status_code == 200
    headers = OWN | {name.replace("_", "-"): value for name, value in how.items()}
    assert client().post("/echo", headers=headers).status_code == 403


def test_a_preflight_from_elsewhere_gets_no_permission():
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    answer = client().options("/echo", headers=asked)
    assert answer.status_code == 403
    assert not any(name.startswith("access-control") for name in answer.headers)


# -- the token ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": b"Bearer \xff\xfe"},
        {"cookie": f"gracl-token={TOKEN}"},
        {"cookie": f"gracl-token-80={TOKEN}"},
        {"cookie": "gracl-token-8765="},
    ],
)
def test_without_the_token_nothing_is_answered(headers):
    for path in ("/", "/static/gracl.css", "/nowhere"):
        answer = client().get(path, headers=headers)
        assert answer.status_code == 401
        assert "Authorization: Bearer TOKEN" in answer.json()["error"]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"])
def test_no_method_passes_without_the_token(method):
    assert client().request(method, "/").status_code == 401
    assert client().request(method, "/", headers=OWN).status_code == 405


def test_the_token_comes_in_a_cookie_and_leaves_the_address():
    browser = client()
    answer = browser.get(f"/?k=1&token={TOKEN}&k=2&name=%C3%A4")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/?k=1&k=2&name=%C3%A4"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"gracl-token-8765={TOKEN};")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert browser.get("/").status_code == 200


def test_two_servers_of_one_machine_do_not_throw_each_other_out():
    cookies = "; ".join(f"gracl-token-{port}={token}" for port, token in ((8765, TOKEN), (9000, "b")))
    assert client().get("/", headers={"cookie": cookies}).status_code == 200
    other = Guard(application(), token="b", max_body=9)
    answer = TestClient(other, base_url="http://127.0.0.1:9000").get("/", headers={"cookie": cookies})
    assert answer.status_code == 200


def test_cookies_of_other_programs_do_not_hide_ours():
    strange = f'a={{"x": [1, 2]}}; b="; gracl-token-8765=old; gracl-token-8765={TOKEN}; c=é'
    assert client().get("/", headers={"cookie": strange.encode()}).status_code == 200


def test_a_wrong_token_in_the_address_sets_nothing():
    answer = client().get("/?token=wrong")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_the_token_in_an_address_leads_nowhere_else():
    answer = raw([("host", HOST)], path="//evil.example/", query=f"token={TOKEN}".encode())
    assert dict(answer["headers"])[b"location"] == b"/evil.example/"


def test_a_form_cannot_bring_the_token_in_its_address():
    assert client().post(f"/echo?token={TOKEN}").status_code == 401


@pytest.mark.parametrize("token", ["", "with space", "ä", "a;b"])
def test_a_token_that_lets_everybody_in_is_refused(token):
    with pytest.raises(ValueError, match="a token is letters"):
        Guard(FastAPI(), token=token, max_body=1)


def test_tokens_are_long_and_never_the_same():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 43


def test_a_person_is_told_in_a_page():
    answer = client().get("/", headers={"accept": "text/html,*/*"})
    assert answer.status_code == 401
    assert "Open the address that was printed" in answer.text
    assert "script" not in answer.text


# -- answers --------------------------------------------------------------------------------------


def test_every_answer_carries_the_headers():
    strange = get(host="evil.example")
    for answer in (get(), get("/nowhere"), get("/static/gracl.css"), client().get("/"), strange):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = get().headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy


def test_a_socket_is_not_opened():
    with (
        pytest.raises(WebSocketDisconnect) as closed,
        client().websocket_connect(f"/?token={TOKEN}", headers=OWN),
    ):
        pass
    assert closed.value.code == 1008


@pytest.mark.parametrize(
    "path", ["/static/../guard.py", "/static/%2e%2e/guard.py", "/static//etc/passwd"]
)
def test_only_the_pages_own_files_are_served(path):
    assert raw([("host", HOST)], path=path)["status"] == 404


# -- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["-1", "+5", "1e3", "٣", "", "9" * 5000])
def test_a_length_that_is_none_is_refused(length):
    given = [("host", HOST), ("content-length", length)]
    assert raw(given, method="POST", path="/echo")["status"] == 400


def test_a_body_of_the_limit_passes_and_one_more_does_not():
    assert client().post("/echo", content=b"x" * 1000, headers=OWN).json() == {"bytes": 1000}
    answer = client().post("/echo", content=b"x" * 1001, headers=OWN)
    assert answer.status_code == 413
    assert answer.json() == {"error": "the request is larger than 1,000 bytes"}


@pytest.mark.filterwarnings("ignore:Exception ignored in.*SpooledTemporaryFile")
@pytest.mark.parametrize("path", ["/echo", "/form"])
def test_a_streamed_body_is_stopped_whatever_the_application_makes_of_it(path):
    start = b'--x\r\ncontent-disposition: form-data; name="a"; filename="b"\r\n\r\n'
    bodies = [start, *([b"x" * 400] * 3)]
    chunks = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    given = [("host", HOST), ("content-type", "multipart/form-data; boundary=x")]
    assert raw(given, method="POST", path=path, messages=chunks)["status"] == 413
    gc.collect()  # Starlette 1.3 leaves it to Python to close what was uploaded, which warns of it here


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(guard_module, "LINGER", 0.1)
    with running_guard(patience=0.3) as port, closing(connected(port)) as line:
        line.sendall(head("POST", "/echo", port, length=100) + b"only this")
        answer = response(line)
    assert answer.status == 408
    assert "0.3 seconds" in json.loads(answer.read())["error"]


def test_a_slow_answer_is_not_taken_for_a_slow_body():
    app = application()

    @app.post("/slow")
    async def slow(request: Request):
        await request.body()
        await asyncio.sleep(0.5)
        return {"gone": await request.is_disconnected()}

    answer = client(app, patience=0.2).post("/slow", content=b"x", headers=OWN)
    assert answer.json() == {"gone": False}


def test_who_sends_too_much_comes_to_read_why():
    """Over a real connection, where an early answer would be lost in a reset."""
    with running_guard() as port, closing(connected(port)) as line:
        line.sendall(head("POST", "/echo", port, length=3000))
        for _ in range(3):
            time.sleep(0.05)
            line.sendall(b"x" * 1000)
        assert response(line).status == 413


def test_who_asks_before_sending_is_told_at_once():
    with running_guard() as port, closing(connected(port)) as line:
        start = time.monotonic()
        line.sendall(head("POST", "/echo", port, length=3000, extra="Expect: 100-continue\r\n"))
        assert response(line).status == 413
        assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "request_",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_over_a_connection(request_):
    with running_guard() as port, closing(connected(port)) as line:
        line.sendall(request_)
        assert 400 <= response(line).status < 500


@contextmanager
def running_guard(*, patience=60.0):
    """The port of a real server with the application behind the guard."""
    inner = Guard(application(), token=TOKEN, max_body=1000, patience=patience)
    with running(inner, guard=False) as address:
        yield int(address.rpartition(":")[2])


def connected(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def head(method, path, port, *, length, extra=""):
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {length}\r\n{extra}\r\n"
    ).encode()


def response(line):
    found = http.client.HTTPResponse(line)
    found.begin()
    return found


# -- the place ------------------------------------------------------------------------------------


def test_it_listens_on_this_machine_alone():
    with listen(0) as place:
        assert place.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ConfigError, match=f"--port is {port}; expected 1 to 65535"):
        listen(port)


def test_a_port_that_is_taken_is_said_so():
    with listen(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="Give another --port, or 0 for a free one"):
            listen(port)
