"""Which payments and which of the institution's records belong together. Pure.

Every payment and every record ends in exactly one outcome: a group, a pair of records of which one
takes back the other, or an open outcome with a code. The passes run in the order of `PASSES`; each
takes rows that are still free, by its own evidence, and leaves the others to the next. No pass
depends on the order in which the rows were given.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Final, TypeVar

from gateway.money import format_amount
from reconciliation import taken_back
from reconciliation.taken_back import TakenBack, take_back

EXACT: Final = "exact"
"""Rule: the same reference and the same amount."""

EXACT_SCORE: Final = 100

Row = TypeVar("Row", "Payment", "Record")


class OpenCode(StrEnum):
    """Why rows are in no group; the same words as the exceptions that are opened for them."""

    PAYMENT_WITHOUT_RECORD = "payment_without_record"
    RECORD_WITHOUT_PAYMENT = "record_without_payment"
    AMOUNT_DIFFERS = "amount_differs"
    AMBIGUOUS_MATCH = "ambiguous_match"


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that we booked. What is not known is None."""

    payment_id: str
    """Unique among the payments."""
    reference: str | None
    amount_minor: int
    """Centimes, positive."""
    paid_on: date
    """The day in Casablanca."""
    provider_reference: str | None = None
    channel: str | None = None
    cnss_number: str | None = None
    cin: str | None = None
    name: str | None = None

    @property
    def rank(self) -> tuple[date, str]:
        """Decides between equal payments: the earlier first."""
        return (self.paid_on, self.payment_id)


@dataclass(frozen=True, slots=True)
class Record(taken_back.Record):
    """A line of the institution's books. What is not known is None."""

    period: str | None = None
    channel: str | None = None
    cnss_number: str | None = None
    cin: str | None = None
    name: str | None = None

    @property
    def rank(self) -> tuple[date, str]:
        """Decides between equal records: the earlier first."""
        return (self.posted_on, self.record_id)


@dataclass(frozen=True, slots=True)
class Group:
    """Payments and records that belong together, by which rule; 100 is certain."""

    rule: str
    score: int
    payments: tuple[Payment, ...]
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Open:
    """Rows that a person must decide about, together: one finding."""

    code: OpenCode
    payments: tuple[Payment, ...] = ()
    records: tuple[Record, ...] = ()

    @property
    def first_id(self) -> str:
        """Id of the payment, or else of the record, that the finding is about."""
        return self.payments[0].payment_id if self.payments else self.records[0].record_id

    @property
    def detail(self) -> dict[str, str]:
        """What was found, in words and decimal strings; never a name or a personal number."""
        return _detail(self)


@dataclass(frozen=True, slots=True)
class Matching:
    """Every row in one outcome. The lists are in the order of their first row's id."""

    groups: list[Group]
    taken_back: list[TakenBack[Record]]
    open: list[Open]


def match(payments: Sequence[Payment], records: Sequence[Record]) -> Matching:
    """Find what belongs together, and say of the rest why it does not.

    Linear in the rows, but for sorting the result, and rows that are alike to every rule.
    """
    with collector_paused():
        return _match(payments, records)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep Python's garbage collector from walking millions of rows that hold no cycle.

    It would take a third of the time, and find nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _match(payments: Sequence[Payment], records: Sequence[Record]) -> Matching:
    state = _State(
        payments={payment.payment_id: payment for payment in payments},
        records={record.record_id: record for record in records},
    )
    assert len(state.payments) == len(payments), "two payments have one id"
    assert len(state.records) == len(records), "two records have one id"
    for run_pass in PASSES:
        run_pass(state)
    assert not state.payments, "a payment is in no outcome"
    assert not state.records, "a record is in no outcome"
    state.groups.sort(key=lambda group: group.payments[0].payment_id)
    state.taken_back.sort(key=lambda pair: pair.negative.record_id)
    state.open.sort(key=lambda found: found.first_id)
    return Matching(state.groups, state.taken_back, state.open)


# -- the passes -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _State:
    """The rows that are still free, and the outcomes so far. A row leaves when it is claimed."""

    payments: dict[str, Payment]
    records: dict[str, Record]
    groups: list[Group] = field(default_factory=list)
    taken_back: list[TakenBack[Record]] = field(default_factory=list)
    open: list[Open] = field(default_factory=list)

    def claim(self, payments: Iterable[Payment], records: Iterable[Record]) -> None:
        """Take rows out of the free ones; KeyError if one is claimed already, a bug."""
        for payment in payments:
            del self.payments[payment.payment_id]
        for record in records:
            del self.records[record.record_id]

    def of_one_reference(self) -> Iterator[tuple[list[Payment], list[Record]]]:
        """Yield the free payments and positive records of each reference that has both."""
        payments, several = _by_reference(self.payments.values())
        records, several_records = _by_reference(
            r for r in self.records.values() if r.amount_minor > 0 and r.reference in payments
        )
        for reference, record in records.items():
            yield (
                several.get(reference) or [payments[reference]],
                several_records.get(reference) or [record],
            )


def _taken_back(state: _State) -> None:
    """Evidence: the same reference and the opposite amount, within the institution's books."""
    for pair in take_back(state.records.values()):
        state.claim((), (pair.record, pair.negative))
        state.taken_back.append(pair)


def _exact(state: _State) -> None:
    """Evidence: the same reference and the same amount.

    Of several equal ones, those with the same provider's reference first, then the earliest with
    the earliest. The choice among the last decides nothing: they are the same money to the same
    debt, and as many stay open whichever do.
    """
    for payments, records in state.of_one_reference():
        for some, others in _alike(payments, records, lambda row: row.amount_minor):
            for payment, record in _paired(some, others):
                state.claim((payment,), (record,))
                state.groups.append(Group(EXACT, EXACT_SCORE, (payment,), (record,)))


def _amount_differs(state: _State) -> None:
    """Evidence: the same reference; which with which, by the provider's reference or as the last.

    Where several are left on a side, each pair would state another difference: a person decides.
    """
    for payments, records in state.of_one_reference():
        for some, others in _alike(payments, records, lambda row: row.provider_reference):
            if len(some) == len(others) == 1 and some[0].provider_reference is not None:
                _leave_open(state, OpenCode.AMOUNT_DIFFERS, some, others)
        some = [p for p in payments if p.payment_id in state.payments]
        others = [r for r in records if r.record_id in state.records]
        if len(some) == len(others) == 1:
            _leave_open(state, OpenCode.AMOUNT_DIFFERS, some, others)
        elif some and others:
            _leave_open(state, OpenCode.AMBIGUOUS_MATCH, some, others)


def _rest(state: _State) -> None:
    """No evidence of anything on the other side."""
    for payment in list(state.payments.values()):
        _leave_open(state, OpenCode.PAYMENT_WITHOUT_RECORD, [payment], [])
    for record in list(state.records.values()):
        _leave_open(state, OpenCode.RECORD_WITHOUT_PAYMENT, [], [record])


PASSES: Final[tuple[Callable[[_State], None], ...]] = (
    _taken_back,
    _exact,
    _amount_differs,
    _rest,
)


def _leave_open(
    state: _State, code: OpenCode, payments: list[Payment], records: list[Record]
) -> None:
    state.claim(payments, records)
    payments.sort(key=lambda payment: payment.rank)
    records.sort(key=lambda record: record.rank)
    state.open.append(Open(code, tuple(payments), tuple(records)))


def _by_reference(rows: Iterable[Row]) -> tuple[dict[str, Row], dict[str, list[Row]]]:
    """Return the first row of each reference, and all the rows of those that have several.

    Nearly all have one, and a million lists of one row would double the time and the memory.
    """
    first: dict[str, Row] = {}
    several: dict[str, list[Row]] = {}
    for row in rows:
        if row.reference is None:
            continue
        if first.setdefault(row.reference, row) is not row:
            several.setdefault(row.reference, [first[row.reference]]).append(row)
    return first, several


def _alike(
    payments: list[Payment], records: list[Record], key: Callable[[Payment | Record], Hashable]
) -> Iterator[tuple[list[Payment], list[Record]]]:
    """Yield the payments and the records of each key that both sides have."""
    if len(payments) == len(records) == 1:
        if key(payments[0]) == key(records[0]):
            yield payments, records
        return
    by_key: dict[Hashable, tuple[list[Payment], list[Record]]] = {}
    for payment in payments:
        by_key.setdefault(key(payment), ([], []))[0].append(payment)
    for record in records:
        by_key.setdefault(key(record), ([], []))[1].append(record)
    for some, others in by_key.values():
        if some and others:
            yield some, others


def _paired(payments: list[Payment], records: list[Record]) -> Iterator[tuple[Payment, Record]]:
    """Pair equal rows, as many as the shorter side has."""
    if len(payments) == len(records) == 1:
        yield payments[0], records[0]
        return
    payments = sorted(payments, key=lambda payment: payment.rank)
    records = sorted(records, key=lambda record: record.rank)
    told = [
        pair
        for some, others in _alike(payments, records, lambda row: row.provider_reference)
        if some[0].provider_reference is not None
        for pair in zip(some, others, strict=False)
    ]
    yield from told
    used = {row for pair in told for row in pair}
    yield from zip(
        (payment for payment in payments if payment not in used),
        (record for record in records if record not in used),
        strict=False,
    )


# -- words for a person ---------------------------------------------------------------------------


def _detail(found: Open) -> dict[str, str]:
    reference = (found.payments or found.records)[0].reference
    detail = {} if reference is None else {"reference": reference}
    match found.code:
        case OpenCode.PAYMENT_WITHOUT_RECORD:
            (payment,) = found.payments
            detail["amount"] = format_amount(payment.amount_minor)
            detail["paid_on"] = payment.paid_on.isoformat()
        case OpenCode.RECORD_WITHOUT_PAYMENT:
            (record,) = found.records
            detail["amount"] = format_amount(record.amount_minor)
            detail["posted_on"] = record.posted_on.isoformat()
            detail["why"] = _why_alone(record)
        case OpenCode.AMOUNT_DIFFERS | OpenCode.AMBIGUOUS_MATCH:
            ours = sum(payment.amount_minor for payment in found.payments)
            theirs = sum(record.amount_minor for record in found.records)
            detail["payments"] = ", ".join(payment.payment_id for payment in found.payments)
            detail["records"] = ", ".join(record.record_id for record in found.records)
            detail["paid"] = format_amount(ours)
            detail["recorded"] = format_amount(theirs)
            detail["difference"] = format_amount(ours - theirs)
    return detail


def _why_alone(record: Record) -> str:
    if record.reference is None:
        return "its reference cannot be read"
    if record.amount_minor < 0:
        return "there is nothing that it could take back"
    return "no payment is left that has its reference"
