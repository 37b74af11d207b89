"""Rows and reports that are valid unless told otherwise. A test names only what it is about."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from threading import Barrier
from typing import Any, TypeVar

import psycopg
from sqlmodel import Session

from gateway import process
from gateway.billing.issuing import issue_invoices
from gateway.billing.orders import IssueResult
from gateway.books import ledger
from gateway.checks import Broken, run_checks
from gateway.checks.promises import books_checks
from gateway.collection.payments import record_reports
from gateway.collection.reports import PaymentReport, Report, ReturnReport, Statement, Unbookable
from gateway.db import execute, snapshot, transaction
from gateway.dues.periods import parse_period
from gateway.dues.tariff import keep_categories, tariff
from gateway.events import Happening, tell
from gateway.migrate import judges
from gateway.models import (
    Channel,
    Contributor,
    EventType,
    ExceptionCode,
    ReturnKind,
    ReturnState,
)
from gateway.money import format_amount
from gateway.providers import Provider
from gateway.providers.standard_webhooks import StandardWebhooks, StandardWebhooksSettings
from gateway.receipt_checks import receipt_checks
from webhooks.answering import Answerer
from webhooks.checks import CHECKS as WEBHOOK_CHECKS
from webhooks.inbox import Desk

NOON = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
PATIENCE_SECONDS = 60
_numbers = count(100_000_001)
_T = TypeVar("_T")


def a_contributor(session: Session, **values: Any) -> Contributor:
    """Add a person who owes 163.52 a month since 2022."""
    keep_categories(session, tariff())
    row = Contributor(
        **{
            "cnss_number": str(next(_numbers)),
            "family_name": "Alaoui",
            "given_name": "Amina",
            "category_code": "artisan-untaxed",
            "registered_on": date(2022, 1, 1),
            "changed_at": NOON,
            **values,
        }
    )
    session.add(row)
    session.flush()
    return row


def some_invoices(how_many: int = 1, period: str = "2026-11") -> list[str]:
    """Issue that many invoices of 163.52 for new people; return their references, committed."""
    with transaction() as session:
        people = [a_contributor(session).id for _ in range(how_many)]
    issue(period)
    with transaction() as session:
        rows = execute(
            session,
            "SELECT reference FROM invoice WHERE contributor_id = ANY(:people)"
            " ORDER BY contributor_id",
            {"people": people},
        )
        return list(rows.scalars())


def issue(period: str, category: str | None = None) -> IssueResult:
    """Issue a period's invoices at noon, with this home's key."""
    return issue_invoices(
        tariff(),
        parse_period(period),
        category=category,
        key=process.signing_key(),
        clock=lambda: NOON,
        # One connection: some tests are about who else is connected.
        workers=1,
    )


def a_report(reference: str, **values: Any) -> PaymentReport:
    """Return a completed payment of 163.52 in cash at noon."""
    number = next(_numbers)
    return PaymentReport(
        **{
            "provider": "cashplus",
            "provider_payment_id": f"P{number}",
            "statement": Statement.COMPLETED,
            "reference_given": reference,
            "amount_minor": 16352,
            "currency": "MAD",
            "channel": Channel.CASH_AGENT,
            "paid_at": NOON,
            "paid_at_given": NOON.isoformat(),
            "stated_at": NOON,
            "received_at": NOON,
            "source": f"delivery:cashplus/msg_{number}",
            **values,
        }
    )


def an_unbookable(provider_payment_id: str, **values: Any) -> Unbookable:
    """Return a completed payment whose amount cannot be read."""
    return Unbookable(
        **{
            "provider": "cashplus",
            "provider_payment_id": provider_payment_id,
            "statement": Statement.COMPLETED,
            "code": ExceptionCode.INVALID_AMOUNT,
            "reason": "the amount is not a decimal string",
            "source": f"delivery:cashplus/msg_{next(_numbers)}",
            **values,
        }
    )


def a_return(payment_id: str, amount_minor: int, **values: Any) -> ReturnReport:
    """Return the sum of a payment's refunds, a minute after noon."""
    at = values.pop("stated_at", NOON + timedelta(minutes=1))
    return ReturnReport(
        **{
            "provider": "cashplus",
            "provider_payment_id": payment_id,
            "return_id": payment_id,
            "kind": ReturnKind.REFUND_TOTAL,
            "state": ReturnState.GIVEN,
            "amount_minor": amount_minor,
            "currency": "MAD",
            "made_at": at,
            "stated_at": at,
            "received_at": at,
            "source": f"delivery:cashplus/msg_{next(_numbers)}",
            **values,
        }
    )


def an_event(reference: str, *, kind: str = "payment.completed", **data: Any) -> bytes:
    """Return the body of our own event: a payment of 163.52 in cash at noon."""
    return json.dumps(
        {
            "type": kind,
            "timestamp": data.pop("timestamp", NOON.isoformat()),
            "data": {
                "provider_payment_id": f"P{next(_numbers)}",
                "reference": reference,
                "amount": "163.52",
                "currency": "MAD",
                "channel": "cash_agent",
                "paid_at": NOON.isoformat(),
                **data,
            },
        }
    ).encode()


def signed(
    body: bytes, *, delivery_id: str | None = None, at: datetime = NOON, secret: str = SECRET
) -> dict[str, str]:
    """Return the headers of an honest Standard Webhooks delivery."""
    delivery_id = delivery_id or f"msg_{next(_numbers)}"
    timestamp = str(int(at.timestamp()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{delivery_id}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
        "content-type": "application/json",
    }


# -- acting on reports and deliveries -------------------------------------------------------------


def record(*reports: Report, now: datetime = NOON) -> list[str]:
    """Book reports as one batch, committed, with this home's key."""
    with transaction() as session:
        return record_reports(session, reports, key=process.signing_key(), now=now)


def a_provider(name: str = "cashplus") -> StandardWebhooks:
    """Return a provider of our own events whose secret is SECRET."""
    return StandardWebhooks(name, StandardWebhooksSettings.model_validate({"secrets": [SECRET]}))


def an_answerer(
    clock: Callable[[], datetime] = lambda: NOON,
    count_refused: Callable[[str], None] = lambda _provider: None,
) -> Answerer:
    """Return what answering calls needs, on the database that this process is connected to."""
    return Answerer(process.signing_key, clock, 6, count_refused, process.receipt_keys)


def a_desk(*providers: Provider, clock: Callable[[], datetime] = lambda: NOON) -> Desk:
    """Return a desk with these providers, or with cashplus alone."""
    known = {provider.name: provider for provider in providers or (a_provider(),)}
    return Desk(known, process.signing_key(), clock)


def a_delivery(
    body: bytes,
    *,
    provider: str = "cashplus",
    delivery_id: str | None = None,
    received_at: datetime = NOON,
) -> str:
    """Store a delivery as the intake does, committed; return its id."""
    delivery_id = delivery_id or f"msg_{next(_numbers)}"
    with transaction() as session:
        execute(
            session,
            "INSERT INTO webhook_delivery (provider, delivery_id, body, body_sha256, received_at)"
            " VALUES (:provider, :id, :body, :sha256, :at)",
            {
                "provider": provider,
                "id": delivery_id,
                "body": body,
                "sha256": hashlib.sha256(body).digest(),
                "at": received_at,
            },
        )
    return delivery_id


def at_once(*calls: Callable[[], _T]) -> list[_T]:
    """Run each call in a thread of its own, all started at one moment; return what they return."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], _T]) -> _T:
        barrier.wait(PATIENCE_SECONDS)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(run, call) for call in calls]
        return [future.result(PATIENCE_SECONDS) for future in futures]


# -- looking at the result ------------------------------------------------------------------------


@dataclass(frozen=True)
class Books:
    """All that must be equal where the same things happened, whatever else happened to them."""

    transfers: list[tuple[str, str, str, int, str | None]]
    """Name, debit, credit, centimes, the name of what it takes back; by name."""
    invoices: list[tuple[str, int, int, str]]
    """Reference, amount, paid, status."""
    payments: list[tuple[str, str, str, int, str | None]]
    """Provider, its id, status, centimes, reference of the invoice it went to."""
    exceptions: list[tuple[str, str]]
    """Code and subject of those that are open."""


def the_books() -> Books:
    """Return what is committed."""

    def rows(session: Session, query: str) -> list[Any]:
        return [tuple(row) for row in execute(session, query)]

    with snapshot() as session:
        return Books(
            transfers=rows(
                session,
                "SELECT t.name, d.code, c.code, t.amount_minor, r.name FROM ledger_transfer t"
                " JOIN ledger_account d ON d.id = t.debit_account_id"
                " JOIN ledger_account c ON c.id = t.credit_account_id"
                " LEFT JOIN ledger_transfer r ON r.id = t.reverses_id ORDER BY 1",
            ),
            invoices=rows(
                session,
                "SELECT reference, amount_minor, paid_minor, status FROM invoice ORDER BY 1",
            ),
            payments=rows(
                session,
                "SELECT provider, provider_payment_id, p.status, p.amount_minor, i.reference"
                " FROM payment p LEFT JOIN invoice i ON i.id = p.invoice_id ORDER BY 1, 2",
            ),
            exceptions=rows(
                session,
                "SELECT code, subject FROM coded_exception WHERE resolved_at IS NULL ORDER BY 1, 2",
            ),
        )


def balances() -> dict[str, int]:
    """Return what stands on each account that was used: debits less credits, in centimes."""
    with snapshot() as session:
        found = ledger.balances(session)
    return {b.code: b.net_minor for b in found if b.debit_minor or b.credit_minor}


def tell_of_note(session: Session, invoice_id: int, minor: int, kind: str = "adjustment") -> None:
    """Tell of a note on an invoice that a test wrote itself, as whoever writes one does."""
    data = {"amount": format_amount(minor), "kind": kind}
    told = Happening(EventType.INVOICE_ADJUSTED, data, invoice_id=invoice_id)
    tell(session, [told], now=NOON)


def seal() -> int:
    """Append the heads that the file lacks."""
    with transaction() as session:
        return ledger.seal(session, process.heads_file(), process.signing_key())


def broken_promises(*, deliveries: bool = False) -> list[Broken]:
    """Run the checks of the books as they are, and those of the inbox if asked to."""
    checks = books_checks(process.signing_key(), process.heads_file(), judges())
    checks += receipt_checks(process.receipt_keys().published())
    with snapshot() as session:
        return run_checks(session, [*checks, *(WEBHOOK_CHECKS if deliveries else ())])


def rows_of(database: str, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return what a query finds, over a connection of its own."""
    with psycopg.connect(database) as connection:
        return connection.execute(query.encode(), parameters).fetchall()


def as_owner(database: str, *statements: str) -> None:
    """Do what only the owner of the database can: change rows behind the back of the triggers."""
    tables = ("invoice", "payment", "ledger_transfer", "ledger_batch", "webhook_delivery")
    with psycopg.connect(database) as connection:
        for table in tables:
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
        for statement in statements:
            connection.execute(statement.encode())
        for table in tables:
            connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER".encode())
