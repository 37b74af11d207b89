"""A new adapter is one file and one line of the table: here is one, from its file to the books."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from pathlib import Path
from typing import Final

import httpx
import pytest
from starlette.applications import Starlette

from gateway.providers import registry
from gateway.providers.registry import read_providers
from tests.factories import (
    NOON,
    a_desk,
    an_answerer,
    balances,
    broken_promises,
    rows_of,
    seal,
    some_invoices,
    the_books,
)
from webhooks.inbox import drain
from webhooks.intake import Intake
from webhooks.routes import webhook_routes

FILE: Final = '''
"""The post office: cash, told of by signed deliveries or announced by a call that waits."""

import hmac
import json
from datetime import datetime

from gateway.collection.reports import PaymentReport, Statement, Terms
from gateway.errors import BadSignature
from gateway.models import Channel
from gateway.providers.calls import AnswerNow, Reply, Taken, TakePayment


def make(name, values, *, live):
    return PostOffice(name, values["secret"].encode())


class PostOffice:
    prefix = "post"

    def __init__(self, name, secret):
        self.name = name
        self._secret = secret

    def unsafe_in_production(self):
        return []

    def authenticate(self, headers, body, *, now):
        given = headers.get("x-post-signature", "").encode()
        if not hmac.compare_digest(hmac.digest(self._secret, body, "sha256").hex().encode(), given):
            raise BadSignature("X-Post-Signature is not ours")
        return json.loads(body)["slip"]

    def parse(self, body, *, delivery_id, received_at, path=""):
        return self._report(json.loads(body), Terms.HELD, received_at, delivery_id)

    def read(self, call):
        try:
            self.authenticate(call.headers, call.body, now=call.received_at)
        except BadSignature:
            return AnswerNow(Reply(401, b"no"), refused=True)
        said = json.loads(call.body)
        report = self._report(said, Terms.UP_TO_DUE, call.received_at, said["slip"])
        return TakePayment(said["slip"], report)

    def say(self, want, found):
        return Reply(200, found.verdict.encode(), "text/plain")

    def say_again(self, first, *, same):
        return first

    def say_trouble(self):
        return Reply(503, b"again", "text/plain")

    def say_unread(self, status):
        return Reply(status, b"no", "text/plain")

    def _report(self, said, terms, received_at, delivery_id):
        paid_at = datetime.fromisoformat(said["at"])
        return PaymentReport(
            provider=self.name,
            provider_payment_id=said["slip"],
            statement=Statement.COMPLETED,
            reference_given=said["for"],
            amount_minor=said["centimes"],
            currency="MAD",
            channel=Channel.CASH_AGENT,
            paid_at=paid_at,
            paid_at_given=said["at"],
            stated_at=paid_at,
            received_at=received_at,
            source=f"delivery:{self.name}/{delivery_id}",
            terms=terms,
        )
'''

SECRET: Final = "of the post office"


def a_slip(number: int, reference: str, centimes: int = 16352) -> tuple[bytes, dict[str, str]]:
    said = {"slip": f"S{number}", "for": reference, "centimes": centimes, "at": NOON.isoformat()}
    body = json.dumps(said).encode()
    mac = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return body, {"X-Post-Signature": mac}


def test_one_file_and_one_line_take_deliveries_and_calls_to_the_books(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "an_adapter_of_a_test.py").write_text(FILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "KINDS", {**registry.KINDS, "post": "an_adapter_of_a_test"})
    text = f'[[provider]]\nname = "barid"\nkind = "post"\nsecret = "{SECRET}"\n'
    providers = read_providers(text, "file")
    first, second = some_invoices(2)

    async def talk() -> list[tuple[int, str]]:
        async def nobody_rings() -> None:
            raise ConnectionError

        intake = Intake(database, nobody_rings)
        await intake.start()
        routes = webhook_routes(providers, intake, an_answerer())
        transport = httpx.ASGITransport(Starlette(routes=routes))
        answers = []
        async with httpx.AsyncClient(transport=transport, base_url="http://wasl.test") as client:
            for at, (body, headers) in (
                ("/webhooks/barid", a_slip(1, first)),
                ("/webhooks/barid", a_slip(1, first)),
                ("/webhooks/barid", (a_slip(2, first)[0], {})),
                ("/post/barid/pay", a_slip(3, second)),
                ("/post/barid/pay", a_slip(3, second)),
                ("/post/barid/pay", a_slip(4, second)),
                ("/post/barid/pay", (a_slip(5, second)[0], {})),
                ("/post/nobody/pay", a_slip(6, second)),
            ):
                answer = await client.post(at, content=body, headers=headers)
                answers.append((answer.status_code, answer.text if "/post/b" in at else ""))
        await intake.stop()
        return answers

    assert asyncio.run(talk()) == [
        (202, ""),
        (202, ""),
        (400, ""),
        (200, "booked"),
        (200, "booked"),
        (200, "declined"),
        (401, "no"),
        (404, ""),
    ]
    drain(a_desk(providers["barid"]), batches_max=5)
    assert sorted(p[1:] for p in the_books().payments) == [
        ("S1", "booked", 16352, first),
        ("S3", "booked", 16352, second),
    ]
    assert balances() == {"clearing:barid": 32704, "payable:institution": -32704}
    stored = rows_of(database, "SELECT delivery_id, outcome FROM webhook_delivery ORDER BY 1")
    assert stored == [("S1", "booked"), ("S3", "booked"), ("S4", "declined_nothing_due")]
    seal()
    assert broken_promises(deliveries=True) == []
