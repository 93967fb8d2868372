"""Requests that schemathesis makes up from an application's schema, and what they were answered."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import HealthCheck, given, settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    schemathesis = pytest.importorskip("schemathesis")

TOKEN = "secret"
OWN = {"Authorization": f"Bearer {TOKEN}", "Host": "127.0.0.1"}


def ask(operation, examples, prepare, checks):
    """Asks one operation; fails on the first answer that does not pass, and gives all statuses.

    Args:
        operation: of a schema of `schemathesis.openapi`, which knows its application.
        examples: how many requests; always the same ones.
        prepare: is given each case before it is sent, and may change it.
        checks: names of schemathesis's checks.
    """
    statuses = set()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[*HealthCheck],
    )
    @given(case=operation.as_strategy())
    def once(case):
        prepare(case)
        answer = case.call(headers=OWN)
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=schemathesis.checks.CHECKS.get_by_names(checks))

    once()
    return statuses
