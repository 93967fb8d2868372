"""A real browser for tests of pages: Chromium, as it is installed, driven by Playwright.

Without Chromium these tests are skipped, unless GRACL_REQUIRE_BROWSER=1 is set: then they fail.

Playwright's loop runs in the test's thread once `browser` was asked for, so a test that needs a loop
of its own (`asyncio.run`) runs it in another thread.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Nothing of the browser's own goes out to the network."""
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PATIENCE = 10_000
"""Milliseconds to wait for an element."""


@pytest.fixture(scope="session")
def browser():
    """Chromium, started once."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _absent("the package playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        _absent(f"there is no {', '.join(NAMES)} on the PATH")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=[*QUIET])
        yield started
        started.close()


def _absent(what):
    if os.environ.get("GRACL_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{what}, and GRACL_REQUIRE_BROWSER is set")
    pytest.skip(f"{what}, so pages are not looked at")


@pytest.fixture
def complaints():
    """Errors in the page's console; a test that expects some looks at them and clears them."""
    return []


@pytest.fixture
def page(browser, complaints):
    """An empty tab, 1280 pixels wide. The test fails on errors in its console and in its scripts, and
    where it asks for anything that is not on this machine."""
    context = browser.new_context(viewport=WIDE, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    watch(opened, complaints)
    yield opened
    context.close()
    assert complaints == []


def watch(opened, complaints):
    """Notes what goes wrong in a tab."""

    def said(message):
        if message.type in ("error", "warning"):
            complaints.append(f"{message.type}: {message.text}")

    def asked(request):
        if not request.url.startswith(("http://127.0.0.1:", "http://localhost:", "blob:", "data:")):
            complaints.append(f"asked for {request.url}")

    opened.on("console", said)
    opened.on("pageerror", lambda error: complaints.append(f"script: {error}"))
    opened.on("request", asked)


OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  const name = e => e.tagName.toLowerCase() + (e.id && '#' + e.id)
    + [...e.classList].map(word => '.' + word).join('');
  const scrolls = e => e && e !== document.body && e !== document.documentElement
    && (['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(e).overflowX)
      || scrolls(e.parentElement));
  const out = [];
  for (const e of document.body.querySelectorAll('*')) {
    const style = getComputedStyle(e), box = e.getBoundingClientRect();
    if (!box.width || !box.height || style.visibility === 'hidden') continue;
    if (scrolls(e.parentElement) || e.closest('.skip, .visually-hidden, [hidden]')) continue;
    if (box.right > width + 1 || box.left < -1)
      out.push(`${name(e)} lies from ${Math.round(box.left)} to ${Math.round(box.right)} of ${width}`);
    else if (style.display !== 'inline' && style.overflowX === 'visible' && e.clientWidth
        && e.scrollWidth > e.clientWidth + 1 && !e.matches('select, input, textarea'))
      out.push(`${name(e)} holds ${e.scrollWidth} in ${e.clientWidth}`);
  }
  return out;
}"""


def overflow(page):
    """What sticks out of the page or of its own box sideways, in words; nothing does on a sound page.

    What is scrolled by itself (`overflow-x: auto`) may be wider than its box.
    """
    return page.evaluate(OVERFLOW)


@contextmanager
def running(app, *, token="secret", guard=True):
    """An application, guarded, on a free port, in a thread; gives the address without a token."""
    import uvicorn

    from gracl.web.serving import ADDRESS, guarded, listen

    with listen(0) as place:
        inner = guarded(app, token) if guard else app
        settings = uvicorn.Config(inner, log_level="critical", access_log=False, ws="none")
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        limit = time.monotonic() + 20
        while not server.started and time.monotonic() < limit:
            time.sleep(0.01)
        assert server.started
        yield f"http://{ADDRESS}:{place.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
