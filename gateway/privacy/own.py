"""What the gateway itself holds about a person: register, debts, money, papers, what was told.

Every query is bound to the person's own rows. Where a row is about others too (a reference that
pays several people's invoices, a file of printed notices) only the person's part of it is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlmodel import Session

from gateway.codes import cose
from gateway.db import execute
from gateway.events import FEED
from gateway.models import AccountKind
from gateway.privacy import Section, Subject, said
from gateway.privacy.periods import KEPT_WITH_BOOKS, kept_persons
from gateway.retention import retention
from gateway.words.catalogs import mark

ANSWERS_KEPT: Final = "Seven days: as long as a program may send a request again."

_TO_BILL: Final = mark("To know who owes contributions, and how much")
_TO_BOOK: Final = mark("To book what was paid, once, and to prove it")
_TO_PROVE: Final = mark("To prove what was paid, and who is up to date")
_TO_REMIND: Final = mark("To tell the person what is due and what was paid")
_TO_DECIDE: Final = mark("To have a person decide what a machine must not")
_TO_TELL: Final = mark("To tell the programs of the institution what happened, once")
_TO_ACCOUNT: Final = mark("To show that personal data were erased, by whom and why")


@dataclass(frozen=True, slots=True)
class _Asked:
    """One section: what it is called, and the query that fills it."""

    name: str
    title: str
    purpose: str
    tables: tuple[str, ...]
    query: str
    named: bool = False
    """Whether it names the person, and is emptied by an erasure."""


_ASKED: Final = (
    _Asked(
        "register",
        mark("Files in the register"),
        _TO_BILL,
        ("contributor",),
        "SELECT * FROM contributor WHERE id = ANY(:files) ORDER BY merged_into_id IS NOT NULL, id",
        named=True,
    ),
    _Asked(
        "activities",
        mark("Activities"),
        _TO_BILL,
        ("activity",),
        "SELECT * FROM activity WHERE contributor_id = ANY(:files) ORDER BY id",
    ),
    _Asked(
        "reassessments_due",
        mark("Re-assessments to be done"),
        _TO_BILL,
        ("reassessment_due",),
        "SELECT * FROM reassessment_due WHERE contributor_id = ANY(:files) ORDER BY 1",
    ),
    _Asked(
        "invoices",
        mark("Invoices"),
        _TO_BILL,
        ("invoice",),
        "SELECT reference, contributor_id, category_code, period, due_on, amount_minor, paid_minor,"
        " owed_minor, status, tariff, issued_at, cancelled_at, cancelled_because"
        " FROM invoice WHERE id = ANY(:invoices) ORDER BY due_on, id",
    ),
    _Asked(
        "invoice_lines",
        mark("Lines of invoices"),
        _TO_BILL,
        ("invoice_line", "rule"),
        "SELECT i.reference, l.position, l.kind, l.amount_minor, r.rule, r.source, r.verified,"
        " r.facts FROM invoice_line l JOIN invoice i ON i.id = l.invoice_id"
        " JOIN rule r ON r.id = l.rule_id WHERE i.id = ANY(:invoices)"
        " ORDER BY i.due_on, i.id, l.position",
    ),
    _Asked(
        "invoice_notes",
        mark("Credits and charges on invoices"),
        _TO_BILL,
        ("invoice_note",),
        "SELECT i.reference, n.kind, n.amount_minor, n.due_on, n.noted_on, r.rule, r.source,"
        " r.verified, n.because, n.noted_at FROM invoice_note n"
        " JOIN invoice i ON i.id = n.invoice_id JOIN rule r ON r.id = n.rule_id"
        " WHERE i.id = ANY(:invoices) ORDER BY n.id",
    ),
    _Asked(
        "plans",
        mark("Instalment plans"),
        _TO_BILL,
        ("plan",),
        "SELECT b.reference, p.rule, p.made_on, p.months, p.amount_minor, p.kept_on, p.broken_on,"
        " p.broken_because, p.made_at FROM plan p JOIN bundle b ON b.id = p.bundle_id"
        " WHERE p.contributor_id = ANY(:files) ORDER BY p.id",
    ),
    _Asked(
        "plan_instalments",
        mark("Parts of instalment plans"),
        _TO_BILL,
        ("plan_instalment",),
        "SELECT b.reference, s.position, s.due_on, s.amount_minor FROM plan_instalment s"
        " JOIN plan p ON p.id = s.plan_id JOIN bundle b ON b.id = p.bundle_id"
        " WHERE p.contributor_id = ANY(:files) ORDER BY p.id, s.position",
    ),
    _Asked(
        "remissions",
        mark("Remissions"),
        _TO_BILL,
        ("remission",),
        "SELECT campaign, granted_on, kept_on, broken_on, broken_because, granted_at FROM remission"
        " WHERE contributor_id = ANY(:files) ORDER BY id",
    ),
    _Asked(
        "reliefs",
        mark("What plans and remissions do to invoices"),
        _TO_BILL,
        ("invoice_relief",),
        "SELECT i.reference, l.granted_on, l.principal_rate, l.penalty_rate, l.fee_rate,"
        " l.stops_penalty, l.ended_on, r.rule, r.source, r.verified FROM invoice_relief l"
        " JOIN invoice i ON i.id = l.invoice_id JOIN rule r ON r.id = l.rule_id"
        " WHERE i.id = ANY(:invoices) ORDER BY l.id",
    ),
    _Asked(
        "bundles",
        mark("References that pay several invoices"),
        _TO_BILL,
        ("bundle", "bundle_item"),
        "SELECT CASE WHEN b.id = ANY(:bundles) THEN b.reference END AS reference, b.kind,"
        " b.made_at, b.withdrawn_at, ARRAY(SELECT CAST(i.reference AS text) FROM bundle_item o"
        " JOIN invoice i ON i.id = o.invoice_id WHERE o.bundle_id = b.id"
        " AND i.id = ANY(:invoices) ORDER BY o.position) AS your_invoices"
        " FROM bundle b WHERE b.id = ANY(:bundles) OR b.id IN (SELECT bundle_id FROM bundle_item"
        " WHERE invoice_id = ANY(:invoices)) ORDER BY b.id",
    ),
    _Asked(
        "messages",
        mark("Messages to the telephone"),
        _TO_REMIND,
        ("message",),
        "SELECT kind, about, state, because, made_at, sent_at, language, text, sender FROM message"
        " WHERE contributor_id = ANY(:files) ORDER BY id",
        named=True,
    ),
    _Asked(
        "message_stops",
        mark("Wish to get no messages"),
        _TO_REMIND,
        ("message_stop",),
        "SELECT asked_by, why, stopped_at FROM message_stop WHERE contributor_id = ANY(:files)",
    ),
    _Asked(
        "payments",
        mark("Payments"),
        _TO_BOOK,
        ("payment",),
        "SELECT provider, provider_payment_id, status, reference_given, amount_minor, currency,"
        " channel, agent_id, terminal_id, fee_minor, paid_at, stated_at, recorded_at, booked_at,"
        " returned_minor, source FROM payment WHERE id = ANY(:payments) ORDER BY paid_at, id",
    ),
    _Asked(
        "allocations",
        mark("What payments paid of invoices"),
        _TO_BOOK,
        ("allocation",),
        # A payment for several people's invoices is told by what it paid of this person's alone.
        "SELECT CASE WHEN p.id = ANY(:payments) THEN p.provider || '/' || p.provider_payment_id"
        " END AS payment, i.reference, a.component, a.amount_minor, a.policy, a.allocated_at"
        " FROM allocation a JOIN payment p ON p.id = a.payment_id"
        " JOIN invoice i ON i.id = a.invoice_id WHERE i.id = ANY(:invoices) ORDER BY a.id",
    ),
    _Asked(
        "returns",
        mark("Refunds and disputes"),
        _TO_BOOK,
        ("payment_return",),
        "SELECT r.provider, r.provider_payment_id, r.return_id, r.kind, r.state, r.amount_minor,"
        " r.made_at, r.stated_at, r.restored_at, r.outcome, r.source, r.recorded_at"
        " FROM payment_return r JOIN payment p USING (provider, provider_payment_id)"
        " WHERE p.id = ANY(:payments) ORDER BY r.id",
    ),
    _Asked(
        "attempts",
        mark("Payments begun from here"),
        _TO_BOOK,
        ("payment_attempt",),
        # One for several people's invoices is no more of this person than of the others.
        "SELECT a.id, coalesce(i.reference, b.reference) AS reference, a.provider, a.manner,"
        " a.amount_minor, a.language, a.state, a.session_id, a.page_url, a.code,"
        " a.provider_payment_id, a.made_at, a.expires_at, a.closed_because"
        " FROM payment_attempt a LEFT JOIN invoice i ON i.id = a.invoice_id"
        " LEFT JOIN bundle b ON b.id = a.bundle_id"
        " WHERE i.id = ANY(:invoices) OR b.id = ANY(:bundles) ORDER BY a.made_at, a.id",
    ),
    _Asked(
        "refunds",
        mark("Refunds that we began"),
        _TO_BOOK,
        ("refund", "refund_step"),
        "SELECT r.id, p.provider, p.provider_payment_id, r.amount_minor, r.way, r.because,"
        " r.asked_at, s.state, s.because AS step_because, s.taken_at"
        " FROM refund r JOIN payment p ON p.id = r.payment_id"
        " JOIN refund_step s ON s.refund_id = r.id WHERE p.id = ANY(:payments) ORDER BY s.id",
    ),
    _Asked(
        "books",
        mark("Entries in the books"),
        _TO_BOOK,
        ("ledger_transfer", "ledger_account"),
        "SELECT t.id, t.posted_at, d.kind AS debit, c.kind AS credit, t.amount_minor,"
        " i.reference FROM ledger_transfer t JOIN ledger_account d ON d.id = t.debit_account_id"
        " JOIN ledger_account c ON c.id = t.credit_account_id"
        " LEFT JOIN invoice i ON i.id = t.invoice_id WHERE t.id IN ("
        "SELECT id FROM ledger_transfer WHERE payment_id = ANY(:payments)"
        " AND (invoice_id IS NULL OR invoice_id = ANY(:invoices))"
        " UNION SELECT t.id FROM ledger_transfer t"
        " WHERE t.invoice_id = ANY(:invoices) AND t.payment_id IN ("
        "SELECT payment_id FROM allocation WHERE invoice_id = ANY(:invoices))"
        " UNION SELECT t.id FROM ledger_transfer t JOIN ledger_account a"
        " ON a.id IN (t.debit_account_id, t.credit_account_id) WHERE a.code = ANY(:accounts)"
        ") ORDER BY t.id",
    ),
    _Asked(
        "receipts",
        mark("Receipts"),
        _TO_PROVE,
        ("receipt", "receipt_due"),
        "SELECT r.number, p.provider, p.provider_payment_id, i.reference, r.issued_at, r.key_id,"
        " r.signed FROM receipt r JOIN payment p ON p.id = r.payment_id"
        " LEFT JOIN invoice i ON i.id = r.invoice_id WHERE p.id = ANY(:payments) ORDER BY r.id",
    ),
    _Asked(
        "attestations",
        mark("Attestations"),
        _TO_PROVE,
        ("attestation",),
        "SELECT number, issued_on, valid_until, issued_at, key_id, signed FROM attestation"
        " WHERE contributor_id = ANY(:files) ORDER BY id",
    ),
    _Asked(
        "print_files",
        mark("Printed notices"),
        _TO_BILL,
        ("print_file", "print_run"),
        "SELECT f.run_id AS run, r.folder, f.position, r.ordered_at, f.printed_at,"
        " ARRAY(SELECT CAST(reference AS text) FROM invoice WHERE id = ANY(f.invoice_ids)"
        " AND id = ANY(:invoices) ORDER BY id) AS your_invoices"
        " FROM print_file f JOIN print_run r ON r.id = f.run_id"
        " WHERE f.invoice_ids && CAST(:invoices AS bigint[]) ORDER BY f.run_id, f.position",
    ),
    _Asked(
        "exceptions",
        mark("Questions that a person decides"),
        _TO_DECIDE,
        ("coded_exception",),
        "SELECT id, code, subject, detail, opened_at, resolved_at, resolution FROM coded_exception"
        " WHERE payment_id = ANY(:payments) OR subject = ANY(:subjects) ORDER BY id",
    ),
    _Asked(
        "events",
        mark("What others were told"),
        _TO_TELL,
        ("event",),
        f"SELECT e.id, e.type, i.reference, e.data, e.happened_at FROM {FEED} AS e"
        " LEFT JOIN invoice i ON i.id = e.invoice_id WHERE"
        " (e.invoice_id = ANY(:invoices)"
        "   AND (e.payment_id IS NULL OR e.payment_id = ANY(:payments)))"
        " OR (e.payment_id = ANY(:payments) AND e.invoice_id IS NULL) ORDER BY e.id",
    ),
    _Asked(
        "erasures",
        mark("Erasures"),
        _TO_ACCOUNT,
        ("erasure",),
        "SELECT asked_by, why, erased_at, found FROM erasure WHERE contributor_id = ANY(:files)"
        " ORDER BY id",
    ),
)

_ANSWERS: Final = _Asked(
    "kept_answers",
    mark("Answers kept for requests that are sent again"),
    mark("To answer a request that is sent again, and not to do it twice"),
    ("idempotent_answer",),
    "SELECT answered_at, status FROM idempotent_answer WHERE body IS NOT NULL AND"
    " EXISTS (SELECT FROM unnest(CAST(:needles AS bytea[])) AS n WHERE position(n IN body) > 0)"
    " ORDER BY answered_at",
)

TABLES: Final = frozenset(table for asked in (*_ASKED, _ANSWERS) for table in asked.tables)
"""All that this answers for."""


def held(session: Session, subject: Subject) -> list[Section]:
    """Return what the gateway holds of a person, and of nobody else. Reads only."""
    asked = {
        "files": list(subject.file_ids),
        "invoices": list(subject.invoice_ids),
        "bundles": list(subject.bundle_ids),
        "payments": list(subject.payment_ids),
        "accounts": credit_accounts(subject),
        "subjects": exception_subjects(subject),
    }
    until = kept_persons(retention().persons)
    sections = [
        Section(
            each.name,
            each.title,
            each.purpose,
            until if each.named else KEPT_WITH_BOOKS,
            [_shown(row) for row in execute(session, each.query, asked).mappings()],
        )
        for each in _ASKED
    ]
    answers = execute(session, _ANSWERS.query, {"needles": answer_needles(subject)}).mappings()
    rows = [said(row) for row in answers]
    named = (_ANSWERS.name, _ANSWERS.title, _ANSWERS.purpose)
    return [*sections, Section(*named, ANSWERS_KEPT, rows)]


def _shown(row: Any) -> dict[str, Any]:
    values = dict(row)
    if "signed" in values:
        values["signed"] = cose.as_text(bytes(values["signed"]))
    return said(values)


def credit_accounts(subject: Subject) -> list[str]:
    """Return the accounts of what is held as the person's own."""
    return [f"{AccountKind.CREDIT}:{file_id}" for file_id in subject.file_ids]


def exception_subjects(subject: Subject) -> list[str]:
    """Return what exceptions about the person's invoices and payments are about."""
    payments = [f"payment:{provider}/{named}" for provider, named in subject.payments]
    return [*payments, *subject.sources, *(f"invoice:{each}" for each in subject.references)]


def answer_needles(subject: Subject) -> list[bytes]:
    """Return what an answer that was kept has in it, if it is about the person."""
    texts = [*subject.cnss_numbers, *subject.cins, *subject.phones, *subject.references]
    ids = [f'"contributor_id":"{file_id}"' for file_id in subject.file_ids]
    return [f'"{text}"'.encode() for text in texts] + [text.encode() for text in ids]
