"""Hold what was billed against what is owed, and bring it there: by notes and missing invoices.

An invoice is never edited. What is charged too much is credited, what is missing is charged on it
or, for a period that was never billed to the person though it was to others, issued; both to be
paid by a later day. What was cancelled was decided by a person and stays so. Money that is not
needed any more becomes the payer's credit and pays what is open (gateway.collection.placing).

The same again changes nothing, and facts that change there and back leave what is owed as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Final

import structlog
from sqlmodel import Session

from gateway.billing.invoice_rows import COPY_EVENTS, COPY_INVOICES, COPY_LINES, Rows, Terms
from gateway.billing.invoice_rows import Billed as ToIssue
from gateway.billing.invoice_seals import sealer_of
from gateway.billing.notes import NewNote, as_note, regularisation_due_on, write_notes
from gateway.billing.orders import AHEAD_DAYS_MAX
from gateway.billing.rules import keep_rules, why_of
from gateway.books.seals import BooksKey
from gateway.clock import Clock, day_of
from gateway.collection.placing import call_back, carry_credit, hold_people, settle_invoices
from gateway.db import copy_blocks, execute, transaction
from gateway.dues.assessment import (
    Assessed,
    Assessor,
    PersonFacts,
    QuarterAssessed,
    quarter_of,
    quarters_from,
)
from gateway.dues.periods import Period, parse_period
from gateway.dues.principal import DueLine
from gateway.dues.tariff import Tariff
from gateway.errors import Unusable
from gateway.events import take_the_end_of_the_feed, tell
from gateway.models import LineKind
from gateway.money import format_amount
from gateway.people.activities import (
    Person,
    lock_people,
    read_people,
    reason_given,
)

BATCH: Final = 200
"""People to a transaction."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Billed:
    """An invoice as it stands, in centimes; fees and penalty apart."""

    id: int
    contributor_id: int
    """Of the file that it was issued to."""
    reference: str
    period: Period
    category: str
    charged_minor: int
    """Its amount and the adjustments on it."""
    paid_minor: int
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Adjusted:
    """A note that a re-assessment makes."""

    invoice_id: int
    reference: str
    period: str
    line: DueLine
    """Its signed centimes, and why."""
    due_on: date | None


@dataclass(frozen=True, slots=True)
class Missing:
    """An invoice that a re-assessment issues."""

    contributor_id: int
    period: Period
    category: str
    base_minor: int | None
    line: DueLine
    due_on: date


@dataclass(frozen=True, slots=True)
class Reassessed:
    """What a re-assessment of one person comes to."""

    contributor_id: int
    """Of the file that stands."""
    adjusted: tuple[Adjusted, ...] = ()
    missing: tuple[Missing, ...] = ()
    refused: str | None = None
    """Why the person cannot be assessed; nothing was changed then."""

    def as_json(self) -> dict[str, Any]:
        """Return it as commands and the API say it."""
        return {
            "contributor": str(self.contributor_id),
            "notes": [
                {
                    "reference": each.reference,
                    "period": each.period,
                    "amount": format_amount(each.line.amount_minor),
                    "due_on": each.due_on.isoformat() if each.due_on else None,
                    "rule": each.line.rule,
                    "source": each.line.source,
                    "verified": each.line.verified,
                }
                for each in self.adjusted
            ],
            "issued": [
                {
                    "period": each.period.code,
                    "category": each.category,
                    "amount": format_amount(each.line.amount_minor),
                    "due_on": each.due_on.isoformat(),
                }
                for each in self.missing
            ],
            "refused": self.refused,
        }


def reassess(
    session: Session,
    contributor_ids: Iterable[int],
    tariff: Tariff,
    *,
    key: BooksKey,
    now: datetime,
    because: str,
) -> list[Reassessed]:
    """Bring what was billed to these people to what they owe; return those whom it changed.

    Also those who cannot be assessed, with the reason. The caller owns the transaction; nothing but
    its commit should follow.

    Args:
        session: Whose transaction it is.
        contributor_ids: Any of their files.
        tariff: The one in force.
        key: Of the books.
        now: The business clock.
        because: What made it necessary. No names.

    Raises:
        Unusable: No reason is given.
    """
    because = reason_given(because)
    ids = list(contributor_ids)
    _let_nobody_issue(session)
    lock_people(session, ids)
    return _reassess(session, dict.fromkeys(ids, because), tariff, key=key, now=now)


def preview(
    session: Session, contributor_ids: Sequence[int], tariff: Tariff, *, now: datetime
) -> Iterator[Reassessed]:
    """Yield what `reassess` would do, a batch at a time. Changes nothing and locks nothing."""
    for first in range(0, len(contributor_ids), BATCH):
        people = read_people(session, contributor_ids[first : first + BATCH])
        yield from filter(_says_something, _plans(session, people, tariff, now))


def in_line(session: Session) -> list[int]:
    """Return who is to be re-assessed."""
    rows = execute(session, "SELECT contributor_id FROM reassessment_due ORDER BY contributor_id")
    return list(rows.scalars())


def reassess_next(
    session: Session, tariff: Tariff, *, key: BooksKey, now: datetime
) -> tuple[int, list[Reassessed]]:
    """Re-assess the next of those who are in line; return how many that were, and what came of it.

    The caller owns the transaction. Somebody else who does this makes it none. Who cannot be
    assessed leaves the line too, and is logged: the same would come of it again.
    """
    mine = execute(
        session, "SELECT pg_try_advisory_xact_lock(hashtext('wasl reassess'))"
    ).scalar_one()
    if not mine:
        return 0, []
    ids = list(
        execute(
            session,
            "SELECT contributor_id FROM reassessment_due ORDER BY contributor_id LIMIT :batch",
            {"batch": BATCH},
        ).scalars()
    )
    if not ids:
        return 0, []
    _let_nobody_issue(session)
    # Before their places in the line: who changes a person holds the person, then takes the place.
    lock_people(session, ids)
    taken = execute(
        session,
        "DELETE FROM reassessment_due WHERE contributor_id = ANY(:ids)"
        " RETURNING contributor_id, because",
        {"ids": ids},
    )
    reasons = {row.contributor_id: row.because for row in taken}
    done = _reassess(session, reasons, tariff, key=key, now=now)
    for each in done:
        if each.refused:
            log.warning("not_reassessed", contributor=each.contributor_id, reason=each.refused)
    return len(ids), done


def reassess_due(tariff: Tariff, *, key: BooksKey, clock: Clock) -> Iterator[Reassessed]:
    """Re-assess all who are in line, a transaction for each batch; yield whom it changed."""
    taken = 1
    while taken:
        with transaction() as session:
            taken, done = reassess_next(session, tariff, key=key, now=clock())
        yield from done


def merge_files(
    session: Session,
    keep_id: int,
    other_id: int,
    tariff: Tariff,
    *,
    because: str,
    key: BooksKey,
    now: datetime,
) -> list[Reassessed]:
    """Make two files found to be of one person one: the first stands, the other is kept for what
    it holds. What was billed twice is credited once. The caller owns the transaction.

    Raises:
        Unusable: One of them does not exist, both are the same, one was merged already, or the
            person cannot be assessed: whoever merges must know, since the line is left for good.
    """
    because = reason_given(because)
    if keep_id == other_id:
        raise Unusable("A file cannot be merged into itself: give two.")
    _let_nobody_issue(session)
    lock_people(session, [keep_id, other_id])
    found = execute(
        session,
        "SELECT id, merged_into_id, erased_at FROM contributor WHERE id = ANY(:ids)",
        {"ids": [keep_id, other_id]},
    ).all()
    merged_into = {row.id: row.merged_into_id for row in found}
    erased = {row.id for row in found if row.erased_at is not None}
    for at in (keep_id, other_id):
        if at not in merged_into:
            raise Unusable(f"There is no contributor {at}.")
        if merged_into[at] is not None:
            raise Unusable(f"File {at} was merged into file {merged_into[at]} already: use that.")
        if at in erased:
            raise Unusable(f"The data in file {at} were erased: whose it was is not known.")
    hold_people(session, [keep_id, other_id])
    execute(
        session,
        "UPDATE contributor SET merged_into_id = :keep, changed_at = :now"
        " WHERE id = :other OR merged_into_id = :other",
        {"keep": keep_id, "other": other_id, "now": now},
    )
    execute(session, "DELETE FROM reassessment_due WHERE contributor_id = :id", {"id": other_id})
    done = _reassess(session, {keep_id: because}, tariff, key=key, now=now, carry=[keep_id])
    for each in done:
        if each.refused:
            raise Unusable(each.refused)
    return done


# -- deciding -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a person owes by quarter, of all quarters that count."""

    person: Person
    billed: Sequence[Billed]
    quarters: Mapping[Period, QuarterAssessed]

    def unbilled(self) -> dict[Period, Assessed]:
        """Return what is owed for periods that no invoice says anything of."""
        known = {each.period for each in self.billed}
        return {
            period: assessed
            for found in self.quarters.values()
            for period, assessed in found.owed.items()
            if period not in known
        }


def _plans(
    session: Session, people: Mapping[int, Person], tariff: Tariff, now: datetime
) -> list[Reassessed]:
    people = {at: person for at, person in people.items() if not person.is_erased}
    billed = _read_billed(session, people)
    assessor = Assessor(tariff)
    wanted: list[_Wanted] = []
    plans: list[Reassessed] = []
    for person in people.values():
        try:
            wanted.append(_want(assessor, person, billed.get(person.id, []), day_of(now)))
        except Unusable as error:
            plans.append(Reassessed(person.id, refused=str(error)))
    asked = {(a.category, p.code) for each in wanted for p, a in each.unbilled().items()}
    issued = _issued_to_others(session, asked)
    due_on = regularisation_due_on(tariff, day_of(now))
    return plans + [_plan(each, issued, due_on) for each in wanted]


def _want(assessor: Assessor, person: Person, billed: Sequence[Billed], today: date) -> _Wanted:
    files: list[PersonFacts] = list(person.files.values())
    quarters = set(quarters_from(files, today + timedelta(days=AHEAD_DAYS_MAX)))
    quarters |= {quarter_of(each.period) for each in billed}
    in_order = sorted(quarters, key=lambda quarter: quarter.starts_on)
    return _Wanted(person, billed, {each: assessor.quarter(files, each) for each in in_order})


def _plan(wanted: _Wanted, issued: set[tuple[str, str]], due_on: date) -> Reassessed:
    """Return what brings a person's invoices to what is owed. Pure."""
    kept = _kept(wanted.billed)
    adjusted = []
    for invoice in sorted(wanted.billed, key=lambda each: (each.period.starts_on, each.id)):
        if invoice.cancelled:
            continue
        quarter = wanted.quarters[quarter_of(invoice.period)]
        line = _target(invoice, quarter, stands=kept[invoice.period] == invoice.id)
        difference = line.amount_minor - invoice.charged_minor
        if difference:
            note = as_note(line, difference)
            by = max(due_on, invoice.period.ends_on) if difference > 0 else None
            adjusted.append(Adjusted(invoice.id, invoice.reference, invoice.period.code, note, by))
    missing = [
        Missing(
            wanted.person.id,
            period,
            assessed.category,
            assessed.base_minor,
            assessed.line,
            max(due_on, period.ends_on),
        )
        for period, assessed in wanted.unbilled().items()
        if (assessed.category, period.code) in issued
    ]
    return Reassessed(wanted.person.id, tuple(adjusted), tuple(missing))


def _kept(billed: Iterable[Billed]) -> dict[Period, int]:
    """Return which invoice of a period stands: of two files', the one with more paid on it.

    Else the one that is charged already, so that it stays the same one; else the older.
    """
    kept: dict[Period, Billed] = {}
    for each in billed:
        if each.cancelled:
            continue
        known = kept.get(each.period)
        if known is None or _precedence(each) > _precedence(known):
            kept[each.period] = each
    return {period: each.id for period, each in kept.items()}


def _precedence(invoice: Billed) -> tuple[int, bool, int]:
    return invoice.paid_minor, invoice.charged_minor > 0, -invoice.id


def _target(invoice: Billed, quarter: QuarterAssessed, *, stands: bool) -> DueLine:
    """Return what is to be charged on an invoice, and why."""
    nothing = DueLine(LineKind.ADJUSTMENT, 0, "", "", verified=True)
    if not stands:
        return replace(
            nothing,
            rule="the period is billed on another file of the same person",
            source="the register of contributors",
            facts={"form": "other-file"},
        )
    owed = quarter.owed.get(invoice.period)
    if owed is not None:
        return owed.line
    why = quarter.why_not(invoice.period, invoice.category)
    return replace(
        nothing, rule=why.reason, source=why.source, verified=why.verified, facts=why.facts
    )


def _says_something(done: Reassessed) -> bool:
    return bool(done.adjusted or done.missing or done.refused)


# -- reading and writing --------------------------------------------------------------------------


def _let_nobody_issue(session: Session) -> None:
    """Wait for spans that are being issued, and keep others from beginning, until the end.

    What is issued at this moment was decided on older facts, and could not be seen. Whoever issues
    locks the same table first (gateway.billing.issuing).
    """
    execute(session, "LOCK TABLE reference_key IN SHARE ROW EXCLUSIVE MODE")


def _reassess(
    session: Session,
    reasons: Mapping[int, str],
    tariff: Tariff,
    *,
    key: BooksKey,
    now: datetime,
    carry: Sequence[int] = (),
) -> list[Reassessed]:
    """Re-assess people who are locked; for each of their files that is named, why."""
    people = read_people(session, reasons)
    because = {
        person.id: next(reasons[at] for at in person.files if at in reasons)
        for person in people.values()
    }
    done = [each for each in _plans(session, people, tariff, now) if _says_something(each)]
    changed = [each for each in done if not each.refused]
    if not changed and not carry:
        return done
    touched = sorted({*carry, *(each.contributor_id for each in changed)})
    hold_people(session, touched)
    notes = [
        NewNote(note.invoice_id, note.line, because[each.contributor_id], note.due_on)
        for each in changed
        for note in each.adjusted
    ]
    told = write_notes(session, notes, now=now)
    missing = [each for one in changed for each in one.missing]
    issued = _issue(session, missing, tariff, key, now)
    # What is credited first, so that its money finds its way back to what it was meant for.
    charged = {note.invoice_id for note in notes if note.line.amount_minor > 0}
    for ids in ({note.invoice_id for note in notes} - charged, charged):
        settle_invoices(session, sorted(ids), key=key, now=now)
    if charged:
        call_back(session, touched, key=key, now=now)
    carry_credit(session, touched, key=key, now=now)
    tell(session, told, now=now)
    if issued is not None:
        take_the_end_of_the_feed(session)
        copy_blocks(session, COPY_EVENTS, issued.events)
    return done


def _issue(
    session: Session, missing: Sequence[Missing], tariff: Tariff, key: BooksKey, now: datetime
) -> Rows | None:
    """Issue what was never billed; return the events, to be written last."""
    if not missing:
        return None
    sealer = sealer_of(session, key)
    rules = keep_rules(session, [each.line for each in missing])
    terms = [
        Terms(
            category=each.category,
            period=each.period.code,
            due_on=each.due_on,
            amount_minor=each.line.amount_minor,
            rule_id=rules[why_of(each.line)],
            tariff=tariff.version,
            issued_at=now,
        )
        for each in missing
    ]
    drawn = execute(
        session,
        "SELECT nextval(pg_get_serial_sequence('invoice', 'id')),"
        " wasl_reference(nextval('invoice_number'), (SELECT key FROM reference_key))"
        " FROM generate_series(1, :count)",
        {"count": len(missing)},
    ).all()
    billed = [
        ToIssue(invoice_id, reference.encode(), each.contributor_id, place)
        for place, (each, (invoice_id, reference)) in enumerate(zip(missing, drawn, strict=True))
    ]
    rows = Rows(billed, terms, sealer)
    copy_blocks(session, COPY_INVOICES, rows.invoices())
    copy_blocks(session, COPY_LINES, rows.lines)
    return rows


def _read_billed(session: Session, people: Mapping[int, Person]) -> dict[int, list[Billed]]:
    """Return all invoices of people, by the file that stands."""
    standing = {at: person.id for person in people.values() for at in person.files}
    rows = execute(
        session,
        """
        SELECT i.id, contributor_id, reference, period, category_code,
            i.amount_minor + coalesce((SELECT sum(n.amount_minor) FROM invoice_note n
                WHERE n.invoice_id = i.id AND n.kind = 'adjustment'), 0)::bigint,
            paid_minor, cancelled_at IS NOT NULL
        FROM invoice i WHERE contributor_id = ANY(:ids) ORDER BY i.id
        """,
        {"ids": list(standing)},
    )
    found: dict[int, list[Billed]] = {}
    for at, contributor_id, reference, period, *rest in rows:
        invoice = Billed(at, contributor_id, reference, parse_period(period), *rest)
        found.setdefault(standing[contributor_id], []).append(invoice)
    return found


def _issued_to_others(session: Session, asked: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return which of these categories and periods were issued: in bulk, or to anybody."""
    pairs = sorted(asked)
    rows = execute(
        session,
        """
        SELECT category, period
        FROM unnest(CAST(:categories AS text[]), CAST(:periods AS text[])) AS w (category, period)
        WHERE EXISTS (SELECT FROM issue_run r WHERE r.period = w.period
                AND coalesce(r.category_code, w.category) = w.category)
            OR EXISTS (SELECT FROM invoice i WHERE i.period = w.period
                AND i.category_code = w.category)
        """,
        {"categories": [c for c, _ in pairs], "periods": [p for _, p in pairs]},
    )
    return {(category, period) for category, period in rows}
