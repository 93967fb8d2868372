"""The search API keeps to what its schema says, whatever is sent: schemathesis makes up requests."""

from __future__ import annotations

import io

import pytest

from conftest import random_image
from gracl.gallery.gallery import Gallery
from gracl.web.search_app import search_application
from gracl.web.search_desk import Desk
from gracl.web.serving import guarded
from made_up import TOKEN, ask, schemathesis

PICTURE = io.BytesIO()
random_image(9).save(PICTURE, "png")
PICTURE = PICTURE.getvalue()
IMAGES = 6
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@pytest.fixture(scope="module")
def api(small_run, tmp_path_factory):
    place = tmp_path_factory.mktemp("schema") / "a.gallery"
    with Gallery.create(place, small_run, thumbnails=True, device="cpu") as made:
        for n in range(IMAGES):
            made.add(random_image(n), identity=f"i{n % 3}", camera="gate", time="2025-04-01")
    with Desk(place, device="cpu") as desk:
        app = search_application(desk)
        schema = schemathesis.openapi.from_dict(app.openapi())
        schema.app = guarded(app, TOKEN)
        yield schema


def made_possible(case):
    """Half of the cases get a picture, or the number of an image there is: hardly one is made up."""
    if isinstance(case.body, dict) and len(str(case.body.get("picture"))) % 2:
        case.body["picture"] = PICTURE
    number = (case.path_parameters or {}).get("id")
    if isinstance(number, int) and number % 2:
        case.path_parameters["id"] = 1 + number % IMAGES


def check(operation, examples):
    """Runs made-up requests of one operation; fails on the first answer that breaks the schema."""
    assert 200 in ask(operation, examples, made_possible, CHECKS)


PATHS = [
    ("/api/search", "POST"),
    ("/api/about", "GET"),
    ("/api/identities", "GET"),
    ("/api/entries", "GET"),
    ("/api/entries/{id}/thumbnail", "GET"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("path", "method"), PATHS)
def test_made_up_requests_are_answered_as_the_schema_says(api, path, method):
    check(api[path][method], 20)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("path", "method"), PATHS)
def test_many_made_up_requests_are_answered_as_the_schema_says(api, path, method):
    check(api[path][method], 1000)
