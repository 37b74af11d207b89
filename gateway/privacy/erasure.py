"""Take out what names a person, after a set time, with the books intact.

Invoices, payments, references, receipts and the books stand: they name nobody once the register,
the institution's records and the bodies of deliveries are emptied. All of it is one transaction.

Locks: the person, then what the holders empty (deliveries come before invoices, as where they are
acted on), then the invoices. Money that arrives meanwhile waits for this, or this for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.clock import day_of
from gateway.db import execute, transaction
from gateway.errors import Unusable
from gateway.models import Erasure
from gateway.money import format_amount
from gateway.people.activities import lock_people
from gateway.privacy import LEFT, Hold, Holder, Subject
from gateway.privacy.own import answer_needles, credit_accounts, exception_subjects
from gateway.privacy.periods import doubt, erasable_on
from gateway.privacy.subject import subject_of
from gateway.references import read_reference
from gateway.retention import FullYears, retention

WHY_MAX: Final = 500
BY_DATE: Final = "the set time has passed"
BY_SCHEDULE: Final = "schedule"
BY_ERASURE: Final = "the person's data were erased"
"""Why a message that was in line is not sent."""


class NotErasable(Exception):
    """Something is open, or the set time has not passed; the sentences say what, and name nobody.

    Attributes:
        reasons: A sentence each.
    """

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(" ".join(reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure came to, or would."""

    contributor_id: int
    """Of the file that stood."""
    erased_at: datetime
    found: Mapping[str, int] = field(default_factory=dict)
    """How many rows of each kind were emptied; under `left:`, how many still name the person in
    what never changes."""

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "contributor_id": str(self.contributor_id),
            "erased_at": self.erased_at.isoformat(),
            "found": dict(self.found),
        }


def erase(
    session: Session,
    contributor_id: int,
    holders: Sequence[Holder],
    *,
    asked_by: str,
    why: str,
    now: datetime,
) -> Erased | None:
    """Erase what names a person, in all of the person's files; None if there is no such file.

    The caller owns the transaction, and has locked nothing.

    Args:
        session: Whose transaction it is.
        contributor_id: Any of the person's files.
        holders: Who else holds data of people (gateway.holders).
        asked_by: Whose word it is: a key, an account, the schedule.
        why: The request, for whoever reads it later. No names.
        now: When.

    Raises:
        NotErasable: Something is open, or the set time has not passed.
        Unusable: No reason is given, or it names the person.
    """
    why = why.strip()
    if not why or len(why) > WHY_MAX:
        raise Unusable(f"Say why, in at most {WHY_MAX} characters.")
    lock_people(session, [contributor_id])
    subject = subject_of(session, contributor_id)
    if subject is None:
        return None
    if subject.names_in(why):
        raise Unusable("The reason is kept for good: say it without the person's name and numbers.")
    _refuse_erased(session, subject)
    held = [holder.hold(session, subject) for holder in holders]
    _lock_debts(session, subject)
    asked = _parameters(session, subject)
    _refuse(session, asked, held, now=now)
    asked["subjects"] += [about for each in held for about in each.subjects]
    found = _empty(session, subject, asked, now=now)
    for each in held:
        found |= each.erase(now)
    found = {kind: count for kind, count in found.items() if count}
    for file_id in subject.file_ids:
        counted = found if file_id == subject.contributor_id else {}
        session.add(
            Erasure(
                contributor_id=file_id, asked_by=asked_by, why=why, erased_at=now, found=counted
            )
        )
    session.flush()
    return Erased(subject.contributor_id, now, found)


# -- what hinders it ------------------------------------------------------------------------------


def _refuse_erased(session: Session, subject: Subject) -> None:
    at = execute(
        session,
        "SELECT max(erased_at) FROM contributor WHERE id = ANY(:files)",
        {"files": list(subject.file_ids)},
    ).scalar_one()
    if at is not None:
        raise NotErasable([f"The person's data were erased on {day_of(at)}: nothing is left."])


def _lock_debts(session: Session, subject: Subject) -> None:
    """Let nobody pay, or be paid back, until the transaction ends."""
    execute(
        session,
        "SELECT FROM payment WHERE id = ANY(:payments) ORDER BY id FOR NO KEY UPDATE",
        {"payments": list(subject.payment_ids)},
    )
    execute(
        session,
        "SELECT FROM invoice WHERE id = ANY(:invoices) ORDER BY id FOR NO KEY UPDATE",
        {"invoices": list(subject.invoice_ids)},
    )


def _refuse(
    session: Session, asked: Mapping[str, Any], held: Sequence[Hold], *, now: datetime
) -> None:
    today = day_of(now)
    row = execute(session, _OPEN, asked).mappings().one()
    reasons = []
    if row["left_on"] is None or row["left_on"] > today:
        reasons.append("The person has not left: note the last day first.")
    reasons += [sentence.format(row[name]) for name, sentence in _SENTENCES.items() if row[name]]
    if row["credit_minor"]:
        amount = format_amount(row["credit_minor"])
        reasons.append(f"{amount} MAD are held as the person's own credit: they are to be given.")
    reasons += [reason for each in held for reason in each.hindrances]
    if not reasons and (early := _too_early(row, today, retention().persons)):
        reasons.append(early)
    if reasons:
        raise NotErasable(reasons)


def _too_early(row: Mapping[Any, Any], today: date, period: FullYears) -> str | None:
    last = row["left_on"]
    what = "the registration ended"
    if row["moved_at"] is not None and day_of(row["moved_at"]) > last:
        last, what = day_of(row["moved_at"]), "money last moved"
    earliest = erasable_on(last, period)
    if today >= earliest:
        return None
    years = f"{period.years} year{'' if period.years == 1 else 's'}"
    return f"The earliest day is {earliest}: {years} after {what}, on {last}{doubt(period)}."


def _parameters(session: Session, subject: Subject) -> dict[str, Any]:
    return {
        "id": subject.contributor_id,
        "files": list(subject.file_ids),
        "invoices": list(subject.invoice_ids),
        "bundles": list(subject.bundle_ids),
        "payments": list(subject.payment_ids),
        "accounts": credit_accounts(subject),
        "subjects": exception_subjects(subject),
        "unknown": _of_unknown_debts(session, subject),
    }


_SENTENCES: Final = {
    "unpaid": "Invoices that are not settled: {0}. What is due is to be paid or cancelled first.",
    "exceptions": "Open exceptions about the person: {0}. They are to be decided first.",
    "reliefs": "Plans and remissions still under condition: {0}. They are to end first.",
    "disputes": "Open disputes: {0}. The payers' banks are to decide first.",
    "refunds": "Refunds under way: {0}. They are to end first.",
    "pages": "Pages to pay on that may still take money: {0}. They are to end first.",
    "reassessments": "The person is in line for re-assessment: it is to be done first.",
}

_HIS_PAYMENTS: Final = """
    SELECT unnest(CAST(:payments AS bigint[]))
    UNION SELECT payment_id FROM allocation WHERE invoice_id = ANY(:invoices)
"""
_OPEN: Final = f"""
    WITH his AS (SELECT * FROM payment WHERE id IN ({_HIS_PAYMENTS})),
    moves AS (
        SELECT t.posted_at FROM ledger_transfer t WHERE t.payment_id IN (SELECT id FROM his)
        UNION ALL
        SELECT t.posted_at FROM ledger_transfer t JOIN ledger_account a
            ON a.id IN (t.debit_account_id, t.credit_account_id) WHERE a.code = ANY(:accounts)
    )
    SELECT (SELECT left_on FROM contributor WHERE id = :id) AS left_on,
        (SELECT count(*) FROM invoice WHERE id = ANY(:invoices) AND cancelled_at IS NULL
            AND status IN ('open', 'part_paid')) AS unpaid,
        (SELECT coalesce(sum(CASE WHEN c.code = ANY(:accounts) THEN t.amount_minor
                ELSE -t.amount_minor END), 0)::bigint
            FROM ledger_transfer t JOIN ledger_account d ON d.id = t.debit_account_id
            JOIN ledger_account c ON c.id = t.credit_account_id
            WHERE (c.code = ANY(:accounts)) <> (d.code = ANY(:accounts))) AS credit_minor,
        (SELECT count(*) FROM coded_exception WHERE resolved_at IS NULL
            AND (payment_id IN (SELECT id FROM his) OR subject = ANY(:subjects)
                OR payment_id = ANY(:unknown))) AS exceptions,
        (SELECT count(*) FROM plan WHERE contributor_id = ANY(:files)
            AND kept_on IS NULL AND broken_on IS NULL)
        + (SELECT count(*) FROM remission WHERE contributor_id = ANY(:files)
            AND kept_on IS NULL AND broken_on IS NULL) AS reliefs,
        (SELECT count(*) FROM payment_return r JOIN his USING (provider, provider_payment_id)
            WHERE r.kind = 'dispute' AND r.outcome IS NULL) AS disputes,
        (SELECT count(*) FROM refund WHERE ended_at IS NULL
            AND payment_id IN (SELECT id FROM his)) AS refunds,
        (SELECT count(*) FROM payment_attempt WHERE (invoice_id = ANY(:invoices)
                OR bundle_id IN (SELECT bundle_id FROM bundle_item
                    WHERE invoice_id = ANY(:invoices)))
            AND (state IN ('made', 'sent')
                OR closed_because = 'left open' AND ask_at IS NOT NULL)) AS pages,
        (SELECT count(*) FROM reassessment_due WHERE contributor_id = ANY(:files))
            AS reassessments,
        greatest(
            (SELECT max(greatest(recorded_at, booked_at)) FROM his),
            (SELECT max(r.recorded_at) FROM payment_return r
                JOIN his USING (provider, provider_payment_id)),
            (SELECT max(allocated_at) FROM allocation WHERE invoice_id = ANY(:invoices)),
            (SELECT max(noted_at) FROM invoice_note WHERE invoice_id = ANY(:invoices)),
            (SELECT max(cancelled_at) FROM invoice WHERE id = ANY(:invoices)),
            (SELECT max(posted_at) FROM moves)
        ) AS moved_at
"""


# -- taking it out --------------------------------------------------------------------------------


def _empty(
    session: Session, subject: Subject, asked: Mapping[str, Any], *, now: datetime
) -> dict[str, int]:
    """Empty the gateway's own tables of what names the person."""
    found = {"contributor": execute(session, _REGISTER, {**asked, "now": now}).rowcount}
    answers = {"needles": answer_needles(subject)}
    found["idempotent_answer"] = execute(session, _ANSWERS, answers).rowcount
    found["payment"] = _references_given(session, asked)
    found["message"] = execute(session, _MESSAGES, {**asked, "because": BY_ERASURE}).rowcount
    for table, column, where in _TEXTS:
        count = _texts(session, subject, asked, table, column, where)
        found[f"{table}.{column}"] = count
    notes = execute(session, _NOTES, asked).scalars()
    found[f"{LEFT}invoice_note.because"] = sum(map(subject.names_in, notes))
    return found


# What the books go by stays: category, base, region, days.
_REGISTER: Final = """
    UPDATE contributor SET cnss_number = 'erased-' || id, cin = NULL, family_name = '',
        given_name = '', family_name_ar = NULL, given_name_ar = NULL, phone = NULL,
        language = NULL, province = NULL, chamber = NULL, commune = NULL, ice = NULL,
        changed_at = :now, erased_at = :now
    WHERE id = ANY(:files)
"""
_MESSAGES: Final = """
    UPDATE message SET text = CASE WHEN state = 'sent' THEN '' END,
        because = CASE WHEN state = 'waiting' THEN :because ELSE because END,
        state = CASE WHEN state = 'waiting' THEN 'dropped' ELSE state END
    WHERE contributor_id = ANY(:files) AND (state = 'waiting' OR text <> '')
"""
_NOTES: Final = "SELECT because FROM invoice_note WHERE invoice_id = ANY(:invoices)"
_ANSWERS: Final = """
    DELETE FROM idempotent_answer WHERE EXISTS (
        SELECT FROM unnest(CAST(:needles AS bytea[])) AS n WHERE position(n IN body) > 0)
"""


def _references_given(session: Session, asked: Mapping[str, Any]) -> int:
    """Take out what payers wrote in place of a reference: it may be a name or a number.

    Of the person's payments, and of those of nobody that quote the person's number.
    """
    rows = execute(
        session, "SELECT id, reference_given FROM payment WHERE id = ANY(:payments)", asked
    )
    ids = [at for at, given in rows if given and not read_reference(given)]
    query = "UPDATE payment SET reference_given = '' WHERE id = ANY(:ids)"
    return execute(session, query, {"ids": [*ids, *asked["unknown"]]}).rowcount


def _of_unknown_debts(session: Session, subject: Subject) -> list[int]:
    """Return the payments that quote the person's number where a reference was asked for."""
    rows = execute(
        session,
        "SELECT id, reference_given FROM payment"
        " WHERE invoice_id IS NULL AND bundle_id IS NULL AND reference_given <> ''",
    )
    return [at for at, given in rows if subject.numbers_in(given)]


_ABOUT: Final = (
    "payment_id = ANY(:payments) OR payment_id = ANY(:unknown) OR subject = ANY(:subjects)"
)
# Free texts that ask for no names, where somebody gave one all the same.
_TEXTS: Final = (
    ("activity", "because", "contributor_id = ANY(:files)"),
    ("invoice", "cancelled_because", "id = ANY(:invoices)"),
    ("plan", "broken_because", "contributor_id = ANY(:files)"),
    ("remission", "broken_because", "contributor_id = ANY(:files)"),
    (
        "payment_attempt",
        "closed_because",
        "invoice_id = ANY(:invoices) OR bundle_id = ANY(:bundles)",
    ),
    ("coded_exception", "resolution", _ABOUT),
    ("coded_exception", "detail", _ABOUT),
)


def _texts(
    session: Session,
    subject: Subject,
    asked: Mapping[str, Any],
    table: str,
    column: str,
    where: str,
) -> int:
    query = f"SELECT id, {column}::text FROM {table} WHERE ({where}) AND {column} IS NOT NULL"
    rows = execute(session, query, asked).all()
    without = _without if column == "detail" else Subject.without
    changed = [(at, without(subject, text)) for at, text in rows if subject.names_in(text)]
    if not changed:
        return 0
    kind = "jsonb" if column == "detail" else "text"
    return execute(
        session,
        f"UPDATE {table} SET {column} = CAST(said.text AS {kind}) FROM unnest("
        "CAST(:ids AS text[]), CAST(:texts AS text[])) AS said (id, text)"
        f" WHERE {table}.id::text = said.id",
        {"ids": [str(at) for at, _ in changed], "texts": [text for _, text in changed]},
    ).rowcount


def _without(subject: Subject, text: str) -> str:
    """Return a JSON text without the person in any of its texts."""

    def told(value: Any) -> Any:
        match value:
            case str():
                return subject.without(value)
            case list():
                return [told(each) for each in value]
            case dict():
                return {name: told(each) for name, each in value.items()}
            case _:
                return value

    return json.dumps(told(json.loads(text)))


# -- by date --------------------------------------------------------------------------------------

_DUE: Final = """
    SELECT c.id FROM contributor c WHERE c.id > :after AND c.merged_into_id IS NULL
        AND c.erased_at IS NULL AND c.left_on <= :left_until
        AND NOT EXISTS (
            SELECT FROM invoice i LEFT JOIN allocation a ON a.invoice_id = i.id
            WHERE i.contributor_id = c.id AND (a.allocated_at > :moved_until
                OR i.cancelled_at IS NULL AND i.status IN ('open', 'part_paid'))
        )
    ORDER BY c.id LIMIT :size
"""


def due_after(session: Session, after: int, *, now: datetime, size: int) -> list[int]:
    """Return the next people of whom the set time seems to have passed, by id.

    Whether nothing else hinders it, `erase` says. The caller owns the transaction.
    """
    period, today = retention().persons, day_of(now)
    latest = date(max(today.year - period.years, 1), 1, 1).replace(
        month=today.month, day=min(today.day, 28)
    )
    # Up to three days too late: whoever falls between is found by a later run.
    asked = {"left_until": latest, "moved_until": latest, "after": after, "size": size}
    return list(execute(session, _DUE, asked).scalars())


@dataclass(slots=True)
class Round:
    """What a walk through those who are due came to."""

    erased: list[Erased] = field(default_factory=list)
    hindered: list[tuple[int, str]] = field(default_factory=list)
    """Who is not erased, and why."""
    next_after: int | None = None
    """Where the walk goes on; None: it came to the end."""


def erase_due(
    holders: Sequence[Holder],
    *,
    now: datetime,
    asked_by: str,
    after: int = 0,
    people_max: int,
) -> Round:
    """Erase the next of whom the set time has passed, a transaction to each; say what came of it.

    Who is hindered is left, and met again by a later walk.
    """
    with transaction() as session:
        ids = due_after(session, after, now=now, size=people_max)
    made = Round(next_after=ids[-1] if len(ids) == people_max else None)
    for at in ids:
        try:
            with transaction() as session:
                done = erase(session, at, holders, asked_by=asked_by, why=BY_DATE, now=now)
        except NotErasable as error:
            made.hindered.append((at, str(error)))
            continue
        if done is not None:
            made.erased.append(done)
    return made
