"""Read the institution's records: a file is loaded with its bad lines named, or refused whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session

from gateway.csvfiles import BadLine, GoodLine, ImportResult, TrailerLine, read_csv, read_day
from gateway.db import copy_rows, execute, transaction
from gateway.dues.periods import parse_period
from gateway.errors import Unusable
from gateway.events import tell
from gateway.exception_queue import Finding, Handled, open_exceptions, opened_events
from gateway.models import ExceptionCode
from gateway.money import UnreadableAmount, format_amount, parse_amount
from gateway.references import read_reference
from reconciliation.models import RecordFile
from reconciliation.trailers import TRAILER, Totals, check_trailer, cnss_number_to_add, refused

COLUMNS: Final = (
    "record_id",
    "reference",
    "cnss_number",
    "cin",
    "name",
    "period",
    "amount",
    "posted_on",
    "channel",
    "provider_reference",
)
REQUIRED: Final = ("record_id", "reference", "amount", "posted_on")
TEXT_MAX: Final = 120
PROGRESS_LINES: Final = 5_000
CONFLICTS_AT_ONCE: Final = 1_000

_ADVISORY_LOCK: Final = 0x7265636F
# The table's columns that a line fills, in the order in which `_record` gives them.
_STORED: Final = (
    "record_id, reference_given, reference, cnss_number, cin, name, period, amount_minor,"
    " posted_on, channel, provider_reference, content_sha256"
)
# What a line says, by the file's names: what a conflict may differ in.
_FIELDS: Final = {
    "reference": "coalesce({side}.reference, {side}.reference_given)",
    "cnss_number": "{side}.cnss_number",
    "cin": "{side}.cin",
    "name": "{side}.name",
    "period": "{side}.period",
    "amount": "{side}.amount_minor",
    "posted_on": "{side}.posted_on",
    "channel": "{side}.channel",
    "provider_reference": "{side}.provider_reference",
}
# Of which the values may be shown; the rest is personal, or somebody else's text.
_SHOWN: Final = ("reference", "period", "amount", "posted_on")

Row = tuple[object, ...]


def import_records(
    path: Path, *, now: datetime, progress: Callable[[int], None] = lambda _: None
) -> ImportResult:
    """Load a file of the institution's records; the same file or record again changes nothing.

    Opens one transaction: the file is applied, or nothing of it. Flat in memory. A line that
    cannot be read is set aside; a record whose id is known with other content is set aside too,
    and opens `conflicting_record`: the first stands. A reference that cannot be read is kept as
    it was given, and is no reason to set a line aside.

    Args:
        path: The file; amounts are decimal strings in dirhams, days are days in Casablanca.
        now: The business clock.
        progress: Told how many data lines have been read so far.

    Raises:
        Unusable: The file cannot be read; or it cannot be trusted as a whole, since an amount is
            unreadable, or its trailer does not agree, or is not its last line.
    """
    result = ImportResult()
    sha256 = _sha256(path)
    with transaction() as session:
        execute(
            session,
            "CREATE TEMPORARY TABLE incoming (line bigint, LIKE institution_record) ON COMMIT DROP",
        )
        execute(
            session,
            "ALTER TABLE incoming ALTER id DROP NOT NULL, ALTER file_id DROP NOT NULL",
        )
        copy_rows(
            session, f"COPY incoming (line, {_STORED}) FROM STDIN", _rows(path, result, progress)
        )
        execute(session, "ANALYZE incoming")
        lock_records(session)
        _apply(session, sha256, result, now)
    return result


def lock_records(session: Session) -> None:
    """Wait until no other import and no other run decides about the institution's records.

    Held to the end of the caller's transaction.
    """
    execute(session, "SELECT pg_advisory_xact_lock(:lock)", {"lock": _ADVISORY_LOCK})


def lock_records_now(session: Session) -> bool:
    """Take the same lock if nobody has it, and say so."""
    query = "SELECT pg_try_advisory_xact_lock(:lock)"
    return bool(execute(session, query, {"lock": _ADVISORY_LOCK}).scalar_one())


def share_records(session: Session) -> None:
    """Wait as `lock_records`, but for nobody who does the same: shards of one run.

    Held to the end of the caller's transaction.
    """
    execute(session, "SELECT pg_advisory_xact_lock_shared(:lock)", {"lock": _ADVISORY_LOCK})


def share_records_now(session: Session) -> bool:
    """Take the same lock if nobody has it alone or waits to, and say so."""
    query = "SELECT pg_try_advisory_xact_lock_shared(:lock)"
    return bool(execute(session, query, {"lock": _ADVISORY_LOCK}).scalar_one())


def _sha256(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}.") from None


# -- reading --------------------------------------------------------------------------------------


def _rows(path: Path, result: ImportResult, progress: Callable[[int], None]) -> Iterator[Row]:
    totals = Totals()
    trailer_at = 0
    for line in read_csv(path, known=COLUMNS, required=REQUIRED, trailer=TRAILER):
        number = line.line if isinstance(line, BadLine) else line.number
        if trailer_at:
            why = f"there is more after the trailer of line {trailer_at}"
            raise refused(path.name, number, why)
        if isinstance(line, TrailerLine):
            check_trailer(path.name, number, line.fields, totals)
            trailer_at = number
            continue
        result.read = totals.lines = totals.lines + 1
        if result.read % PROGRESS_LINES == 0:
            progress(result.read)
        if isinstance(line, BadLine):
            # Fields that cannot be told apart hold an amount that cannot be read.
            raise refused(path.name, number, f"no amount can be read ({line.reason})")
        amount_minor = _amount(path, line)
        totals.amount_minor += amount_minor
        totals.cnss_numbers += cnss_number_to_add(line.values["cnss_number"])
        try:
            yield (number, *_record(line, amount_minor))
        except ValueError as error:
            result.rejected.append(BadLine(number, str(error)))
    progress(result.read)


def _amount(path: Path, line: GoodLine) -> int:
    try:
        amount_minor = parse_amount(line.values["amount"])
    except UnreadableAmount as error:
        raise refused(path.name, line.number, f"the amount cannot be read ({error})") from None
    return amount_minor


def _record(line: GoodLine, amount_minor: int) -> Row:
    """Return a line as the columns of `_STORED`, or raise ValueError with the reason."""
    value = line.values
    record_id = value["record_id"]
    if not record_id:
        raise ValueError("record_id is empty")
    if amount_minor == 0:
        raise ValueError("the amount is zero")
    for column in COLUMNS:
        if len(value[column]) > TEXT_MAX:
            raise ValueError(f"{column} is longer than {TEXT_MAX} characters")
    if not record_id.isprintable():
        raise ValueError("record_id holds a character that cannot be seen")
    period = _period(value["period"])
    posted_on = _day(value["posted_on"])
    given = value["reference"]
    reference = read_reference(given)
    others = (value["cnss_number"], value["cin"], value["name"])
    route = (value["channel"], value["provider_reference"])
    # By what the values mean, so that 163.5 and 163.50 are no conflict. No field can hold a NUL.
    meant = (reference or given, *others, period or "", str(amount_minor), str(posted_on), *route)
    return (
        record_id,
        given,
        reference,
        *(text or None for text in others),
        period,
        amount_minor,
        posted_on,
        *(text or None for text in route),
        hashlib.sha256("\0".join(meant).encode()).digest(),
    )


@lru_cache(maxsize=4096)
def _day(text: str) -> date:
    day = read_day(text)
    if day is None:
        raise ValueError("posted_on is not a day written as 2026-01-31")
    return day


@lru_cache(maxsize=4096)
def _period(text: str) -> str | None:
    if not text:
        return None
    try:
        return parse_period(text).code
    except Unusable:
        raise ValueError("period is neither a month as 2026-11 nor a quarter as 2026-Q4") from None


# -- applying -------------------------------------------------------------------------------------


def _apply(session: Session, sha256: bytes, result: ImportResult, now: datetime) -> None:
    known = execute(
        session, "SELECT id FROM record_file WHERE sha256 = :sha256", {"sha256": sha256}
    )
    file_id: int | None = known.scalar()
    if file_id is None:
        file = RecordFile(sha256=sha256, lines=result.read, imported_at=now)
        session.add(file)
        session.flush()
        assert file.id is not None
        result.loaded = _load(session, file.id)
        conflicts = _set_conflicts_aside(session, result, file.id, now)
    else:
        # What a person decided about its conflicts stands: the same file does not ask again.
        conflicts = _set_conflicts_aside(session, result, None, now)
    readable: int = execute(session, "SELECT count(*) FROM incoming").scalar_one()
    result.unchanged = readable - result.loaded - conflicts


def _load(session: Session, file_id: int) -> int:
    """Insert the first line of each record that is new, and return how many there were."""
    loaded: int = execute(
        session,
        f"""
        WITH loaded AS (
            INSERT INTO institution_record ({_STORED}, file_id)
            SELECT {_STORED}, :file_id
            FROM (SELECT DISTINCT ON (record_id) * FROM incoming ORDER BY record_id, line) AS first
            WHERE NOT EXISTS (
                SELECT FROM institution_record known WHERE known.record_id = first.record_id
            )
            ORDER BY line
            RETURNING 1
        )
        SELECT count(*) FROM loaded
        """,
        {"file_id": file_id},
    ).scalar_one()
    return loaded


def _set_conflicts_aside(
    session: Session, result: ImportResult, file_id: int | None, now: datetime
) -> int:
    """Name the lines that say otherwise than the record that stands, and return how many.

    With a file's id they are opened as exceptions too.
    """
    rows = session.connection().execute(
        sa.text(
            f"""
            SELECT other.line, record_id, {_said_by("known")}, {_said_by("other")}
            FROM incoming other JOIN institution_record known USING (record_id)
            WHERE other.content_sha256 <> known.content_sha256
            ORDER BY other.line
            """
        ),
        execution_options={"yield_per": CONFLICTS_AT_ONCE},
    )
    conflicts = 0
    opened: list[Handled] = []
    for some in rows.partitions():
        conflicts += len(some)
        findings = []
        for line, record_id, known, other in some:
            differs = [field for field in _FIELDS if known[field] != other[field]]
            result.rejected.append(
                BadLine(line, f"its record_id is known with another {', '.join(differs)}")
            )
            detail = {
                "differs": differs,
                "known": _shown(known, differs),
                "set_aside": _shown(other, differs),
                "file": file_id,
                "line": line,
            }
            findings.append(
                Finding(ExceptionCode.CONFLICTING_RECORD, f"record:{record_id}", detail)
            )
        if file_id is not None:
            opened += open_exceptions(session, findings, now=now)
    tell(session, opened_events(opened), now=now)
    return conflicts


def _said_by(side: str) -> str:
    fields = ", ".join(f"'{name}', {of.format(side=side)}" for name, of in _FIELDS.items())
    return f"jsonb_build_object({fields})"


def _shown(said: dict[str, Any], differs: list[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {field: said[field] for field in _SHOWN if field in differs}
    if "amount" in shown:
        shown["amount"] = format_amount(shown["amount"])
    if "reference" in shown:
        # What is no reference may be anything, a name or a number of a person too.
        shown["reference"] = read_reference(shown["reference"])
    return shown
