"""Refunds of ours as they are kept: reading them, their steps, and what a provider's word does.

Every change of a refund is made by whoever holds the lock on its provider
(gateway.collection.payment_batch), so that none waits for another in a ring.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session

from gateway.collection.reports import ReturnReport
from gateway.db import execute, insert_all
from gateway.events import Happening
from gateway.exception_queue import Finding
from gateway.models import (
    EventType,
    ExceptionCode,
    RefundState,
    RefundStep,
    RefundWay,
    ReturnState,
)
from gateway.money import format_amount
from gateway.packing import bigints, texts

CARRY_OUT_TASK: Final = "gateway.carry_out_refunds"
ASK_SENT_SECONDS: Final = 300
"""When we first ask about a refund that is on its way; its webhook mostly comes first."""

ENDED: Final = frozenset(
    {RefundState.REFUSED, RefundState.DROPPED, RefundState.DONE, RefundState.FAILED}
)
PROVIDER: Final = "provider"
"""Who took a step that the provider's word decided."""
WORKER: Final = "worker"
GONE: Final = "The payment was disputed, given back or reversed since the approval"
"""Why a refund that was approved is stopped before anything is sent."""


@dataclass(frozen=True, slots=True)
class RefundRow:
    """A refund as it stands. Amounts in centimes."""

    id: int
    token: str
    payment_id: int
    provider: str
    provider_payment_id: str
    amount_minor: int
    way: RefundWay
    state: RefundState
    asked_by: str
    because: str
    asked_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    return_id: str | None
    bank_reference: str | None
    tries: int
    ended_at: datetime | None
    left_minor: int
    """What of the payment is neither given back nor disputed now."""

    @property
    def subject(self) -> str:
        """What an exception about it is about."""
        return f"refund:{self.id}"

    def told(self, what: EventType, state: RefundState) -> Happening:
        """Return what is told of its coming to a state."""
        data = {
            "refund": str(self.id),
            "provider": self.provider,
            "provider_payment_id": self.provider_payment_id,
            "amount": format_amount(self.amount_minor),
            "way": self.way.value,
            "state": state.value,
        }
        return Happening(what, data, payment_id=self.payment_id)


@dataclass(frozen=True, slots=True)
class Step:
    """Who took a refund to a state, and why: a row to be kept."""

    refund_id: int
    state: RefundState
    taken_by: str
    because: str


REFUNDS: Final = """
    SELECT refund.id, token, refund.payment_id, refund.provider, p.provider_payment_id,
        refund.amount_minor, way, refund.state, asked_by, because, asked_at, decided_by, decided_at,
        return_id, bank_reference, tries, ended_at,
        CASE WHEN p.status = 'booked' THEN greatest(p.amount_minor - p.returned_minor - (
            SELECT coalesce(sum(s.amount_minor), 0) FROM payment_return s
            WHERE s.provider = p.provider AND s.provider_payment_id = p.provider_payment_id
                AND s.kind = 'dispute' AND s.state = 'announced' AND s.outcome IS NULL
        ), 0)::bigint ELSE 0 END AS left_minor
    FROM refund JOIN payment p ON p.id = refund.payment_id
"""


def read_refunds(session: Session, where: str, asked: Mapping[str, Any]) -> list[RefundRow]:
    """Return the refunds that a WHERE selects, with what may follow it."""
    rows = execute(session, f"{REFUNDS} WHERE {where}", asked).mappings()
    return [refund_of(row) for row in rows]


def refund_of(row: Mapping[str, Any] | sa.RowMapping) -> RefundRow:
    """Return what a row of `REFUNDS` says."""
    state, way = RefundState(row["state"]), RefundWay(row["way"])
    return RefundRow(**{**row, "state": state, "way": way})


def keep_steps(session: Session, steps: Iterable[Step], *, now: datetime) -> None:
    """Write down who took refunds to which states. The caller owns the transaction."""
    rows = [
        {
            "refund_id": each.refund_id,
            "state": each.state.value,
            "taken_by": each.taken_by,
            "because": each.because,
            "taken_at": now,
        }
        for each in steps
    ]
    if rows:
        insert_all(session, RefundStep, rows)


def room_minor(session: Session, payment_id: int, *, but: int | None = None) -> int:
    """Return how much of a payment may still be given back, in centimes, and lock its row.

    That is what it brought, less what was given back, is asked or approved, or is disputed; 0 of
    one that is not booked. `but` is a refund that is left out: the one that is judged.
    """
    room: int = execute(
        session, "SELECT wasl_refund_room(:payment, :but)", {"payment": payment_id, "but": but}
    ).scalar_one()
    return room


# -- what a provider says of them -----------------------------------------------------------------


@dataclass(slots=True)
class Heard:
    """What becomes of refunds of ours by what was heard, for exceptions and the feed."""

    findings: list[Finding] = field(default_factory=list)
    resolved: list[tuple[ExceptionCode, str, str]] = field(default_factory=list)
    told: list[Happening] = field(default_factory=list)

    def add(self, other: Heard) -> None:
        """Take in what follows besides."""
        self.findings += other.findings
        self.resolved += other.resolved
        self.told += other.told


_WHY: Final = {
    RefundState.SENT: "The provider has made it",
    RefundState.DONE: "The provider says that it arrived",
    RefundState.FAILED: "The provider says that it came back",
}


def next_state(stands: RefundState, returned: ReturnState, *, arrived: bool) -> RefundState | None:
    """Return what a refund comes to by what its provider has made of it; None: it stays. Pure.

    Args:
        stands: As it is.
        returned: Where the money is, by the latest word of the provider.
        arrived: Whether the provider says that it is with the payer's bank.
    """
    match returned:
        case ReturnState.RESTORED:
            reached = RefundState.FAILED
        case ReturnState.GIVEN if arrived:
            reached = RefundState.DONE
        case ReturnState.GIVEN if stands is not RefundState.DONE:
            reached = RefundState.SENT
        case _:
            return None
    return None if reached is stands else reached


def hear_refunds(
    session: Session, said: Sequence[tuple[ReturnReport, ReturnState]], *, now: datetime
) -> Heard:
    """Bring refunds of ours to what providers say of them; return what follows.

    Of refunds that somebody made at the provider itself we have no row, and nothing follows here.
    One that names itself by our token is ours if payment and amount are those that were asked, and
    if no other was made for it: a person must know of any other. The caller owns the transaction,
    and holds the lock on the providers.

    Args:
        session: Whose transaction it is.
        said: Reports of refunds, each with the latest that is known of where its money is.
        now: The business clock.
    """
    found = read_refunds(
        session,
        "way = 'provider' AND ((refund.provider, return_id) IN (SELECT * FROM unnest("
        "CAST(:providers AS text[]), CAST(:ids AS text[]))) OR token = ANY(:tokens)) FOR UPDATE"
        " OF refund",
        {
            "providers": texts(report.provider for report, _ in said),
            "ids": texts(report.return_id for report, _ in said),
            "tokens": [report.asked_as for report, _ in said if report.asked_as],
        },
    )
    by_id = {(each.provider, each.return_id): each for each in found if each.return_id}
    by_token = {each.token: each for each in found}
    heard, steps, states = Heard(), [], {each.id: each.state for each in found}
    named = {each.id: each.return_id for each in found}
    for report, returned in said:
        row = by_id.get((report.provider, report.return_id))
        if row is None:
            row = by_token.get(report.asked_as or "")
            if row is None:
                continue
            made_as = named[row.id]
            if made_as not in {None, report.return_id} or not _is_it(row, report):
                heard.findings.append(_another(row, report, made_as))
                continue
        named[row.id] = report.return_id
        reached = next_state(states[row.id], returned, arrived=report.arrived)
        if reached is None:
            continue
        _reach(session, row, reached, report.return_id, now)
        steps.append(Step(row.id, reached, PROVIDER, _WHY[reached]))
        _tell(heard, row, reached, states[row.id])
        states[row.id] = reached
    keep_steps(session, steps, now=now)
    return heard


def _is_it(row: RefundRow, report: ReturnReport) -> bool:
    wanted = (row.provider, row.provider_payment_id, row.amount_minor)
    return wanted == (*report.key, report.amount_minor)


def _another(row: RefundRow, report: ReturnReport, made_as: str | None) -> Finding:
    """Return what a person must know of a refund that bears our token and is not the one asked for.

    What it gave back is in the books as any other refund: the provider says that it made it.
    """
    detail = {
        "differs": ["return" if made_as not in {None, report.return_id} else "amount"],
        "refund": str(row.id),
        "return": report.return_id,
        "stands": made_as or format_amount(row.amount_minor),
        "amount": format_amount(report.amount_minor),
        "source": report.source,
    }
    return Finding(ExceptionCode.CONFLICTING_PAYMENT, row.subject, detail, row.payment_id)


def _reach(
    session: Session, row: RefundRow, state: RefundState, return_id: str, now: datetime
) -> None:
    execute(
        session,
        "UPDATE refund SET state = :state, return_id = coalesce(return_id, :return_id),"
        " ended_at = :ended, act_at = CASE WHEN CAST(:on_its_way AS boolean)"
        " THEN clock_timestamp() + make_interval(secs => :soon) END WHERE id = :id",
        {
            "id": row.id,
            "state": state.value,
            "return_id": return_id,
            "ended": now if state in ENDED else None,
            "on_its_way": state is RefundState.SENT,
            "soon": ASK_SENT_SECONDS,
        },
    )


def _tell(heard: Heard, row: RefundRow, reached: RefundState, before: RefundState) -> None:
    if reached is RefundState.FAILED:
        heard.findings.append(failed(row, _WHY[reached]))
    elif before in {RefundState.FAILED, RefundState.DROPPED}:
        because = "the provider has made it after all"
        heard.resolved.append((ExceptionCode.REFUND_FAILED, row.subject, because))
    if reached in ENDED:
        heard.told.append(row.told(EventType.REFUND_ENDED, reached))


def failed(row: RefundRow, because: str) -> Finding:
    """Return what a person must decide about a refund that the payer did not get."""
    detail = {"amount": format_amount(row.amount_minor), "why": because}
    return Finding(ExceptionCode.REFUND_FAILED, row.subject, detail, row.payment_id)


def steps_of(session: Session, refund_ids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Return who took refunds to which states, when and why, oldest first, by refund."""
    rows = execute(
        session,
        "SELECT refund_id, state, taken_by, because, taken_at FROM refund_step"
        " WHERE refund_id = ANY(:ids) ORDER BY id",
        {"ids": bigints(list(refund_ids))},
    ).mappings()
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        step = dict(row)
        found.setdefault(step.pop("refund_id"), []).append(step)
    return found
