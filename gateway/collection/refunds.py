"""Refunds that we begin: asked by one person, approved by another, then carried out.

What is asked, under way, given back and disputed never comes to more than the payment brought: it
is judged here, and by the database again, when a refund is asked for, when it is approved, and once
more before the provider is asked (gateway.collection.refund_sending). Until a provider has taken it
nothing moves in the books; from then on a refund is one return of the payment among others
(gateway.collection.returns). One by hand moves when finance says that it was paid out.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlmodel import Session

from gateway import outbox
from gateway.books.seals import BooksKey
from gateway.collection.payment_batch import lock_provider
from gateway.collection.payments import record_reports
from gateway.collection.refund_rows import (
    CARRY_OUT_TASK,
    GONE,
    RefundRow,
    Step,
    failed,
    keep_steps,
    read_refunds,
    room_minor,
    steps_of,
)
from gateway.collection.refund_stops import is_covered
from gateway.collection.reports import ReturnReport
from gateway.db import execute
from gateway.errors import Unusable
from gateway.events import tell
from gateway.exception_queue import (
    open_exceptions,
    opened_events,
    resolve_exceptions,
    resolved_events,
)
from gateway.models import EventType, ExceptionCode, RefundState, RefundWay, ReturnKind, ReturnState
from gateway.money import CURRENCY, format_amount
from gateway.reasons import kept_reason

BANK_REFERENCE_MAX: Final = 140
SAME_PERSON: Final = "Whoever asked for a refund cannot approve it: another person must."
_LINE: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")


class NoSuchRefund(Unusable):
    """There is no refund with this number."""


class NoSuchPayment(Unusable):
    """There is no payment with this number."""


class RefundRefused(Unusable):
    """The refund cannot be asked for, approved or marked as it was."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A refund with all that explains it."""

    row: RefundRow
    steps: list[dict[str, Any]]
    """State, who took it there, why and when: oldest first."""

    def as_json(self) -> dict[str, Any]:
        """Return it for programs: amounts as decimal strings, instants with their offset."""
        row = self.row
        return {
            "id": str(row.id),
            "payment_id": str(row.payment_id),
            "provider": row.provider,
            "provider_payment_id": row.provider_payment_id,
            "amount": format_amount(row.amount_minor),
            "currency": CURRENCY,
            "left": format_amount(row.left_minor),
            "way": row.way.value,
            "state": row.state.value,
            "asked_by": row.asked_by,
            "because": row.because,
            "asked_at": row.asked_at.isoformat(),
            "decided_by": row.decided_by,
            "decided_at": row.decided_at and row.decided_at.isoformat(),
            "return_id": row.return_id,
            "bank_reference": row.bank_reference,
            "ended_at": row.ended_at and row.ended_at.isoformat(),
            "steps": [
                {**step, "state": str(step["state"]), "taken_at": step["taken_at"].isoformat()}
                for step in self.steps
            ],
        }


def read_shown(session: Session, where: str, asked: Mapping[str, Any]) -> list[Shown]:
    """Return refunds that a WHERE selects, with what may follow it, and with their steps."""
    rows = read_refunds(session, where, asked)
    steps = steps_of(session, [row.id for row in rows])
    return [Shown(row, steps.get(row.id, [])) for row in rows]


def show(session: Session, refund_id: int) -> Shown:
    """Return one refund.

    Raises:
        NoSuchRefund: There is none with this number.
    """
    found = read_shown(session, "refund.id = :id", {"id": refund_id})
    if not found:
        raise NoSuchRefund(
            "There is no refund with this number: wasl refunds list --all shows them."
        )
    return found[0]


# -- asked, and decided ---------------------------------------------------------------------------


def ask(
    session: Session,
    payment_id: int,
    amount_minor: int | None,
    *,
    way: RefundWay | None,
    can_refund: Callable[[str], bool],
    who: str,
    why: str,
    now: datetime,
) -> Shown:
    """Ask that an amount of a payment be given back. The caller owns the transaction.

    Args:
        session: Whose transaction it is.
        payment_id: Of the payment: money on invoices, the payer's credit, or money in suspense,
            which are given back in the other order.
        amount_minor: Centimes; None: all that may still be given back of it.
        way: By its provider, or by hand; None: by its provider if that can.
        can_refund: Says whether a provider gives money back when asked (`providers.refunding`).
        who: `key ID` or `staff NAME`.
        why: The reason. No names.
        now: The business clock.

    Raises:
        NoSuchPayment: There is none with this number.
        RefundRefused: Less than that may still be given back, its provider cannot be asked, or the
            key does not say whose it is.
        Unusable: The reason cannot be kept.
    """
    because = kept_reason(why)
    _person(session, who)
    provider = execute(
        session, "SELECT provider FROM payment WHERE id = :id", {"id": payment_id}
    ).scalar_one_or_none()
    if provider is None:
        raise NoSuchPayment("There is no payment with this number.")
    able = can_refund(provider)
    if way is RefundWay.PROVIDER and not able:
        raise RefundRefused(f"{provider} gives nothing back when asked: refund it by hand.")
    way = way or (RefundWay.PROVIDER if able else RefundWay.BY_HAND)
    lock_provider(session, provider)
    room = room_minor(session, payment_id)
    wanted = room if amount_minor is None else amount_minor
    if not 0 < wanted <= room:
        raise RefundRefused(
            f"Of this payment {format_amount(room)} MAD may still be given back: what was not"
            " booked, or is given back, asked for or disputed already, is taken off."
        )
    made: int = execute(
        session,
        "INSERT INTO refund (token, payment_id, provider, amount_minor, way, asked_by, because,"
        " asked_at) VALUES (:token, :payment, :provider, :minor, :way, :who, :because, :now)"
        " RETURNING id",
        {
            "token": f"wasl_refund_{secrets.token_hex(12)}",
            "payment": payment_id,
            "provider": provider,
            "minor": wanted,
            "way": way.value,
            "who": who,
            "because": because,
            "now": now,
        },
    ).scalar_one()
    keep_steps(session, [Step(made, RefundState.ASKED, who, because)], now=now)
    shown = show(session, made)
    tell(session, [shown.row.told(EventType.REFUND_ASKED, RefundState.ASKED)], now=now)
    return shown


def approve(session: Session, refund_id: int, *, who: str, why: str, now: datetime) -> Shown:
    """Approve what somebody else asked for. The caller owns the transaction.

    From here the worker carries it out, or finance pays it.

    Raises:
        NoSuchRefund: There is none with this number.
        RefundRefused: It is decided already, `who` asked for it or is not shown to be another
            person (see `_person`), or the payment has not so much left: it was disputed or given
            back since. Refuse it then, and have what is left asked.
        Unusable: The reason cannot be kept.
    """
    because = kept_reason(why)
    row = _locked(session, refund_id)
    if row.state is not RefundState.ASKED:
        raise RefundRefused(f"The refund was decided already: its state is {row.state.value}.")
    if row.asked_by == who:
        raise RefundRefused(SAME_PERSON)
    if _person(session, row.asked_by) == _person(session, who):
        raise RefundRefused(
            f"{SAME_PERSON} {row.asked_by} and {who} bear one name: each person needs a key with a"
            " label of their own."
        )
    room = room_minor(session, row.payment_id, but=row.id)
    if row.amount_minor > room:
        raise RefundRefused(
            f"Only {format_amount(room)} of the payment is left since it was asked for: refuse it,"
            " and have that asked for."
        )
    execute(
        session,
        "UPDATE refund SET state = 'approved', decided_by = :who, decided_at = :now,"
        " act_at = CASE WHEN way = 'provider' THEN clock_timestamp() END WHERE id = :id",
        {"id": row.id, "who": who, "now": now},
    )
    if row.way is RefundWay.PROVIDER:
        outbox.enqueue(session, CARRY_OUT_TASK, now=now)
    return _decided(session, row, RefundState.APPROVED, who, because, now)


def _person(session: Session, who: str) -> str:
    """Return whose name stands behind `key ID` or `staff NAME`, so that two can be told apart.

    Of a key that is its label: one person may hold several keys, and a staff name besides.

    Raises:
        RefundRefused: The key bears no label.
    """
    kind, _, name = who.partition(" ")
    if kind == "key":
        query = "SELECT label FROM api_key WHERE id = :id"
        name = execute(session, query, {"id": name}).scalar_one_or_none() or ""
    person = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold()))
    if not person:
        raise RefundRefused(
            "This refund is asked for or decided with a key that has no label, so nobody can tell"
            " whose it is: make keys with a label, one a person (wasl keys create --label NAME)."
        )
    return person


def refuse(session: Session, refund_id: int, *, who: str, why: str, now: datetime) -> Shown:
    """Say no to a refund, or withdraw it, before anything is done. The caller owns the transaction.

    Raises:
        NoSuchRefund: There is none with this number.
        RefundRefused: It has ended, or its provider was asked already.
        Unusable: The reason cannot be kept.
    """
    because = kept_reason(why)
    row = _locked(session, refund_id)
    if row.state not in {RefundState.ASKED, RefundState.APPROVED}:
        raise RefundRefused(f"The refund has ended or is made: its state is {row.state.value}.")
    if row.tries:
        raise RefundRefused("Its provider was asked for it already: it may be made.")
    execute(
        session,
        "UPDATE refund SET state = 'refused', decided_by = :who, decided_at = :now,"
        " ended_at = :now, act_at = NULL WHERE id = :id",
        {"id": row.id, "who": who, "now": now},
    )
    return _decided(session, row, RefundState.REFUSED, who, because, now)


def _decided(
    session: Session, row: RefundRow, state: RefundState, who: str, because: str, now: datetime
) -> Shown:
    keep_steps(session, [Step(row.id, state, who, because)], now=now)
    tell(session, [row.told(EventType.REFUND_DECIDED, state)], now=now)
    return show(session, row.id)


# -- paid by hand ---------------------------------------------------------------------------------


def paid_out(
    session: Session,
    refund_id: int,
    *,
    who: str,
    bank_reference: str,
    transferred_already: bool = False,
    key: BooksKey,
    now: datetime,
) -> Shown:
    """Say that finance has paid a refund out, and book it. The caller owns the transaction.

    One that was stopped, since the payment does not cover it any more, is refused: no transfer is
    to be made. If the transfer had left the bank by then, that is a fact, and booked when it is
    said to be one: what is then given back beyond what came in is `over_returned`; of a payment
    that was reversed it is a claim in suspense.

    Args:
        session: Whose transaction it is.
        refund_id: Its number.
        who: `key ID` or `staff NAME`.
        bank_reference: What the bank calls the transfer.
        transferred_already: The transfer had left before the refund was stopped.
        key: Signs the books.
        now: The business clock.

    Raises:
        NoSuchRefund: There is none with this number.
        RefundRefused: It is not one by hand that is approved, or it was stopped.
        Unusable: The bank's reference cannot be kept.
    """
    reference = bank_reference.strip()
    if len(reference) > BANK_REFERENCE_MAX or not _LINE.fullmatch(reference):
        raise Unusable(f"A bank's reference is a line of at most {BANK_REFERENCE_MAX} characters.")
    row = _locked(session, refund_id)
    if row.way is not RefundWay.BY_HAND:
        raise RefundRefused("This refund is made by its provider: nobody pays it out by hand.")
    if row.state not in {RefundState.APPROVED, RefundState.DROPPED}:
        raise RefundRefused(f"The refund is {row.state.value}: only approved ones are paid out.")
    stopped = row.state is RefundState.DROPPED or not is_covered(session, row)
    if stopped and not transferred_already:
        raise RefundRefused(
            f"The refund was stopped, so do not transfer it: {GONE[0].lower()}{GONE[1:]}. If the"
            " transfer had left the bank by then, say so (--transferred-already, or"
            " `transferred_already` over /v1): it is booked then."
        )
    execute(
        session,
        "UPDATE refund SET state = 'done', return_id = token, bank_reference = :reference,"
        " ended_at = :now WHERE id = :id",
        {"id": row.id, "reference": reference, "now": now},
    )
    return _by_hand(session, row, ReturnState.GIVEN, who, f"Paid out: {reference}", key, now)


def bounced(
    session: Session, refund_id: int, *, who: str, why: str, key: BooksKey, now: datetime
) -> Shown:
    """Say that what was paid out by hand came back, and book it. The caller owns the transaction.

    Raises:
        NoSuchRefund: There is none with this number.
        RefundRefused: It is not one by hand that was paid out.
        Unusable: The reason cannot be kept.
    """
    because = kept_reason(why)
    row = _locked(session, refund_id)
    if row.way is not RefundWay.BY_HAND or row.state is not RefundState.DONE:
        raise RefundRefused(
            "Only a refund that was paid out by hand can bounce; this one is"
            f" {'by hand' if row.way is RefundWay.BY_HAND else 'by its provider'}, and"
            f" {row.state.value}."
        )
    execute(
        session,
        "UPDATE refund SET state = 'failed', ended_at = :now WHERE id = :id",
        {"id": row.id, "now": now},
    )
    return _by_hand(session, row, ReturnState.RESTORED, who, because, key, now)


def _by_hand(
    session: Session,
    row: RefundRow,
    returned: ReturnState,
    who: str,
    because: str,
    key: BooksKey,
    now: datetime,
) -> Shown:
    """Book what finance says of a refund by hand, and write down who said so."""
    given = returned is ReturnState.GIVEN
    state = RefundState.DONE if given else RefundState.FAILED
    keep_steps(session, [Step(row.id, state, who, because)], now=now)
    opened, closed = [], []
    if given:
        subjects, why = [row.subject], "it was paid out before it was stopped"
        code = ExceptionCode.REFUND_FAILED
        closed = resolve_exceptions(session, code, subjects, because=why, now=now)
    else:
        opened = open_exceptions(session, [failed(row, because)], now=now)
    report = ReturnReport(
        provider=row.provider,
        provider_payment_id=row.provider_payment_id,
        return_id=row.token,
        kind=ReturnKind.BY_HAND,
        state=returned,
        amount_minor=row.amount_minor,
        currency=CURRENCY,
        made_at=now,
        stated_at=now,
        received_at=now,
        source=f"refund:{row.id}",
    )
    record_reports(session, [report], key=key, now=now)
    asked = [*opened_events(opened), *resolved_events(closed)]
    tell(session, [*asked, row.told(EventType.REFUND_ENDED, state)], now=now)
    return show(session, row.id)


def _locked(session: Session, refund_id: int) -> RefundRow:
    """Lock a refund's provider, its payment and the refund; return it.

    Raises:
        NoSuchRefund: There is none with this number.
    """
    lock_provider(session, show(session, refund_id).row.provider)
    execute(
        session,
        "SELECT FROM payment WHERE id = (SELECT payment_id FROM refund WHERE id = :id)"
        " FOR NO KEY UPDATE",
        {"id": refund_id},
    )
    return read_refunds(session, "refund.id = :id FOR UPDATE OF refund", {"id": refund_id})[0]
