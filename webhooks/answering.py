"""Answer calls whose sender waits: decide, book, keep call and answer, in one transaction.

Whatever breaks off before the commit leaves nothing, and the sender tries again; whatever is sent
again after it gets the answer that was kept. A delivery that differs from the first under its id is
kept beside it, and the inbox says what follows (webhooks.inbox).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

import structlog
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from gateway.books.seals import BooksKey
from gateway.clock import Clock
from gateway.collection.attempt_rows import DECLINED
from gateway.collection.inquiries import heed
from gateway.collection.payment_batch import lock_provider
from gateway.collection.payments import record_reports
from gateway.collection.refund_rows import room_minor
from gateway.collection.reports import PaymentReport, Refusal, Report, Terms, Unbookable
from gateway.db import execute, snapshot, transaction
from gateway.models import ExceptionCode, PaymentStatus
from gateway.providers.calls import (
    AnsweringProvider,
    AnswerNow,
    Call,
    CallingBackProvider,
    Heed,
    Heeded,
    Recall,
    Recalled,
    Reply,
    ShowBills,
    ShowPayments,
    Taken,
    TakePayment,
    Trace,
    Traced,
    Verdict,
)
from gateway.receipt_keys import ReceiptKeys
from gateway.receipts import issue_at_once
from webhooks import failing
from webhooks.callbacks import owe
from webhooks.showing import bills, payment, payments

TRIES_MAX: Final = 3
"""Of one call: who books beside us may have to be let by first."""

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answerer:
    """What answering calls needs, put together once by the process that serves."""

    key: Callable[[], BooksKey]
    """Of the books; asked for when first needed, since calls that only look do without."""
    clock: Clock
    validity_months: int
    """How long after its due day a reference can be paid by."""
    count_refused: Callable[[str], None]
    """Told of each call that was not authentic, by the provider's name."""
    receipt_keys: Callable[[], ReceiptKeys] | None = None
    """What signs the receipts of those who want them at once; None: they come later."""


def answer(answerer: Answerer, provider: AnsweringProvider, call: Call) -> Reply:
    """Return what the sender of a call is told. Opens its own transactions.

    Raises nothing for what a stranger can send. While the database is away, or where this code is
    at fault, the sender is told to come again (`say_trouble`), and nothing is kept.
    """
    want = provider.read(call)
    try:
        match want:
            case AnswerNow(reply, refused):
                if refused:
                    answerer.count_refused(provider.name)
                return reply
            case ShowBills():
                now, months = answerer.clock(), answerer.validity_months
                shown = _again(lambda: bills(want, now=now, validity_months=months))
                return provider.say(want, shown)
            case ShowPayments():
                return provider.say(want, _again(lambda: payments(provider.name, want)))
            case Recall():
                return provider.say(want, _again(lambda: _recall(provider.name, want)))
            case Trace():
                return provider.say(want, _again(lambda: _trace(provider.name, want)))
            case Heed():
                return _again(lambda: _heed(answerer, provider, want, call))
            case TakePayment():
                return _again(lambda: _take(answerer, provider, want, call))
    except DBAPIError as error:
        # No more of it: further down a database quotes what it was given.
        log.error("call_unanswered", provider=provider.name, reason=failing.said(error))
    except Exception as error:
        log.error("call_unanswered", provider=provider.name, exc_info=error)
    return provider.say_trouble()


def _again(work: Callable[[], _T]) -> _T:
    """Do some work, again where another transaction had to be let by."""
    for left in reversed(range(TRIES_MAX)):
        try:
            return work()
        except DBAPIError as error:
            if left == 0 or getattr(error.orig, "sqlstate", None) not in {"40P01", "40001"}:
                raise
    raise AssertionError("the last try returns or raises")


# -- payments -------------------------------------------------------------------------------------


def _take(answerer: Answerer, provider: AnsweringProvider, want: TakePayment, call: Call) -> Reply:
    now = answerer.clock()
    with transaction() as session:
        # The provider first, as in every transaction that books: see payment_batch.
        lock_provider(session, provider.name)
        delivery, known = _keep(session, provider.name, want, call, now)
        if delivery is None:
            return provider.say_again(known, same=_note_variant(session, provider, want, call))
        outcome = _decided(session, provider.name, want, answerer, now)
        execute(
            session,
            "UPDATE webhook_delivery SET outcome = :outcome, processed_at = :now WHERE id = :id",
            {"outcome": outcome, "now": now, "id": delivery},
        )
        if want.wants_receipt and answerer.receipt_keys is not None and outcome == "booked":
            key = want.report.key
            assert key is not None, "what was booked has a name"
            issue_at_once(session, answerer.receipt_keys(), *key, now=now)
        taken = _taken(session, provider.name, want, outcome)
        reply = provider.say(want, taken)
        _keep_answer(session, delivery, taken.ticket, reply, now)
        if want.callback_url is not None:
            assert isinstance(provider, CallingBackProvider), "it read where to call back"
            callback = provider.say_later(want, taken, now=now)
            owe(session, provider.name, delivery, want.callback_url, callback, now=now)
        return reply


def _keep(
    session: Session, provider: str, want: TakePayment, call: Call, now: datetime
) -> tuple[int | None, Reply]:
    """Keep a delivery; return its key, or None and what was answered to the first of its id."""
    stored = execute(
        session,
        "INSERT INTO webhook_delivery (provider, delivery_id, body, body_sha256, received_at, path,"
        " state, outcome) VALUES (:provider, :delivery_id, :body, :sha256, :at, :path, 'done', '')"
        " ON CONFLICT (provider, delivery_id) DO NOTHING RETURNING id",
        {
            "provider": provider,
            "delivery_id": want.delivery_id,
            "body": call.body,
            "sha256": hashlib.sha256(call.body).digest(),
            "at": now,
            "path": _path(want, call),
        },
    ).scalar_one_or_none()
    if stored is not None:
        return int(stored), Reply(500, b"")
    first = _answered(
        session, "d.provider = :provider AND d.delivery_id = :named", provider, want.delivery_id
    )
    assert first.reply is not None, "a delivery of a sender who waits was kept without its answer"
    return None, first.reply


def _path(want: TakePayment, call: Call) -> str:
    return call.path if want.path is None else want.path


def _note_variant(
    session: Session, provider: AnsweringProvider, want: TakePayment, call: Call
) -> bool:
    """Keep a body that differs from the first under its id; return whether it says the same."""
    first = execute(
        session,
        "SELECT body, path, body_sha256 FROM webhook_delivery"
        " WHERE provider = :provider AND delivery_id = :named",
        {"provider": provider.name, "named": want.delivery_id},
    ).one()
    sha256, path = hashlib.sha256(call.body).digest(), first.path or ""
    if bytes(first.body_sha256) == sha256 and path == _path(want, call):
        return True
    execute(
        session,
        "INSERT INTO webhook_variant (provider, delivery_id, body, body_sha256, readable,"
        " received_at, path) VALUES (:provider, :named, :body, :sha256, true, :at, :path)"
        " ON CONFLICT (provider, delivery_id, body_sha256) DO NOTHING",
        {
            "provider": provider.name,
            "named": want.delivery_id,
            "body": call.body,
            "sha256": sha256,
            "at": call.received_at,
            "path": _path(want, call),
        },
    )
    # Some write a new nonce or time whenever they send again: what counts is the money.
    said = provider.parse(
        bytes(first.body), delivery_id=want.delivery_id, received_at=call.received_at, path=path
    )
    return _money(said) == _money(want.report)


def _money(report: Report) -> object:
    if not isinstance(report, PaymentReport):
        return report
    return (
        *(report.key, report.statement, report.reference_given),
        *(report.amount_minor, report.currency),
    )


def _decided(
    session: Session, provider: str, want: TakePayment, answerer: Answerer, now: datetime
) -> str:
    report = want.report
    if want.refusal is not None and want.declinable:
        return f"declined_{want.refusal}"
    if isinstance(report, Unbookable) and want.declinable:
        return f"declined_{report.code}"
    if want.takes_back_within is not None and isinstance(report, PaymentReport):
        why = _not_taken_back(session, report, want.takes_back_within, now)
        if why is not None:
            return f"declined_{why}"
    page = None
    if isinstance(report, PaymentReport) and want.page_id and report.terms is Terms.ALL_DUE:
        page = _page(session, provider, want.page_id)
    if page is not None:
        assert isinstance(report, PaymentReport)
        if page.is_used or page.paid_by not in {None, report.provider_payment_id}:
            # A page takes one payment, even where that one was given back since, or declined.
            return f"declined_{Refusal.NOTHING_DUE}"
        if report.amount_minor != page.amount_minor:
            more = report.amount_minor > page.amount_minor
            return f"declined_{Refusal.MORE_THAN_DUE if more else Refusal.LESS_THAN_DUE}"
        # What is due may have grown by a month since: what the page asked for is welcome.
        report = replace(report, terms=Terms.UP_TO_DUE, attempt_id=page.attempt_id)
    outcome = record_reports(session, [report], key=answerer.key(), now=now)[0]
    if page is not None and outcome.startswith("declined_"):
        _end_page(session, page.attempt_id)
    return outcome


def _not_taken_back(
    session: Session, report: PaymentReport, within: timedelta, now: datetime
) -> Refusal | None:
    """Say why a sender may not take a payment back by himself, or None."""
    stands = execute(
        session,
        "SELECT id, booked_at, amount_minor FROM payment WHERE provider = :provider"
        " AND provider_payment_id = :named AND status = 'booked'",
        {"provider": report.provider, "named": report.provider_payment_id},
    ).one_or_none()
    if stands is None:
        return None
    if now > stands.booked_at + within:
        return Refusal.TOO_LATE
    # What is refunded, is about to be, or is disputed must not go back a second time.
    return Refusal.GIVEN_BACK if room_minor(session, stands.id) < stands.amount_minor else None


@dataclass(frozen=True, slots=True)
class _Page:
    """A page of ours that a payment may come from."""

    attempt_id: str
    amount_minor: int
    paid_by: str | None
    """The payment that came by it."""
    is_used: bool
    """Whether what was paid by it was declined."""


def _page(session: Session, provider: str, page_id: str) -> _Page | None:
    row = execute(
        session,
        "SELECT id, amount_minor, provider_payment_id,"
        " coalesce(closed_because = :declined, false) FROM payment_attempt"
        " WHERE provider = :provider AND session_id = :page",
        {"provider": provider, "page": page_id, "declined": DECLINED},
    ).one_or_none()
    return None if row is None else _Page(*row)


def _end_page(session: Session, attempt_id: str) -> None:
    """Have a page take nothing any more whose payment was declined as not due.

    The payer may hold the bank's signed acceptance of it, and the signature covers no names: later,
    when more is due, he could show it as another payment, which nobody would capture.
    """
    execute(
        session,
        "UPDATE payment_attempt SET state = 'closed', closed_because = :declined, ask_at = NULL"
        " WHERE id = :id AND state <> 'paid'",
        {"id": attempt_id, "declined": DECLINED},
    )


_VERDICTS: Final = {
    "booked": Verdict.BOOKED,
    "conflicting": Verdict.CONFLICTING,
    "quarantined": Verdict.QUARANTINED,
}


def _taken(session: Session, provider: str, want: TakePayment, outcome: str) -> Taken:
    report = want.report
    ticket = secrets.token_hex(16)
    ticket = "-".join((ticket[:8], ticket[8:12], ticket[12:16], ticket[16:20], ticket[20:]))
    named = report.provider_payment_id
    known = payment(session, provider, named) if named else None
    if outcome.startswith("declined_"):
        why = outcome.removeprefix("declined_")
        refusal = Refusal(why) if why in set(Refusal) else None
        return Taken(Verdict.DECLINED, ticket, refusal, known)
    verdict = _VERDICTS.get(outcome, Verdict.NOTED)
    if verdict is Verdict.NOTED and known is not None:
        # Said again under another delivery id: what stands is what counts.
        booked = known.status is PaymentStatus.BOOKED
        verdict = Verdict.BOOKED if booked else Verdict.NOTED
    asked: tuple[ExceptionCode, ...] = ()
    if not want.declinable and named is not None:
        about = f"payment:{provider}/{named}"
        asked = tuple(map(ExceptionCode, execute(session, _ASKED, {"about": about}).scalars()))
    return Taken(verdict, ticket, None, known, asked)


_ASKED: Final = (
    "SELECT code FROM coded_exception WHERE subject = :about AND resolved_at IS NULL ORDER BY id"
)


def _keep_answer(session: Session, delivery: int, ticket: str, reply: Reply, now: datetime) -> None:
    execute(
        session,
        "INSERT INTO webhook_answer (delivery_pk, ticket, status, media_type, body, answered_at)"
        " VALUES (:delivery, :ticket, :status, :media_type, :body, :now)",
        {
            "delivery": delivery,
            "ticket": ticket,
            "status": reply.status,
            "media_type": reply.media_type,
            "body": reply.body,
            "now": now,
        },
    )


def _recall(provider: str, want: Recall) -> Recalled:
    with snapshot() as session:
        if want.ticket:
            return _answered(
                session, "d.provider = :provider AND a.ticket = :named", provider, want.ticket
            )
        by_id = "d.provider = :provider AND d.delivery_id = :named"
        return _answered(session, by_id, provider, want.delivery_id)


def _trace(provider: str, want: Trace) -> Traced:
    with snapshot() as session:
        rows = execute(
            session,
            "SELECT d.delivery_id, a.status, a.body, a.media_type FROM webhook_delivery d"
            " JOIN webhook_answer a ON a.delivery_pk = d.id"
            " WHERE d.provider = :provider AND d.delivery_id = ANY(:named)",
            {"provider": provider, "named": list(want.delivery_ids)},
        )
        answers = {row[0]: Reply(row[1], bytes(row[2]), row[3]) for row in rows}
        return Traced(payment(session, provider, want.provider_payment_id), answers)


def _answered(session: Session, where: str, provider: str, named: str) -> Recalled:
    row = execute(
        session,
        "SELECT a.status, a.body, a.media_type, c.body, d.path FROM webhook_answer a"
        " JOIN webhook_delivery d ON d.id = a.delivery_pk"
        " LEFT JOIN provider_callback c ON c.delivery_pk = d.id"
        f" WHERE d.provider = :provider AND {where}",
        {"provider": provider, "named": named},
    ).one_or_none()
    if row is None:
        return Recalled(None)
    status, body, media_type, later, path = row
    said = Reply(status, bytes(body), media_type)
    return Recalled(said, None if later is None else bytes(later), path or "")


# -- hints ----------------------------------------------------------------------------------------


def _heed(answerer: Answerer, provider: AnsweringProvider, want: Heed, call: Call) -> Reply:
    """Have us ask about the attempt that a hint is about, at once; it proves nothing by itself.

    Nor is any of it needed again, and operators put the payer's number into it: what is kept is
    that it came, as what is personal in it was taken out, and the hash of what came.
    """
    now = answerer.clock()
    with transaction() as session:
        known = heed(session, provider.name, want.token)
        if known:
            execute(
                session,
                "INSERT INTO webhook_delivery (provider, delivery_id, body, body_sha256,"
                " received_at, path, state, outcome, processed_at, masked_at) VALUES (:provider,"
                " :named, :body, :sha256, :now, :path, 'done', 'heeded', :now, :now)"
                " ON CONFLICT (provider, delivery_id) DO NOTHING",
                {
                    "provider": provider.name,
                    "named": want.delivery_id,
                    "body": b"{}",
                    "sha256": hashlib.sha256(call.body).digest(),
                    "now": now,
                    "path": call.path,
                },
            )
    if not known:
        answerer.count_refused(provider.name)
    return provider.say(want, Heeded(known))
