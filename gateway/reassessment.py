"""Hold what was billed against what is owed, and bring it there: by notes and missing invoices.

An invoice is never edited. What is charged too much is credited, what is missing is charged on it
or, for a period that was never billed to the person though it was to others, issued; both to be
paid by a later day. What was cancelled was decided by a person and stays so. Money that is not
needed any more becomes the payer's credit and pays what is open (gateway.placing).

The same again changes nothing, and facts that change there and back leave what is owed as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Final

import structlog
from sqlmodel import Session

from gateway.activities import (
    Person,
    lock_people,
    read_people,
    reason_given,
)
from gateway.assessment import (
    Assessed,
    Assessor,
    PersonFacts,
    QuarterAssessed,
    quarter_of,
    quarters_from,
)
from gateway.clock import Clock, day_of
from gateway.db import execute, transaction
from gateway.dues import DueLine
from gateway.errors import Unusable
from gateway.events import Happening, tell
from gateway.invoice_seals import Sealer, facts_of, terms_of
from gateway.invoices import AHEAD_DAYS_MAX
from gateway.models import EventType, LineKind
from gateway.money import format_amount
from gateway.notes import NewNote, as_note, regularisation_due_on, write_notes
from gateway.periods import Period, parse_period
from gateway.placing import carry_credit, hold_people, settle_invoices
from gateway.rules import keep_rules, why_of
from gateway.seals import BooksKey
from gateway.tariff import Tariff

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
    lock_people(session, ids)
    return _reassess(session, dict.fromkeys(ids, because), tariff, key=key, now=now)


def preview(
    session: Session, contributor_ids: Iterable[int], tariff: Tariff, *, now: datetime
) -> list[Reassessed]:
    """Return what `reassess` would do. Changes nothing and locks nothing."""
    people = read_people(session, contributor_ids)
    return [each for each in _plans(session, people, tariff, now) if _says_something(each)]


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
        Unusable: One of them does not exist, both are the same, or one was merged already.
    """
    because = reason_given(because)
    if keep_id == other_id:
        raise Unusable("A file cannot be merged into itself: give two.")
    lock_people(session, [keep_id, other_id])
    found = execute(
        session,
        "SELECT id, merged_into_id FROM contributor WHERE id = ANY(:ids)",
        {"ids": [keep_id, other_id]},
    )
    merged_into = {row.id: row.merged_into_id for row in found}
    for at in (keep_id, other_id):
        if at not in merged_into:
            raise Unusable(f"There is no contributor {at}.")
        if merged_into[at] is not None:
            raise Unusable(f"File {at} was merged into file {merged_into[at]} already: use that.")
    hold_people(session, [keep_id, other_id])
    execute(
        session,
        "UPDATE contributor SET merged_into_id = :keep, changed_at = :now"
        " WHERE id = :other OR merged_into_id = :other",
        {"keep": keep_id, "other": other_id, "now": now},
    )
    execute(session, "DELETE FROM reassessment_due WHERE contributor_id = :id", {"id": other_id})
    return _reassess(session, {keep_id: because}, tariff, key=key, now=now, carry=[keep_id])


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
    told += _issue(session, missing, tariff, key=key, now=now)
    settle_invoices(session, sorted({note.invoice_id for note in notes}), key=key, now=now)
    carry_credit(session, touched, key=key, now=now)
    tell(session, told, now=now)
    return done


def _issue(
    session: Session,
    missing: Sequence[Missing],
    tariff: Tariff,
    *,
    key: BooksKey,
    now: datetime,
) -> list[Happening]:
    """Issue what was never billed; return what is to be told.

    The bulk issue leaves out whoever has an invoice of the period, and the unique key is the judge:
    what somebody else issues at this moment stands.
    """
    if not missing:
        return []
    rows = _rows_of(session, missing, tariff, key, now)
    issued = execute(
        session,
        """
        WITH given AS (
            SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS given (id bigint,
                reference text, contributor_id bigint, category_code text, period text,
                due_on date, amount_minor bigint, seal text, rule_id bigint)
        ), fresh AS (
            INSERT INTO invoice (id, reference, contributor_id, category_code, period, due_on,
                amount_minor, owed_minor, tariff, issued_at, seal)
            OVERRIDING SYSTEM VALUE
            SELECT id, reference, contributor_id, category_code, period, due_on, amount_minor,
                amount_minor, :tariff, :now, decode(seal, 'hex') FROM given ORDER BY id
            ON CONFLICT (contributor_id, period) DO NOTHING RETURNING id
        ), lines AS (
            INSERT INTO invoice_line (invoice_id, position, kind, amount_minor, rule_id)
            SELECT id, 1, 'principal', amount_minor, rule_id FROM given JOIN fresh USING (id)
        )
        SELECT id FROM fresh
        """,
        {"rows": json.dumps(rows), "tariff": tariff.version, "now": now},
    )
    fresh = set(issued.scalars())
    return [_told(row) for row in rows if row["id"] in fresh]


def _rows_of(
    session: Session, missing: Sequence[Missing], tariff: Tariff, key: BooksKey, now: datetime
) -> list[dict[str, Any]]:
    """Return missing invoices as rows, numbered and sealed; `rule_id` is of their one line."""
    rules = keep_rules(session, [each.line for each in missing])
    drawn = execute(
        session,
        "SELECT nextval(pg_get_serial_sequence('invoice', 'id')),"
        " wasl_reference(nextval('invoice_number'), (SELECT key FROM reference_key))"
        " FROM generate_series(1, :count)",
        {"count": len(missing)},
    ).all()
    sealer = Sealer(key)
    rows = []
    for each, (invoice_id, reference) in zip(missing, sorted(drawn), strict=True):
        terms = terms_of(
            category=each.category,
            period=each.period.code,
            due_on=each.due_on,
            amount_minor=each.line.amount_minor,
            issued_at=now,
            tariff=tariff.version,
        )
        facts = facts_of(invoice_id, reference.encode(), each.contributor_id, terms)
        rows.append(
            {
                "id": invoice_id,
                "reference": reference,
                "contributor_id": each.contributor_id,
                "category_code": each.category,
                "period": each.period.code,
                "due_on": each.due_on.isoformat(),
                "amount_minor": each.line.amount_minor,
                "seal": sealer.seal(facts).hex(),
                "rule_id": rules[why_of(each.line)],
            }
        )
    return rows


def _told(row: Mapping[str, Any]) -> Happening:
    data = {
        "reference": row["reference"],
        "period": row["period"],
        "due_on": row["due_on"],
        "amount": format_amount(row["amount_minor"]),
    }
    return Happening(EventType.INVOICE_ISSUED, data, invoice_id=row["id"])


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
