"""What a provider sends for a case: the deliveries in order, and what each must lead to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from gateway.simulators.clock import INSTITUTION_ZONE
from gateway.simulators.dealing import Behaviour, Case
from gateway.simulators.faults import Fate
from gateway.simulators.journal import Line
from gateway.simulators.notices import dirhams

LATE_DAYS_MAX: Final = 20
FUTURE_DAYS: Final = 3

_BAD_AMOUNTS: Final = ("163.525", "-5.00", "0.00", "163,52")
_NOTES: Final = (
    "أداء اشتراك التأمين الإجباري عن المرض",
    "Cotisation AMO, réglée en espèces",
    "واجب شهر نونبر — شكرا",
    "Payé pour ma mère",
)


class Attack(StrEnum):
    """What is wrong with a delivery that must be refused and leave nothing."""

    TAMPERED = "tampered"
    OTHER_KEY = "other_key"
    STALE = "stale"
    AHEAD = "ahead"
    UNSIGNED = "unsigned"


@dataclass(frozen=True, slots=True)
class Step:
    """One delivery. All that is needed to send it again, and to judge what became of it."""

    key: str
    """`case.number`: its name in the journal."""
    behaviour: str
    """The case's, or what of its fate goes wrong with it (`double+reorder`)."""
    delivery_id: str
    body: bytes
    reference: str
    paid_at: str
    planned_at: str
    """The instant from which the case's times were reckoned."""
    refused: bool
    """Whether the answer must be 400; else it must be 2xx."""
    attack: Attack | None
    payment_id: str | None
    booked_minor: int | None
    """Net centimes the books must show for the payment once this was answered."""
    planted: str | None
    """The code of the exception that this delivery must open."""

    def as_line(self) -> Line:
        """Return the journal's line; bytes that are not UTF-8 travel as lone surrogates."""
        return {
            "line": "send",
            "step": self.key,
            "behaviour": self.behaviour,
            "delivery_id": self.delivery_id,
            "body": self.body.decode("utf-8", "surrogateescape"),
            "reference": self.reference,
            "paid_at": self.paid_at,
            "planned_at": self.planned_at,
            "refused": self.refused,
            "attack": self.attack,
            "payment_id": self.payment_id,
            "booked_minor": self.booked_minor,
            "planted": self.planted,
        }

    @classmethod
    def of_line(cls, line: Line) -> Self:
        """Return the step that `as_line` wrote."""
        return cls(
            key=line["step"],
            behaviour=line["behaviour"],
            delivery_id=line["delivery_id"],
            body=line["body"].encode("utf-8", "surrogateescape"),
            reference=line["reference"],
            paid_at=line["paid_at"],
            planned_at=line["planned_at"],
            refused=line["refused"],
            attack=Attack(line["attack"]) if line["attack"] else None,
            payment_id=line["payment_id"],
            booked_minor=line["booked_minor"],
            planted=line["planted"],
        )


NOTHING_WRONG: Final = Fate()


def plan(case: Case, *, planned_at: datetime, fate: Fate = NOTHING_WRONG) -> list[Step]:
    """Return the deliveries of a case in the order they must be sent and answered.

    The same case, instant and fate give the same bytes. `planned_at` is the business clock's. Only
    what would be paid plainly has a fate; the other behaviours are stories of their own.
    """
    told = _Telling(case, planned_at)
    if case.behaviour is Behaviour.PLAIN and fate != NOTHING_WRONG:
        _fated(told, fate)
    else:
        _STORIES[case.behaviour](told)
    return told.steps


class _Telling:
    """Collects the steps of one case."""

    def __init__(self, case: Case, planned_at: datetime) -> None:
        self.case = case
        self.due = case.notice.amount_minor
        self.planned_at = planned_at.replace(microsecond=0)
        self.paid_at = self.planned_at - timedelta(minutes=3 + case.pick("minutes", 300))
        self.reference = case.notice.reference
        self.behaviour: str = case.behaviour
        self.steps: list[Step] = []

    def payment(self, number: int) -> str:
        return f"{self.case.provider[:2].upper()}-{self.case.name(f'payment {number}')}"

    def event(
        self,
        amount: str,
        *,
        payment: int = 0,
        kind: str = "payment.completed",
        at: int = 0,
        currency: str = "MAD",
        note: str | None = None,
    ) -> str:
        """Return an event's JSON text; `at` orders the events of a payment, in seconds.

        The envelope's time is two minutes ago, so that even the last lies in the past of a clock
        that stands still.
        """
        case = self.case
        stated_at = self.planned_at - timedelta(seconds=120 - at)
        data: dict[str, str] = {
            "provider_payment_id": self.payment(payment),
            "reference": self.reference,
            "amount": amount,
            "currency": currency,
            "channel": case.channel,
            "paid_at": self._written(self.paid_at),
        }
        if case.channel == "cash_agent":
            data["agent_id"] = f"AG-{case.pick('agent', 400):04d}"
        if case.channel in {"cash_agent", "kiosk"}:
            data["terminal_id"] = f"T-{case.pick('terminal', 900):04d}"
        if case.pick("fee", 4) == 0:
            data["fee"] = "4.00"
        if note is None and case.pick("note", 3) == 0:
            note = _NOTES[case.pick("words", len(_NOTES))]
        if note is not None:
            data["payer_note"] = note
        event = {"type": kind, "timestamp": self._written(stated_at), "data": data}
        return json.dumps(event, ensure_ascii=False, separators=(",", ":"))

    def send(
        self,
        body: str | bytes,
        *,
        delivery: int = 0,
        payment: int | None = 0,
        booked: int | None = None,
        planted: str | None = None,
        attack: Attack | None = None,
        refused: bool = False,
    ) -> None:
        self.steps.append(
            Step(
                key=f"{self.case.id}.{len(self.steps)}",
                behaviour=self.behaviour,
                delivery_id=f"msg_{self.case.name(f'delivery {delivery}')}",
                body=body.encode() if isinstance(body, str) else body,
                reference=self.reference,
                paid_at=self.paid_at.isoformat(),
                planned_at=self.planned_at.isoformat(),
                refused=refused,
                attack=attack,
                payment_id=None if payment is None else self.payment(payment),
                booked_minor=booked,
                planted=planted,
            )
        )

    def _written(self, instant: datetime) -> str:
        # Providers differ: some write UTC, some the local offset.
        if self.case.provider in {"cashplus", "kiosk"}:
            return instant.astimezone(INSTITUTION_ZONE).isoformat()
        return instant.isoformat().replace("+00:00", "Z")


def _unpaid(told: _Telling) -> None:
    assert not told.steps


def _plain(told: _Telling) -> None:
    told.send(told.event(dirhams(told.due)), booked=told.due)


def _repeated(told: _Telling) -> None:
    for _ in range(2 + told.case.pick("copies", 2)):
        _plain(told)


def _second_id(told: _Telling) -> None:
    _plain(told)
    told.send(told.event(dirhams(told.due), at=30), delivery=1, booked=told.due)


def _late(told: _Telling) -> None:
    told.paid_at -= timedelta(days=1 + told.case.pick("days", LATE_DAYS_MAX - 1))
    _plain(told)


def _part(told: _Telling) -> int:
    return max(1, told.due * (30 + told.case.pick("part", 50)) // 100)


def _short(told: _Telling) -> None:
    told.send(told.event(dirhams(_part(told))), booked=_part(told))


def _instalments(told: _Telling) -> None:
    for number, amount in enumerate((_part(told), told.due - _part(told))):
        body = told.event(dirhams(amount), payment=number)
        told.send(body, delivery=number, payment=number, booked=amount)


def _pending_first(told: _Telling) -> None:
    told.send(told.event(dirhams(told.due), kind="payment.pending"), booked=0)
    told.send(told.event(dirhams(told.due), at=30), delivery=1, booked=told.due)


def _failed(told: _Telling) -> None:
    told.send(told.event(dirhams(told.due), kind="payment.failed"), booked=0)


def _reversed(told: _Telling) -> None:
    _plain(told)
    body = told.event(dirhams(told.due), kind="payment.reversed", at=60)
    told.send(body, delivery=1, booked=0)


def _over(told: _Telling) -> None:
    amount = told.due + 500 * (1 + told.case.pick("over", 40))
    told.send(told.event(dirhams(amount)), booked=amount, planted="overpaid")


def _twice(told: _Telling) -> None:
    _plain(told)
    body = told.event(dirhams(told.due), payment=1, at=30)
    told.send(body, delivery=1, payment=1, booked=told.due, planted="paid_twice")


def _wrong_digit(told: _Telling) -> None:
    at = told.case.pick("place", len(told.reference))
    digit = (int(told.reference[at]) + 1 + told.case.pick("digit", 9)) % 10
    told.reference = f"{told.reference[:at]}{digit}{told.reference[at + 1 :]}"
    told.send(told.event(dirhams(told.due)), booked=told.due, planted="unknown_reference")


def _euro(told: _Telling) -> None:
    body = told.event(dirhams(told.due), currency="EUR")
    told.send(body, booked=0, planted="wrong_currency")


def _bad_amount(told: _Telling) -> None:
    body = told.event(_BAD_AMOUNTS[told.case.pick("bad", len(_BAD_AMOUNTS))])
    told.send(body, booked=0, planted="invalid_amount")


def _conflicting_delivery(told: _Telling) -> None:
    _plain(told)
    body = told.event(dirhams(told.due + 1000))
    told.send(body, booked=told.due, planted="conflicting_delivery")


def _conflicting_payment(told: _Telling) -> None:
    _plain(told)
    body = told.event(dirhams(told.due + 1000), at=30)
    told.send(body, delivery=1, booked=told.due, planted="conflicting_payment")


def _not_json(told: _Telling) -> None:
    text = told.event(dirhams(told.due))
    cut = text[: len(text) * 2 // 3]
    told.send(cut, payment=None, refused=True, planted="unreadable_delivery")


def _not_utf8(told: _Telling) -> None:
    body = told.event(dirhams(told.due), note="Payé à l'agence").encode("latin-1")
    told.send(body, payment=None, refused=True, planted="unreadable_delivery")


def _future(told: _Telling) -> None:
    told.paid_at = told.planned_at + timedelta(days=FUTURE_DAYS)
    told.send(told.event(dirhams(told.due)), booked=told.due, planted="implausible_date")


def _attacked(told: _Telling) -> None:
    # Under the honest delivery's own id: whatever the attack left would stand in its way.
    body = told.event(dirhams(told.due))
    told.send(body, attack=Attack(told.case.behaviour), refused=True)
    told.send(body, booked=told.due)


def _fated(told: _Telling, fate: Fate) -> None:
    told.behaviour = "+".join(fate.struck)
    told.paid_at -= timedelta(days=fate.late)
    if fate.wrong_currency:
        _euro(told)
        return
    body = told.event(dirhams(told.due), at=30)
    if fate.tamper:
        told.send(body, attack=Attack.TAMPERED, refused=True)
    told.send(body, booked=told.due)
    if fate.reorder:
        # It was announced before it was made, and the announcement comes last.
        announced = told.event(dirhams(told.due), kind="payment.pending")
        told.send(announced, delivery=1, booked=told.due)
    if fate.wrong_amount:
        other = told.event(dirhams(told.due + 1000), at=30)
        told.send(other, booked=told.due, planted="conflicting_delivery")
    if fate.double:
        told.send(body, booked=told.due)


_STORIES: Final[Mapping[Behaviour, Callable[[_Telling], None]]] = {
    Behaviour.UNPAID: _unpaid,
    Behaviour.PLAIN: _plain,
    Behaviour.REPEATED: _repeated,
    Behaviour.SECOND_ID: _second_id,
    Behaviour.LATE: _late,
    Behaviour.SHORT: _short,
    Behaviour.INSTALMENTS: _instalments,
    Behaviour.PENDING_FIRST: _pending_first,
    Behaviour.FAILED: _failed,
    Behaviour.REVERSED: _reversed,
    Behaviour.OVER: _over,
    Behaviour.TWICE: _twice,
    Behaviour.WRONG_DIGIT: _wrong_digit,
    Behaviour.EURO: _euro,
    Behaviour.BAD_AMOUNT: _bad_amount,
    Behaviour.CONFLICTING_DELIVERY: _conflicting_delivery,
    Behaviour.CONFLICTING_PAYMENT: _conflicting_payment,
    Behaviour.NOT_JSON: _not_json,
    Behaviour.NOT_UTF8: _not_utf8,
    Behaviour.FUTURE: _future,
    Behaviour.TAMPERED: _attacked,
    Behaviour.OTHER_KEY: _attacked,
    Behaviour.STALE: _attacked,
    Behaviour.AHEAD: _attacked,
    Behaviour.UNSIGNED: _attacked,
}
