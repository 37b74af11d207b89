"""Take in settlement files: a file is applied with its bad lines named, or refused whole.

A movement is known by what names it (statements.entry_keys), by whichever message it comes, so the
money that a notification and then a statement tell of is one movement. The first stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session

from gateway import process
from gateway.csvfiles import BadLine, ImportResult
from gateway.db import copy_rows, execute, insert_all, transaction
from gateway.errors import Unusable
from gateway.events import tell
from gateway.exception_queue import (
    Finding,
    Handled,
    open_exceptions,
    opened_events,
    resolve_exceptions,
    resolved_events,
)
from gateway.models import ExceptionCode
from gateway.money import CURRENCY, format_amount
from reconciliation.reading import references_in
from reconciliation.records import lock_records
from reconciliation.sources.chain import Link, gaps, link_of, require_new, said_of
from reconciliation.sources.dialects import dialects
from reconciliation.sources.formats import BYTES_MAX, Format, read_settlements
from reconciliation.sources.models import SettlementFile, SettlementStatement
from reconciliation.sources.owners import require_own_accounts, require_own_lines
from reconciliation.sources.pairing import line_subject, unallocated
from reconciliation.sources.statements import Form, Statement, StatementLine, Why, entry_keys

CONFLICTS_AT_ONCE: Final = 1_000
_CAME_SINCE: Final = "a statement came in between"

_CODES: Final = {
    Why.AMOUNT: ExceptionCode.INVALID_AMOUNT,
    Why.CURRENCY: ExceptionCode.WRONG_CURRENCY,
    Why.UNREADABLE: ExceptionCode.UNREADABLE_DELIVERY,
}
"""What is not booked yet is no question: it comes again, or never happens."""

_STORED: Final = (
    "statement_id, provider, entry_key, transaction, line, kind, amount_minor, entry_minor,"
    " booked_on, value_on, happened_at, payment_ids, quoted, bank_reference, is_reversal,"
    " return_reason, fee_minor, batch_of, details_minor"
)
# What two mentions of one movement must agree in; what only one of them says is no conflict.
_FIELDS: Final = {
    "amount": "{side}.amount_minor",
    "movement": "CASE WHEN {side}.transaction > 0 THEN {side}.entry_minor END",
    "day": "{side}.booked_on",
    "reference": "nullif({side}.quoted, '{{}}')",
    "fee": "{side}.fee_minor",
}
_MONEY: Final = ("amount", "movement", "fee")


def senders() -> list[str]:
    """Return whose settlement files can be taken in: providers, and banks that are none.

    Raises:
        Unusable: The providers file or the dialects file cannot be used.
    """
    return sorted({*process.providers(), *(each.name for each in dialects().source)})


@dataclass(slots=True)
class SettlementsImport(ImportResult):
    """What became of the lines, and what is asked since."""

    opened: list[Handled] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        asked = [{"code": each.code.value, "subject": each.subject} for each in self.opened]
        return {**ImportResult.as_json(self), "opened": asked}


def import_settlements(
    path: Path,
    *,
    provider: str,
    format: Format | None = None,
    now: datetime,
    progress: Callable[[int], None] = lambda _: None,
) -> SettlementsImport:
    """Take in what a provider or a bank says it paid out; the same again changes nothing.

    Opens one transaction: the file is applied, or nothing of it. A line that cannot be read is set
    aside; one that contradicts a known one too, and opens `conflicting_record`: the first stands.

    Args:
        path: The file, of at most BYTES_MAX bytes.
        provider: Whose file it is: one of `senders`.
        format: Its format; None: as its content has it.
        now: The business clock.
        progress: Told how many lines have been read.

    Raises:
        Unusable: Nobody of this name sends files; the file cannot be read; or it cannot be trusted
            as a whole: it was cut, does not add up, is of another currency, contradicts a
            statement that is known, or tells what another sender has told.
    """
    known = senders()
    if provider not in known:
        raise Unusable(
            f"{provider!r} is nobody who sends settlement files: name one of {', '.join(known)}."
        )
    data = _bytes_of(path)
    statements = read_settlements(
        data, path.name, chosen=format, dialects=dialects(), provider=provider
    )
    for statement in statements:
        # A notification of nothing need not say of which currency that is.
        if statement.currency not in {CURRENCY, ""}:
            line = min((each.line for each in statement.lines), default=1)
            raise Unusable(
                f"{path.name}, line {line}: statement {statement.number} is in"
                f" {statement.currency[:3]}, not {CURRENCY}: the whole file is refused."
            )
    result = SettlementsImport()
    aside = [each for statement in statements for each in statement.set_aside]
    result.rejected = [BadLine(each.line, each.reason) for each in aside]
    result.read = sum(len(statement.lines) for statement in statements) + len(aside)
    progress(result.read)
    with transaction() as session:
        lock_records(session)
        _Import(session, path.name, provider, data, now).apply(statements, result)
    return result


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}.") from None
    if len(data) > BYTES_MAX:
        raise Unusable(f"{path.name} is larger than {BYTES_MAX // 2**20} MiB: split it.")
    return data


@dataclass(slots=True)
class _Import:
    """Applies one file within the caller's transaction."""

    session: Session
    name: str
    provider: str
    data: bytes
    now: datetime

    def apply(self, statements: Sequence[Statement], result: SettlementsImport) -> None:
        session = self.session
        sha256 = hashlib.sha256(self.data).digest()
        asked = {"provider": self.provider, "sha256": sha256}
        file_id: int | None = execute(
            session,
            "SELECT id FROM settlement_file WHERE provider = :provider AND sha256 = :sha256",
            asked,
        ).scalar()
        is_new = file_id is None
        links = self._known_links(statements)
        repeated = require_new(self.name, links, map(link_of, statements)) if is_new else []
        if file_id is None:
            file = SettlementFile(
                provider=self.provider, sha256=sha256, lines=result.read, imported_at=self.now
            )
            session.add(file)
            session.flush()
            assert file.id is not None
            file_id = file.id
        ids = self._keep_statements(file_id, statements)
        execute(
            session,
            "CREATE TEMPORARY TABLE incoming (seq bigint, LIKE settlement_line) ON COMMIT DROP",
        )
        execute(session, "ALTER TABLE incoming ALTER id DROP NOT NULL")
        copy_rows(
            session, f"COPY incoming (seq, {_STORED}) FROM STDIN", self._rows(statements, ids)
        )
        execute(session, "ANALYZE incoming")
        if is_new:
            require_own_lines(session, self.name, self.provider)
            result.loaded = execute(session, _LOAD).scalar_one()
        opened = result.opened
        conflicts = self._set_conflicts_aside(file_id, result, opened, ask=is_new)
        readable: int = execute(session, "SELECT count(*) FROM incoming").scalar_one()
        result.unchanged = readable - result.loaded - conflicts
        closed: list[Handled] = []
        if is_new:
            opened += self._open(self._other_findings(file_id, statements, repeated, sha256))
            self._follow(statements, opened, closed)
        tell(session, [*opened_events(opened), *resolved_events(closed)], now=self.now)

    def _open(self, findings: Iterable[Finding]) -> list[Handled]:
        return open_exceptions(self.session, list(findings), now=self.now)

    # -- statements -------------------------------------------------------------------------------

    def _known_links(self, statements: Sequence[Statement]) -> list[Link]:
        """Return what is known of these accounts; an account is one sender's."""
        accounts = sorted({each.account for each in statements if each.account})
        require_own_accounts(self.session, self.name, self.provider, accounts)
        return links_of(self.session, self.provider, accounts)

    def _keep_statements(self, file_id: int, statements: Sequence[Statement]) -> dict[bytes, int]:
        """Insert the statements that are new, and return the keys of all by their content."""
        rows = {
            each.content_sha256(): {
                "file_id": file_id,
                "provider": self.provider,
                "form": each.form.value,
                "account": each.account,
                "number": each.number,
                "opening_minor": each.opening_minor,
                "closing_minor": each.closing_minor,
                "from_on": each.from_on,
                "to_on": each.to_on,
                "content_sha256": each.content_sha256(),
            }
            for each in statements
        }
        insert_all(
            self.session,
            SettlementStatement,
            list(rows.values()),
            conflict="(provider, content_sha256) DO NOTHING",
        )
        kept = execute(
            self.session,
            "SELECT content_sha256, id FROM settlement_statement"
            " WHERE provider = :provider AND content_sha256 = ANY(:contents)",
            {"provider": self.provider, "contents": list(rows)},
        )
        return {bytes(content): key for content, key in kept}

    def _follow(
        self, statements: Sequence[Statement], opened: list[Handled], closed: list[Handled]
    ) -> None:
        """Ask about statements that are missing, and no longer about those that came."""
        for account in sorted({each.account for each in statements if each.account}):
            prefix = f"settlement:{self.provider}/{account}/"
            found = {
                f"{prefix}{gap.statement.to_on}/{gap.statement.number}": said_of(gap)
                for gap in gaps(links_of(self.session, self.provider, [account]))
            }
            code = ExceptionCode.MISSING_STATEMENT
            asked = execute(
                self.session,
                "SELECT subject, detail, resolved_at IS NULL, resolution FROM coded_exception"
                " WHERE code = :code AND starts_with(subject, :prefix)",
                {"code": code.value, "prefix": prefix},
            ).all()
            gone = [
                subject
                for subject, detail, is_open, _ in asked
                if is_open and found.get(subject) != detail
            ]
            closed += resolve_exceptions(
                self.session, code, gone, because=_CAME_SINCE, now=self.now
            )
            # What a person decided about the same gap stands.
            decided = {
                (subject, *sorted(detail.items()))
                for subject, detail, is_open, resolution in asked
                if not is_open and resolution != _CAME_SINCE
            }
            opened += self._open(
                Finding(code, about, said)
                for about, said in found.items()
                if (about, *sorted(said.items())) not in decided
            )

    # -- lines ------------------------------------------------------------------------------------

    def _rows(
        self, statements: Sequence[Statement], ids: dict[bytes, int]
    ) -> Iterator[tuple[object, ...]]:
        seq = 0
        for statement in statements:
            statement_id = ids[statement.content_sha256()]
            for line, key in zip(statement.lines, entry_keys(statement), strict=True):
                seq += 1
                yield (seq, statement_id, self.provider, key, *_row(line))

    def _set_conflicts_aside(
        self, file_id: int, result: ImportResult, opened: list[Handled], *, ask: bool
    ) -> int:
        """Name the lines that say otherwise than the one that stands, and return how many."""
        rows = self.session.connection().execute(
            sa.text(_CONFLICTS), execution_options={"yield_per": CONFLICTS_AT_ONCE}
        )
        conflicts = 0
        for some in rows.partitions():
            conflicts += len(some)
            findings = []
            for line, key, part, known, other, is_other in some:
                differs = [
                    field
                    for field in _FIELDS
                    if None not in (known[field], other[field]) and known[field] != other[field]
                ] or ["statement" if is_other else "details"]
                result.rejected.append(
                    BadLine(line, f"the same is known with another {', '.join(differs)}")
                )
                detail = {
                    "differs": differs,
                    "known": _shown(known, differs),
                    "set_aside": _shown(other, differs),
                    "file": file_id,
                    "line": line,
                }
                subject = line_subject(self.provider, key, part)
                findings.append(Finding(ExceptionCode.CONFLICTING_RECORD, subject, detail))
            if ask:
                opened += self._open(findings)
        return conflicts

    def _other_findings(
        self,
        file_id: int,
        statements: Sequence[Statement],
        repeated: Sequence[Link],
        sha256: bytes,
    ) -> Iterator[Finding]:
        aside = [each for statement in statements for each in statement.set_aside]
        for at, each in enumerate(aside, start=1):
            code = _CODES.get(each.why)
            if code is not None:
                subject = f"settlement:{self.provider}/{sha256.hex()[:16]}:{at}"
                detail = {"reason": each.reason, "file": file_id, "line": each.line}
                yield Finding(code, subject, detail)
        for link in repeated:
            subject = f"settlement:{self.provider}/{link.account}/{link.number}"
            detail = {"differs": ["content"], "day": str(link.to_on), "file": file_id}
            yield Finding(ExceptionCode.CONFLICTING_RECORD, subject, detail)
        for statement in statements:
            for line, key in zip(statement.lines, entry_keys(statement), strict=True):
                if line.details_minor is not None:
                    detail = unallocated(line.entry_minor, line.details_minor)
                    subject = line_subject(self.provider, key, line.transaction)
                    yield Finding(ExceptionCode.AMOUNT_DIFFERS, subject, detail)


def links_of(session: Session, provider: str, accounts: Sequence[str]) -> list[Link]:
    """Return what is known of a sender's statements of these accounts. Caller's transaction."""
    rows = execute(
        session,
        "SELECT form, account, number, opening_minor, closing_minor, from_on, to_on, content_sha256"
        " FROM settlement_statement WHERE provider = :provider AND account = ANY(:accounts)"
        " ORDER BY id",
        {"provider": provider, "accounts": list(accounts)},
    )
    return [
        Link(Form(form), account, number, opening, closing, from_on, to_on, bytes(content))
        for form, account, number, opening, closing, from_on, to_on, content in rows
    ]


def _row(line: StatementLine) -> tuple[object, ...]:
    quoted = sorted({str(each) for text in line.texts for each in references_in(text)})
    return (
        *(line.transaction, line.line, line.kind.value, line.amount_minor, line.entry_minor),
        *(line.booked_on, line.value_on, line.happened_at, list(line.payment_ids), quoted),
        *(line.bank_reference, line.is_reversal, line.return_reason, line.fee_minor),
        *(line.batch_of, line.details_minor),
    )


def _shown(said: dict[str, Any], differs: Sequence[str]) -> dict[str, Any]:
    return {
        field: format_amount(said[field]) if field in _MONEY else said[field]
        for field in differs
        if said.get(field) is not None
    }


def _said_by(side: str) -> str:
    fields = ", ".join(f"'{name}', {of.format(side=side)}" for name, of in _FIELDS.items())
    return f"jsonb_build_object({fields})"


# The first line of a movement in the file decides what the movement comes to. A movement that is
# known as a whole takes its details, if they come to the same; all else that is known stands.
_LOAD: Final = f"""
    WITH first AS (
        SELECT DISTINCT ON (entry_key, transaction) * FROM incoming
        ORDER BY entry_key, transaction, seq
    ), movement AS (
        SELECT DISTINCT ON (entry_key) entry_key, entry_minor FROM incoming ORDER BY entry_key, seq
    ), loaded AS (
        INSERT INTO settlement_line ({_STORED})
        SELECT {_STORED} FROM first JOIN movement USING (entry_key, entry_minor)
        WHERE NOT EXISTS (
            SELECT FROM settlement_line known
            WHERE known.provider = first.provider AND known.entry_key = first.entry_key
                AND NOT (known.transaction = 0 AND first.transaction > 0
                    AND known.entry_minor = first.entry_minor)
        )
        ORDER BY seq
        RETURNING 1
    )
    SELECT count(*) FROM loaded
"""
# Statements whose balances lead over different money cannot tell of one movement: a bank that names
# two alike leaves it to a person. Each side of the lateral query is one step into an index, since a
# movement may have a hundred thousand payments.
_CONFLICTS: Final = f"""
    SELECT other.line, other.entry_key, other.transaction, {_said_by("known")}, {_said_by("other")},
        apart.is_other
    FROM incoming other
    CROSS JOIN LATERAL (
        SELECT * FROM (
            SELECT false AS is_least, same.* FROM settlement_line same
            WHERE same.provider = other.provider AND same.entry_key = other.entry_key
                AND same.transaction = other.transaction
            UNION ALL
            (SELECT true, least.* FROM settlement_line least
            WHERE least.provider = other.provider AND least.entry_key = other.entry_key
            ORDER BY least.transaction LIMIT 1)
        ) AS either ORDER BY is_least LIMIT 1
    ) AS known
    CROSS JOIN LATERAL (
        SELECT coalesce(bool_or(mine.opening_minor <> its.opening_minor), false) AS is_other
        FROM settlement_statement mine JOIN settlement_statement its ON its.id = known.statement_id
        WHERE mine.id = other.statement_id AND mine.id <> its.id
    ) AS apart
    WHERE is_other OR CASE WHEN known.transaction = other.transaction THEN
            known.amount_minor <> other.amount_minor OR known.entry_minor <> other.entry_minor
            OR known.booked_on <> other.booked_on OR known.fee_minor <> other.fee_minor
            OR nullif(known.quoted, '{{}}') <> nullif(other.quoted, '{{}}')
        ELSE other.transaction <> 0 OR known.entry_minor <> other.entry_minor END
    ORDER BY other.seq
"""
