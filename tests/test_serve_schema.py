"""The search API keeps to what its schema says, whatever is sent: schemathesis makes up requests."""

from __future__ import annotations

import io
import warnings

import pytest
from hypothesis import HealthCheck, given, settings

from conftest import random_image
from gracl.gallery.gallery import Gallery
from gracl.web.search_app import search_application
from gracl.web.search_desk import Desk
from gracl.web.serving import guarded

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    schemathesis = pytest.importorskip("schemathesis")

TOKEN = "secret"
OWN = {"Authorization": f"Bearer {TOKEN}", "Host": "127.0.0.1"}
PICTURE = io.BytesIO()
random_image(9).save(PICTURE, "png")
PICTURE = PICTURE.getvalue()
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
        for n in range(6):
            made.add(random_image(n), identity=f"i{n % 3}", camera="gate", time="2025-04-01")
    with Desk(place, device="cpu") as desk:
        app = search_application(desk)
        schema = schemathesis.openapi.from_dict(app.openapi())
        schema.app = guarded(app, TOKEN)
        yield schema


def check(operation, examples):
    """Runs made-up requests of one operation; fails on the first answer that breaks the schema."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[*HealthCheck],
    )
    def ask(case):
        if isinstance(case.body, dict) and len(str(case.body.get("picture"))) % 2:
            case.body["picture"] = PICTURE  # else hardly one is ever made up
        answer = case.call(headers=OWN)
        statuses.append(answer.status_code)
        case.validate_response(answer, checks=schemathesis.checks.CHECKS.get_by_names(CHECKS))

    statuses = []
    given(case=operation.as_strategy())(ask)()
    assert 200 in statuses


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
