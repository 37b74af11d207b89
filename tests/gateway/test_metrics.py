"""`/metrics` over HTTP: what it says of a bit of everything, to whom, and at what cost."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from prometheus_client.parser import text_string_to_metric_families
from sqlmodel import Session
from starlette.requests import Request
from starlette.testclient import TestClient

from gateway import process
from gateway.books import ledger
from gateway.collection.reports import Statement
from gateway.db import execute, snapshot, transaction
from gateway.http import metrics, readings
from gateway.http.metrics import Refreshed, _refusal
from gateway.http.readings import Balances, count_totals, read_standing
from gateway.models import ExceptionCode
from gateway.providers.registry import SANDBOX_PROVIDERS
from gateway.settings import Settings, settings
from tests.factories import (
    NOON,
    PATIENCE_SECONDS,
    a_delivery,
    a_desk,
    a_report,
    a_return,
    an_event,
    at_once,
    record,
    rows_of,
    seal,
    some_invoices,
)
from webhooks.inbox import drain

Said = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def web(database: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TestClient]:
    """Return callers of the web process, on a clock that stands still."""
    monkeypatch.setenv("WASL_CLOCK", f"={NOON.isoformat()}")

    def called_from(host: str = "127.0.0.1", **variables: str) -> TestClient:
        for name, given in variables.items():
            monkeypatch.setenv(name, given)
        settings.cache_clear()
        # Here, as its broker is the one of the environment when it is imported.
        from gateway.app import create_app

        return TestClient(create_app(), client=(host, 5000))

    return called_from


@pytest.fixture
def client(web: Callable[..., TestClient]) -> Iterator[TestClient]:
    with web() as made:
        yield made


def said_by(client: TestClient) -> Said:
    """Return every sample, as Prometheus' own parser reads it."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(said: Said, name: str, **labels: str) -> float | None:
    return said.get((name, frozenset(labels.items())))


def a_bit_of_everything() -> None:
    """Book, park, repeat and leave waiting."""
    first, second, third = some_invoices(3)
    for reference in (first, first, "no such reference"):
        a_delivery(an_event(reference))
    a_delivery(an_event(second, amount="100.00", channel="card"))
    a_delivery(b'{"type": "ping"}')
    drain(a_desk(), batches_max=5)
    seal()
    parked = a_delivery(an_event(third))
    with transaction() as session:
        execute(
            session,
            "UPDATE webhook_delivery SET state = 'parked', last_error = 'it failed'"
            " WHERE delivery_id = :id",
            {"id": parked},
        )
    a_delivery(an_event(third), received_at=NOON.replace(hour=11))
    a_delivery(an_event(third), provider="switched-off-last-year")


def test_what_it_says(client: TestClient, database: str) -> None:
    a_bit_of_everything()
    client.post("/webhooks/kiosk", content=b"{}")
    said = said_by(client)
    assert value(said, "wasl_database_up") == 1
    assert value(said, "wasl_deliveries_waiting", provider="cashplus") == 1
    assert value(said, "wasl_deliveries_waiting", provider="other") == 1
    assert value(said, "wasl_deliveries_waiting", provider="kiosk") == 0
    assert value(said, "wasl_deliveries_done_total", provider="cashplus", outcome="booked") == 4
    assert value(said, "wasl_deliveries_done_total", provider="cashplus", outcome="ignored") == 1
    assert value(said, "wasl_deliveries_parked", provider="cashplus") == 1
    assert value(said, "wasl_deliveries_refused_total", provider="kiosk") == 1
    assert value(said, "wasl_oldest_seconds", what="delivery") == 3600
    assert value(said, "wasl_oldest_seconds", what="any") == 3600
    assert value(said, "wasl_oldest_seconds", what="receipt") == 0
    assert value(said, "wasl_undone", what="receipt") == 3
    assert (
        value(said, "wasl_undone", what="outbox")
        == rows_of(database, "SELECT count(*) FROM outbox_message")[0][0]
    )
    assert value(said, "wasl_exceptions_open", code="unknown_reference") == 1
    assert value(said, "wasl_exceptions_open", code="paid_twice") == 1
    assert value(said, "wasl_payments", channel="cash_agent", status="booked") == 3
    assert value(said, "wasl_payments_centimes", channel="cash_agent", status="booked") == 49056
    assert value(said, "wasl_payments_centimes", channel="card", status="booked") == 10000
    assert value(said, "wasl_clearing_centimes", provider="cashplus") == 59056
    assert value(said, "wasl_clearing_centimes", provider="bank") == 0
    assert value(said, "wasl_suspense_centimes") == 16352
    assert value(said, "wasl_invoices", status="paid") == 1
    assert value(said, "wasl_invoices", status="part_paid") == 1
    assert value(said, "wasl_invoices_centimes") == 3 * 16352
    assert value(said, "wasl_invoices_owed_centimes") == 3 * 16352
    assert value(said, "wasl_invoices_paid_centimes") == 16352 + 10000
    assert value(said, "wasl_books_posted_batch") == 1
    assert value(said, "wasl_books_sealed_batch") == 1
    assert value(said, "wasl_reconciled_seconds_ago") is None
    info = next(labels for name, labels in said if name == "wasl_build_info")
    assert ("mode", "sandbox") in info


def test_labels_are_few_and_about_nobody(client: TestClient) -> None:
    a_bit_of_everything()
    reference = some_invoices(1)[0]
    for path in (f"/{reference}", f"/{reference}.pdf?lang=ar", "/verify/R26-123456789", "/a/b/c"):
        client.get(path)
    client.request("BREW", "/")
    client.post(f"/webhooks/{reference}", content=b"{}")
    text = client.get("/metrics").text
    names = re.sub(r"^#.*| [0-9.e+-]+$", "", text, flags=re.MULTILINE)
    assert not re.search(r"[0-9]{9}", names)
    assert reference not in text
    assert "switched-off" not in text
    said = said_by(client)
    assert value(said, "wasl_http_requests_total", method="GET", route="/{reference}", status="200")
    assert value(said, "wasl_http_requests_total", method="GET", route="none", status="404") == 1
    assert value(said, "wasl_http_requests_total", method="other", route="/", status="405") == 1
    posted = {"method": "POST", "route": "/webhooks/{provider}", "status": "404"}
    assert value(said, "wasl_http_requests_total", **posted) == 1
    assert value(said, "wasl_http_request_seconds_count", route="/{reference}") == 1
    providers = {dict(labels).get("provider") for _, labels in said} - {None}
    assert providers <= {*SANDBOX_PROVIDERS, "other"}
    codes = {dict(labels).get("code") for _, labels in said} - {None}
    assert codes == {code.value for code in ExceptionCode}


def test_while_the_database_is_away_it_says_what_it_knows(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal()
    process.connect_database.cache_clear()
    monkeypatch.setenv("WASL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    settings.cache_clear()
    process.connect_database()
    said = said_by(client)
    assert value(said, "wasl_database_up") == 0
    assert value(said, "wasl_books_sealed_batch") == 0
    assert value(said, "wasl_deliveries_waiting", provider="cashplus") is None
    assert any(name == "process_resident_memory_bytes" for name, _ in said)


def test_a_database_that_is_frozen_holds_nobody_up(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "ANSWER_SECONDS_MAX", 0.05)
    held = threading.Event()
    monkeypatch.setattr(metrics, "read_standing", lambda *_, **__: held.wait(PATIENCE_SECONDS))
    try:
        assert value(said_by(client), "wasl_database_up") == 0
        assert value(said_by(client), "wasl_database_up") == 0
        readers = [t for t in threading.enumerate() if t.name == "standing"]
        assert len(readers) == 1
    finally:
        held.set()
        for reader in readers:
            reader.join()


# -- who may read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "host", "headers", "status"),
    [
        ("", "127.0.0.1", {}, 200),
        ("", "::1", {}, 200),
        ("", "10.0.0.7", {}, 404),
        ("", "196.200.0.1", {}, 404),
        ("", "testclient", {}, 404),
        ("", "127.0.0.1", {"X-Forwarded-For": "196.200.0.1"}, 404),
        ("", "127.0.0.1", {"Forwarded": "for=196.200.0.1"}, 404),
        ("a-token-of-ours", "196.200.0.1", {"Authorization": "Bearer a-token-of-ours"}, 200),
        ("a-token-of-ours", "196.200.0.1", {"Authorization": "bearer a-token-of-ours"}, 200),
        ("a-token-of-ours", "196.200.0.1", {"Authorization": "Bearer a-token-of-our"}, 403),
        ("a-token-of-ours", "196.200.0.1", {"Authorization": "Basic a-token-of-ours"}, 403),
        ("a-token-of-ours", "127.0.0.1", {"Authorization": "Bearer \xe9"}, 403),
        ("a-token-of-ours", "127.0.0.1", {}, 403),
    ],
)
def test_who_may_read(
    web: Callable[..., TestClient],
    token: str,
    host: str,
    headers: dict[str, str],
    status: int,
) -> None:
    client = web(host, WASL_METRICS_TOKEN=token)
    raw = [(name.encode(), text.encode("latin-1")) for name, text in headers.items()]
    answer = client.get("/metrics", headers=raw)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/plain")
    assert (status == 200) == ("wasl_" in answer.text.replace("WASL_", ""))


def test_production_without_a_token_shows_its_numbers_to_nobody() -> None:
    here = Request({"type": "http", "client": ("127.0.0.1", 1), "headers": [], "path": "/metrics"})
    for mode, status in (("production", 404), ("sandbox", None)):
        refused = _refusal(here, Settings.model_validate({"mode": mode}))
        assert (refused.status_code if refused else None) == status


# -- at what cost ---------------------------------------------------------------------------------


def test_totals_counted_in_ranges_are_those_of_one_look(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_bit_of_everything()
    at_one_look = count_totals({"cashplus"})
    monkeypatch.setattr(readings, "RANGE_ROWS", 1)
    assert count_totals({"cashplus"}) == at_one_look
    assert sum(at_one_look.deliveries.values()) == 8
    assert count_totals(set()).deliveries.keys() != at_one_look.deliveries.keys()


def test_what_went_back_is_told_of_payments_that_stand(database: str) -> None:
    gone, stands = (a_report(reference) for reference in some_invoices(2))
    for report in (gone, stands):
        record(report, a_return(report.provider_payment_id, 5_000))
    later = NOON + timedelta(hours=1)
    record(replace(gone, statement=Statement.REVERSED, stated_at=later), now=later)
    assert dict(count_totals(["cashplus"]).returned_minor) == {"cash_agent": 5_000}


def test_balances_followed_step_by_step_are_those_of_the_books(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "RANGE_ROWS", 2)
    followed = Balances()

    def follow() -> dict[str, int]:
        with snapshot() as session:
            return dict(followed.follow(session))

    def in_the_books() -> dict[str, int]:
        with snapshot() as session:
            return {
                b.code: b.net_minor
                for b in ledger.balances(session)
                if b.code.startswith(("clearing:", "suspense:"))
            }

    assert follow() == in_the_books()
    for provider in ("cashplus", "kiosk", "cashplus", "wallet"):
        for reference in (*some_invoices(2), "no such reference"):
            record(a_report(reference, provider=provider))
        assert follow() == in_the_books()
    assert follow() == in_the_books()


def test_balances_of_another_database_begin_anew(database: str) -> None:
    followed = Balances()
    record(a_report(some_invoices(1)[0]))
    followed._read_to, followed._minor["clearing:cashplus"] = 1_000, 5
    with snapshot() as session:
        assert followed.follow(session)["clearing:cashplus"] == 16352


def test_what_waits_is_found_by_indexes(database: str) -> None:
    """On small tables a plan reads all: so that is forbidden, and what has no index shows."""
    statements = []

    def explain(session: Session) -> None:
        execute(session, "SET LOCAL enable_seqscan = off")
        parameters = {"most": 10, "low": 0, "high": 10, "accounts": [1]}
        for name, text in vars(readings).items():
            if isinstance(text, str) and re.search(r"\bFROM [a-z]", text) and name != "__doc__":
                wanted = {key: given for key, given in parameters.items() if f":{key}" in text}
                lines = execute(session, f"EXPLAIN {text}", wanted).scalars()
                statements.append((name, "\n".join(lines)))

    with snapshot() as session:
        explain(session)
    assert len(statements) == 8
    assert [name for name, plan in statements if "Seq Scan" in plan] == []
    waiting = dict(statements)["_WAITING"]
    assert "webhook_delivery_waiting_idx" in waiting
    assert "webhook_delivery_pkey" not in waiting


def test_counting_what_waits_stops(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "COUNT_MAX", 2)
    for _ in range(5):
        a_delivery(b"{}")
    with snapshot() as session:
        standing = read_standing(session, {"cashplus"}, now=NOON)
    assert standing.waiting == {"cashplus": 2}


def test_however_many_ask_one_reads() -> None:
    began = []

    def read() -> int:
        began.append(time.monotonic())
        time.sleep(0.05)
        return len(began)

    asked = Refreshed("test", read, lambda _took: 3600)
    calls: list[Callable[[], int | None]] = [lambda: asked.get(PATIENCE_SECONDS)] * 8
    assert at_once(*calls) == [1] * 8
    assert asked.get(0) == 1


def test_what_fails_is_gone_until_it_is_read_again() -> None:
    outcomes = iter([1, 0, 3])

    def read() -> int:
        return 6 // next(outcomes)

    asked = Refreshed("test", read, lambda _took: 0)
    assert [asked.get(PATIENCE_SECONDS) for _ in range(3)] == [6, None, 2]


def test_a_home_without_heads_says_nothing_of_them(client: TestClient, home: Path) -> None:
    assert not (home / "books").exists()
    assert value(said_by(client), "wasl_books_sealed_batch") is None


def test_a_route_under_a_prefix_is_counted_by_the_whole_of_it() -> None:
    registry = metrics.new_registry()
    inner, outer = APIRouter(), APIRouter(prefix="/v1")

    @inner.get("/invoices/{reference}")
    def invoice(reference: str) -> str:
        return reference

    outer.include_router(inner)
    app = FastAPI()
    app.add_middleware(metrics.Measured, requests=metrics.Requests(registry))
    app.include_router(outer)
    client = TestClient(app)
    for _ in range(2):
        client.get("/v1/invoices/148275036141")
    client.post("/v1/invoices/148275036141")
    for method, status, count in (("GET", "200", 2), ("POST", "405", 1)):
        labels = {"method": method, "route": "/v1/invoices/{reference}", "status": status}
        assert registry.get_sample_value("wasl_http_requests_total", labels) == count
