"""The API is asked what its description allows, and what it does not: all it answers is described.

The same at length, against a running server: `schemathesis run http://127.0.0.1:8000/openapi.json
-H "Authorization: Bearer $KEY" --rate-limit 40/s`.
"""

from __future__ import annotations

from typing import Any, cast

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode

from gateway.models import Role
from tests.factories import a_report, record
from tests.gateway.api.conftest import ProgramOf
from tests.gateway.pages import states

EXAMPLES = {Role.ADMIN: 5, None: 2}
"""To an operation and a kind of question; a stranger gets the same answer to all of them."""


@pytest.mark.parametrize("role", [Role.ADMIN, None], ids=["with a key", "without one"])
def test_every_answer_is_a_described_one(
    app: FastAPI, program: ProgramOf, role: Role | None
) -> None:
    record(a_report(states.an_invoice(), amount_minor=20000), a_report("000000000000"))
    key = program(role).key
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [cast(Any, found).ok() for found in schema.get_all_operations()]
    asked = [operation for operation in operations if operation.path.startswith("/v1/")]
    assert len(asked) > 15
    for operation in asked:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.POSITIVE or _can_be_wrong(operation):
                _ask(operation.as_strategy(generation_mode=mode), headers, EXAMPLES[role])


def _can_be_wrong(operation: Any) -> bool:
    """Say whether there is a parameter or a body that could be other than described."""
    return bool(operation.body or operation.query or operation.path_parameters)


def _ask(cases: Any, headers: dict[str, str], examples: int) -> None:
    """Ask some cases; fail at the first answer that is not described."""

    @seed(1)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def each(case: Any) -> None:
        case.call_and_validate(headers=headers)

    each()
