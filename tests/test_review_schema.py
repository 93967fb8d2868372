"""The API behind the review never fails by its own fault: schemathesis makes up requests."""

from __future__ import annotations

import pytest

from gracl.review.review import Review
from gracl.study import open_study
from gracl.web.review_app import review_application
from gracl.web.review_desk import Desk
from gracl.web.serving import guarded
from made_up import TOKEN, ask, schemathesis
from reviewing import write_run

SMALL = 12
"""Numbers of images and clusters that there are; made up at large, hardly one would be."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACL_CACHE", str(tmp_path_factory.mktemp("cache")))
        run = write_run(tmp_path_factory.mktemp("review"), people=12, images=4)
        study = open_study(run)
        with Review.open(study, by="Ann", at=tmp_path_factory.mktemp("at") / "review.sqlite") as review:
            yield Desk(review, study)


@pytest.fixture(scope="module")
def api(desk):
    app = review_application(desk, title="cows", by="Ann")
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = guarded(app, TOKEN)
    return schema


def made_small(value):
    if isinstance(value, bool) or not isinstance(value, int | list):
        return value
    return [made_small(one) for one in value] if isinstance(value, list) else value % SMALL


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("examples", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_made_up_requests_are_never_the_servers_fault(api, desk, examples):
    def with_this_version(case):
        """Else all would be out of date, or about images that there are not."""
        is_decision = isinstance(case.body, dict) and "version" in case.body
        if is_decision and len(str(case.body["version"])) % 2:
            case.body = {name: made_small(value) for name, value in case.body.items()}
            case.body["version"] = desk.version

    operations = [found.ok() for found in api.get_all_operations()]
    answered = {
        one.label: ask(one, examples, with_this_version, ["not_a_server_error"]) for one in operations
    }
    decisions = [f"POST /api/{kind}" for kind in ("merge", "split", "eject", "confirm", "name", "same")]
    assert {*decisions} <= answered.keys()
    done = [kind for kind in decisions if 200 in answered[kind]]
    assert len(done) > len(decisions) / 2, answered
