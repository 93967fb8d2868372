"""The helper that looks at pages sees what is wrong with them."""

import pytest
from fastapi import Request

from browser import NARROW, overflow, running
from gracl.web.serving import new_application, templates


@pytest.fixture
def address():
    app = new_application("test", openapi_url=None)

    @app.get("/")
    def home(request: Request):
        return templates.TemplateResponse(request, "base.html")

    with running(app) as found:
        yield found


def test_what_sticks_out_is_named(page):
    page.set_viewport_size(NARROW)
    page.set_content('<main><div id="wide" style="width: 500px">x</div><p>fits</p></main>')
    assert any("div#wide lies from" in line and "to 50" in line for line in overflow(page))


def test_what_is_scrolled_by_itself_may_be_wide(page):
    page.set_content('<div style="overflow-x: auto"><div style="width: 5000px">x</div></div>')
    assert overflow(page) == []


def test_an_error_in_a_script_is_noted(page, complaints):
    page.set_content("<script>throw new Error('broken')</script>")
    page.wait_for_function("true")
    assert complaints == ["script: broken"]
    complaints.clear()


def test_a_request_to_elsewhere_is_noted(page, complaints):
    page.route("**/*", lambda route: route.abort())
    page.set_content('<img src="https://example.org/a.png">')
    page.wait_for_function("document.images[0].complete")
    assert "asked for https://example.org/a.png" in complaints
    complaints.clear()


def test_a_guarded_page_opens_with_its_token(page, address):
    assert page.goto(f"{address}/?token=secret").status == 200
    assert page.url == f"{address}/"
    assert page.title() == "gracl"
    assert overflow(page) == []
