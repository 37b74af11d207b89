"""Who waits for an answer gets it in the words of its own dialect, read or not."""

from __future__ import annotations

import json
from typing import Final

from starlette.applications import Starlette
from starlette.testclient import TestClient

from gateway.collection import attempt_rows
from gateway.db import execute, snapshot
from gateway.providers import registry, sandbox
from tests.factories import an_answerer
from tests.gateway.providers.gsma_spec import judge_object
from webhooks import showing
from webhooks.intake import Intake
from webhooks.routes import BODY_BYTES_MAX, webhook_routes

TOO_LARGE: Final = b"x" * (BODY_BYTES_MAX + 1)


def a_client() -> TestClient:
    async def nobody_rings() -> None:
        raise ConnectionError

    providers = registry.read_providers(sandbox.sandbox_file().decode(), "providers.toml")
    routes = webhook_routes(providers, Intake("postgresql:///none", nobody_rings), an_answerer())
    return TestClient(Starlette(routes=routes))


def test_a_body_that_is_too_large_is_refused_in_the_words_of_its_kind() -> None:
    client = a_client()
    bank = client.post("/webhooks/cmi", content=TOO_LARGE)
    assert (bank.status_code, bank.text) == (200, "FAILURE")
    assert bank.headers["content-type"].startswith("text/plain")
    hint = client.post("/webhooks/wallet-query", content=TOO_LARGE)
    assert (hint.status_code, list(hint.json())) == (413, ["detail"])
    wallet = client.post("/gsma/mobile-money/bills/1/payments", content=TOO_LARGE)
    assert (wallet.status_code, wallet.json()["errorCode"]) == (413, "lengthError")
    judge_object(wallet.json(), "errorObject")
    for refused in (bank, hint, wallet):
        # What is still to come would be read as the next request.
        assert refused.headers["connection"] == "close"


def test_a_method_that_nobody_published_is_an_error_object() -> None:
    client = a_client()
    for method in ("PATCH", "OPTIONS", "DELETE"):
        answer = client.request(method, "/gsma/mobile-money/bills/1/payments")
        assert answer.status_code == 401
        judge_object(json.loads(answer.content), "errorObject")


def test_hints_may_be_put_and_deliveries_are_posted() -> None:
    client = a_client()
    hint = client.put("/webhooks/wallet-query", content=b"{}")
    assert (hint.status_code, hint.json()["detail"]) == (400, "The callback has no notif_token.")
    put = client.put("/webhooks/cashplus", content=b"{}")
    assert (put.status_code, put.headers["allow"]) == (405, "POST")


def test_what_is_looked_for_by_a_reference_is_found_by_an_index(database: str) -> None:
    """On small tables a plan reads all: so that is forbidden, and what has no index shows."""
    payments = f"SELECT FROM payment p WHERE true {showing._ABOUT}"
    given = {"invoice": 1, "bundle": 2, "since": None, "until": None}
    begun = {"soon": 1, "revived": ""}
    own = f"{attempt_rows._ATTEMPTS} WHERE {attempt_rows.OWN}"
    akin = f"{attempt_rows._ATTEMPTS} WHERE {attempt_rows._KIN}"
    with snapshot() as session:
        execute(session, "SET LOCAL enable_seqscan = off")
        plans = [
            "\n".join(execute(session, f"EXPLAIN {text}", values).scalars())
            for text, values in (
                (payments, given),
                (own, {"reference": "1", **begun}),
                (akin, {"invoices": [1], "bundles": [2], **begun}),
                (attempt_rows._KIN_OF, {"reference": "1"}),
            )
        ]
    for plan, index in zip(
        plans,
        (
            "payment_invoice_id_idx",
            "payment_attempt_invoice_id_made_at_idx",
            "payment_attempt_bundle_id_made_at_idx",
            "bundle_item_invoice_id_idx",
        ),
        strict=True,
    ):
        assert index in plan
        assert "Seq Scan on payment" not in plan
        assert "Seq Scan on bundle_item" not in plan
