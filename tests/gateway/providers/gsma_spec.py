"""The published file of the Mobile Money API as a judge, read by a library that is not ours."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from openapi_core import OpenAPI
from openapi_core.testing import MockRequest, MockResponse
from openapi_schema_validator import OAS30Validator, oas30_format_checker
from ruamel.yaml import YAML

from gateway.providers.calls import Call, Reply

PUBLISHED: Final = Path(__file__).parents[2] / "golden" / "gsma-bill-payments-1.2.0.yaml"
_HOST: Final = "https://sandbox.mobilemoneyapi.io"
_BASE: Final = "/simulator/v1.2/passthrough/mm/"


@cache
def _openapi() -> OpenAPI:
    return OpenAPI.from_file_path(str(PUBLISHED))


@cache
def _document() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(PUBLISHED))


def judge_request(call: Call) -> None:
    """Hold a call against the published file. Raises what openapi-core raises."""
    _openapi().validate_request(_request(call))


def judge_reply(call: Call, reply: Reply) -> None:
    """Hold an answer against the published file, status, headers and body.

    The file describes the answer to «view payments» as a list, and gives the schema of one of them:
    there each one is judged by itself.
    """
    if call.method == "GET" and call.path.endswith("/payments") and reply.status == 200:
        for each in json.loads(reply.body):
            judge_object(each, "responseBillPayment")
        reply = Reply(200, _ONE, reply.media_type, reply.headers)
    headers: dict[str, Any] = dict(reply.headers)
    answer = MockResponse(reply.body, reply.status, headers, reply.media_type)
    _openapi().validate_response(_request(call), answer)


_ONE: Final = b'{"currency":"MAD","amountPaid":"1","billPaymentStatus":"completed"}'


def judge_object(said: object, schema: str) -> None:
    """Hold an object against a schema of the published file, such as a callback's body."""
    components = _document()["components"]
    judged = {"$ref": f"#/components/schemas/{schema}", "components": components}
    OAS30Validator(judged, format_checker=oas30_format_checker).validate(said)


def _request(call: Call) -> MockRequest:
    return MockRequest(
        _HOST,
        call.method.lower(),
        _BASE + call.path,
        args=dict(call.query),
        headers=dict(call.headers),
        data=call.body or None,
        content_type="application/json",
    )
