"""Cards, from a real client to the receipt: over the wire, through the product's own web process.

Once with localstripe, a stand-in that is not ours and knows nothing of us; once with our own, which
knows pages to pay on, and tells everything twice and in any order.
"""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import stripe

from gateway import process, receipts
from gateway.collection.payments import record_reports
from gateway.db import transaction
from gateway.embedded.processes import free_port, wait_until
from gateway.providers.stripe_pages import StripePages
from gateway.settings import settings
from tests.factories import (
    NOON,
    PATIENCE_SECONDS,
    balances,
    broken_promises,
    rows_of,
    seal,
    some_invoices,
    the_books,
)
from tests.stand_in import SECRET, providers_file, sessions, standing_in
from webhooks.inbox import Desk, drain

ROOT: Final = Path(__file__).parent.parent.parent
DUE: Final = 16352
ACTED_ON: Final = "SELECT count(*) FROM webhook_delivery WHERE state = 'done'"


@contextmanager
def program(*command: str, cwd: Path, ready: str) -> Iterator[None]:
    """Run a server of its own until an address of it answers; end it afterwards."""
    log = cwd / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", *command], cwd=cwd, stdout=output, stderr=output
        ) as running,
    ):
        try:
            answered = wait_until(
                lambda: running.poll() is not None or answers(ready), PATIENCE_SECONDS
            )
            assert answered, log.read_text()
            assert running.poll() is None, log.read_text()
            yield
        finally:
            running.terminate()
            running.wait(PATIENCE_SECONDS)


def answers(address: str) -> bool:
    try:
        httpx.get(address, timeout=1)
    except httpx.TransportError:
        return False
    return True


@contextmanager
def product(
    address: str, patch: pytest.MonkeyPatch, scratch: Path, **environment: str
) -> Iterator[httpx.Client]:
    """Run the web process on this test's database and providers; yield a browser at it."""
    web = scratch / "web"
    web.mkdir()
    file = scratch / "providers.toml"
    file.write_text(providers_file(address))
    port = free_port()
    for name, value in {
        "WASL_PROVIDERS": str(file),
        "WASL_BASE_URL": f"http://127.0.0.1:{port}",
        "PYTHONPATH": str(ROOT),
        **environment,
    }.items():
        patch.setenv(name, value)
    for once in (settings, process.providers, process.business_clock):
        once.cache_clear()
    base = f"http://127.0.0.1:{port}"
    with (
        program("gateway.serve", "--port", str(port), cwd=web, ready=f"{base}/readyz"),
        httpx.Client(base_url=base, headers={"Accept-Language": "fr"}) as client,
    ):
        yield client


def work() -> None:
    """Do what the worker does: act on deliveries, sign receipts."""
    desk = Desk(process.providers(), process.signing_key(), process.business_clock())
    drain(desk, batches_max=5)
    receipts.issue_all(process.receipt_keys(), process.business_clock())


def until(done: Callable[[], bool]) -> None:
    def worked() -> bool:
        work()
        return done()

    assert wait_until(worked, PATIENCE_SECONDS), the_books()


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    body = re.sub(r"<(style|title)>.*?</\1>", " ", answer.text, flags=re.DOTALL)
    words = html.unescape(re.sub(r"<[^>]+>", " ", body))
    return " ".join(re.sub("[\u2066-\u2069]", "", words).split())


def statuses() -> list[tuple[str, int]]:
    return [(status, minor) for _, _, status, minor, _ in the_books().payments]


def test_a_real_client_a_real_signature_a_receipt_and_a_refund(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    fake = f"http://127.0.0.1:{port}"
    (reference,) = some_invoices()
    scratch = tmp_path / "localstripe"
    scratch.mkdir()
    with (
        program("localstripe", "--port", str(port), "--from-scratch", cwd=scratch, ready=fake),
        product(fake, monkeypatch, tmp_path) as browser,
    ):
        hook = {"url": f"{browser.base_url}/webhooks/stripe".replace("//w", "/w"), "secret": SECRET}
        config = urllib.request.Request(  # noqa: S310 - our own machine
            f"{fake}/_config/webhooks/wasl",
            json.dumps(hook).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(config, timeout=5).close()  # noqa: S310
        client: Any = stripe.StripeClient("sk_test_1234", base_addresses={"api": fake})
        card = client.v1.payment_methods.create(
            {
                "type": "card",
                "card": {
                    "number": "4242424242424242",
                    "exp_month": 12,
                    "exp_year": 2040,
                    "cvc": "123",
                },
            }
        )
        intent = client.v1.payment_intents.create(
            {
                "amount": DUE,
                "currency": "mad",
                "payment_method": card.id,
                "metadata": {"invoice_ref": reference},
                "confirm": True,
            }
        )
        until(lambda: ("booked", DUE) in statuses())
        assert rows_of(database, "SELECT provider_payment_id FROM payment") == [(intent.id,)]
        assert "Cette cotisation est payée" in text_of(browser.get(f"/{reference}"))
        (number,) = rows_of(database, "SELECT number FROM receipt")[0]
        genuine = text_of(browser.get(f"/verify/{number}"))

        client.v1.refunds.create({"payment_intent": intent.id, "amount": 5000})
        provider = process.providers()["stripe"]
        assert isinstance(provider, StripePages)
        # It tells of no refund: whoever wants to know asks.
        now = process.business_clock()()
        _, reports = provider.ask_payment(
            intent.id, received_at=now, source=f"inquiry:stripe/{intent.id}"
        )
        with transaction() as session:
            outcomes = record_reports(session, reports, key=process.signing_key(), now=now)
        assert outcomes == ["repeated", "returned"]
        assert "113,52" in text_of(browser.get(f"/verify/{number}"))
        assert "113,52" not in genuine
        assert "50,00" in text_of(browser.get(f"/{reference}"))
    assert the_books().exceptions == []
    seal()
    assert broken_promises(deliveries=True) == []


def test_there_and_back_though_all_is_told_twice_and_in_any_order(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reference,) = some_invoices()
    with (
        standing_in() as stand_in,
        product(
            stand_in.world.address, monkeypatch, tmp_path, WASL_CLOCK=f"={NOON.isoformat()}"
        ) as browser,
    ):
        world = stand_in.world
        stand_in.courier.deliver_to(f"{browser.base_url}".rstrip("/") + "/webhooks/stripe")
        world.faults.lose, world.faults.double, world.faults.reorder = 0.0, 1.0, True

        sent = browser.post(f"/{reference}/card")
        [session] = sessions(world)
        assert sent.headers["location"] == session["url"]
        for deed, status in (("decline", 200), ("pay", 303)):
            done = httpx.post(session["url"], data={"do": deed})
            assert done.status_code == status
        assert done.headers["location"].startswith(f"{browser.base_url}".rstrip("/"))
        came_back = text_of(browser.get(done.headers["location"]))
        assert "ne payez pas une deuxième fois" in came_back or "est payée" in came_back
        until(lambda: rows_of(database, ACTED_ON) == [(len(world.events),)])
        assert statuses() == [("booked", DUE)]

        (number,) = rows_of(database, "SELECT number FROM receipt")[0]
        payment = {"payment_intent": session["payment_intent"]}
        world.refund({**payment, "amount": 5000})
        dispute = world.dispute({**payment, "amount": 4000})
        world.go_on(dispute, "funds_withdrawn", "")
        until(lambda: rows_of(database, ACTED_ON) == [(len(world.events),)])
        left = DUE - 9000
        assert balances() == {"clearing:stripe": left, "payable:institution": -left}
        assert [code for code, _ in the_books().exceptions] == ["payment_disputed"]
        assert "73,52" in text_of(browser.get(f"/verify/{number}"))
        world.go_on(dispute, "closed", "won")
        world.go_on(dispute, "funds_reinstated", "")
        until(lambda: rows_of(database, ACTED_ON) == [(len(world.events),)])
    assert balances() == {"clearing:stripe": DUE - 5000, "payable:institution": 5000 - DUE}
    assert the_books().exceptions == []
    seal()
    assert broken_promises(deliveries=True) == []
