"""Read the CSV settlement files of agents, by a dialect that is declared. Pure.

A line is a payment, or takes one back; what cannot be read is set aside with its reason. The
trailer counts every data line and adds up every amount. A line whose amount cannot be read leaves
its sum unproved, which is said of that line; its count holds all the same.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from typing import Final

from gateway.clock import INSTITUTION_ZONE
from gateway.money import AMOUNT_MINOR_MAX, CURRENCY, format_amount
from reconciliation.sources.dialects import DAYS, TIMES, Dialect
from reconciliation.sources.statements import (
    BALANCE_MINOR_MAX,
    DAY_MAX,
    DAY_MIN,
    TEXT_MAX,
    Draft,
    Form,
    Kind,
    Statement,
    StatementLine,
    Why,
    days_covered,
    refused,
)

LINE_BYTES_MAX: Final = 65_536
_CURRENCY: Final = re.compile(r"[A-Z]{3}", re.ASCII)


class _Unread(Exception):
    """A line cannot be read; the text says what of it."""

    def __init__(self, why: Why, reason: str) -> None:
        super().__init__(reason)
        self.why: Final = why


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    fields: Sequence[str]
    """Empty where they cannot be told apart."""
    reason: str = ""


def read_agents_csv(data: bytes, name: str, dialects: Sequence[Dialect]) -> Statement:
    """Return what a file says.

    Args:
        data: The file: UTF-8, with or without a byte-order mark.
        name: Its name, for what is said of it.
        dialects: What it may be written in: the one whose columns its header has.

    Raises:
        Unusable: No dialect fits or several do, or the trailer is missing, in the wrong place, or
            does not agree.
    """
    first, _, rest = data.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    dialect, header = _dialect(first, name, dialects)
    reader = _Reader(dialect, header, name)
    for row in _rows(rest, dialect.delimiter):
        reader.take(row)
    return reader.statement()


def _dialect(first: bytes, name: str, dialects: Sequence[Dialect]) -> tuple[Dialect, list[str]]:
    fitting = []
    for dialect in dialects:
        row = _fields(1, first, dialect.delimiter)
        if row.fields and {*dialect.needed()} <= {*row.fields}:
            fitting.append((dialect, list(row.fields)))
    if len(fitting) != 1:
        known = ", ".join(each.name for each in dialects) or "none"
        what = "no dialect fits" if not fitting else "several dialects fit"
        raise refused(name, 1, f"{what} this header (known: {known})")
    dialect, header = fitting[0]
    repeated = [column for column in dialect.needed() if header.count(column) > 1]
    if repeated:
        raise refused(name, 1, f"the column {repeated[0]} stands there twice")
    return dialect, header


def _rows(data: bytes, delimiter: str) -> Iterator[_Row]:
    for number, raw in enumerate(io.BytesIO(data), start=2):
        if raw.strip():
            yield _fields(number, raw, delimiter)


def _fields(line: int, raw: bytes, delimiter: str) -> _Row:
    if len(raw) > LINE_BYTES_MAX:
        return _Row(line, (), f"it is longer than {LINE_BYTES_MAX} bytes")
    try:
        text = raw.decode("utf-8").removesuffix("\n").rstrip("\r")
    except UnicodeDecodeError:
        return _Row(line, (), "it is not UTF-8")
    if "\x00" in text:
        return _Row(line, (), "it has a NUL character")
    try:
        rows = list(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        return _Row(line, (), "its quotes or separators cannot be read")
    return _Row(line, tuple(each.strip() for each in rows[0]) if rows else ())


@dataclass(slots=True)
class _Totals:
    lines: int = 0
    sums: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    """By column: the first line whose amount cannot be read."""


class _Reader:
    """Takes the lines of one file."""

    def __init__(self, dialect: Dialect, header: list[str], name: str) -> None:
        self._dialect: Final = dialect
        self._columns: Final = {each: header.index(each) for each in dialect.needed()}
        self._width: Final = len(header)
        self._amounts: Final = _amount_pattern(dialect)
        self._draft: Final = Draft(name)
        self._totals: Final = _Totals(sums=dict.fromkeys(dialect.summed(), 0))
        self._trailer_at = 0
        self._last_line = 1

    def take(self, row: _Row) -> None:
        draft, trailer = self._draft, self._dialect.trailer
        if self._trailer_at:
            raise draft.refused(row.line, f"there is more after line {self._trailer_at}, the last")
        self._last_line = row.line
        if trailer is not None and row.fields and row.fields[0] == trailer.word:
            self._check_trailer(row)
            return
        self._totals.lines += 1
        if len(row.fields) != self._width:
            reason = row.reason or f"{len(row.fields)} fields where the header has {self._width}"
            for column in self._totals.sums:
                self._totals.unread.setdefault(column, row.line)
            draft.put_aside(row.line, Why.UNREADABLE, reason)
            return
        try:
            draft.lines.append(self._line(row, **self._money(row)))
        except _Unread as unread:
            draft.put_aside(row.line, unread.why, str(unread))

    def statement(self) -> Statement:
        draft, trailer = self._draft, self._dialect.trailer
        if trailer is not None and trailer.required and not self._trailer_at:
            raise draft.refused(
                self._last_line, f"the file was cut: its last line is no {trailer.word}"
            )
        from_on, to_on = days_covered([line.booked_on for line in draft.lines])
        return Statement(
            form=Form.CSV,
            account="",
            number="",
            currency=CURRENCY,
            lines=tuple(draft.lines),
            set_aside=tuple(draft.set_aside),
            from_on=from_on,
            to_on=to_on,
        )

    # -- one line ---------------------------------------------------------------------------------

    def _value(self, row: _Row, column: str | None) -> str:
        return "" if column is None else row.fields[self._columns[column]]

    def _money(self, row: _Row) -> dict[str, int | None]:
        """Return amount and fee, added to the sums whatever else the line says."""
        found: dict[str, int | None] = {"amount_minor": None, "fee_minor": None}
        names = zip(("amount_minor", "fee_minor"), self._dialect.summed(), strict=False)
        wrong = ""
        for name, column in names:
            text = self._value(row, column)
            if name == "fee_minor" and not text:
                continue
            minor = self._minor(text, AMOUNT_MINOR_MAX)
            if minor is None:
                self._totals.unread.setdefault(column, row.line)
                wrong = wrong or f"{column} cannot be read as an amount"
                continue
            self._totals.sums[column] += minor
            found[name] = minor
        if wrong:
            raise _Unread(Why.AMOUNT, wrong)
        return found

    def _line(self, row: _Row, *, amount_minor: int | None, fee_minor: int | None) -> StatementLine:
        columns = self._dialect.columns
        assert amount_minor is not None
        currency = self._value(row, columns.currency) or CURRENCY
        if currency != CURRENCY:
            named = currency if _CURRENCY.fullmatch(currency) else "another one"
            raise _Unread(Why.CURRENCY, f"its currency is {named}, not {CURRENCY}")
        transaction = self._value(row, columns.transaction)
        if not transaction or len(transaction) > TEXT_MAX or not transaction.isprintable():
            raise _Unread(Why.UNREADABLE, f"{columns.transaction} is empty or cannot be an id")
        kind = self._kind(row, amount_minor)
        booked_on, happened_at = self._when(row)
        return StatementLine(
            line=row.line,
            kind=kind,
            amount_minor=amount_minor,
            booked_on=booked_on,
            happened_at=happened_at,
            payment_ids=(transaction,),
            texts=(self._value(row, columns.reference),),
            entry=row.line,
            entry_minor=amount_minor,
            is_reversal=kind is Kind.REVERSAL,
            fee_minor=fee_minor,
        )

    def _kind(self, row: _Row, amount_minor: int) -> Kind:
        column = self._dialect.columns.kind
        if not amount_minor:
            raise _Unread(Why.AMOUNT, "its amount is zero")
        if column is None:
            return Kind.PAYMENT if amount_minor > 0 else Kind.REVERSAL
        kind = self._dialect.kinds.get(self._value(row, column))
        if kind is None:
            known = ", ".join(self._dialect.kinds)
            raise _Unread(Why.UNREADABLE, f"{column} is none of {known}")
        if (kind is Kind.PAYMENT and amount_minor < 0) or (
            kind is Kind.REVERSAL and amount_minor > 0
        ):
            raise _Unread(Why.AMOUNT, f"its amount has the wrong sign for a {kind}")
        return kind

    def _when(self, row: _Row) -> tuple[date, datetime | None]:
        dialect = self._dialect
        text = self._value(row, dialect.columns.day)
        day = _day(text, dialect.day)
        if day is None:
            raise _Unread(
                Why.UNREADABLE, f"{dialect.columns.day} is no day written as {dialect.day}"
            )
        if dialect.time is None or dialect.columns.time is None:
            return day, None
        time = self._value(row, dialect.columns.time)
        try:
            if not time.isascii() or (":" not in dialect.time and len(time) != len(dialect.time)):
                raise ValueError
            at = datetime.strptime(  # noqa: DTZ007 - the zone is set below
                f"{day} {time}", f"%Y-%m-%d {TIMES[dialect.time]}"
            )
        except ValueError:
            raise _Unread(
                Why.UNREADABLE, f"{dialect.columns.time} is no time written as {dialect.time}"
            ) from None
        return day, at.replace(tzinfo=INSTITUTION_ZONE)

    def _minor(self, text: str, most: int) -> int | None:
        found = self._amounts.fullmatch(text) if len(text) <= 32 else None
        if found is None:
            return None
        whole = re.sub(r"[^0-9]", "", found["whole"])
        minor = int(whole) * 100 + int((found["cents"] or "").ljust(2, "0"))
        if minor > most:
            return None
        return -minor if found["sign"] else minor

    # -- the trailer ------------------------------------------------------------------------------

    def _check_trailer(self, row: _Row) -> None:
        trailer, totals, draft = self._dialect.trailer, self._totals, self._draft
        assert trailer is not None
        self._trailer_at = row.line
        if len(row.fields) != self._width:
            raise draft.refused(
                row.line, f"its {len(row.fields)} fields are not the header's {self._width}"
            )
        if trailer.count is not None:
            said = self._value(row, trailer.count)
            if not re.fullmatch(r"[0-9]{1,12}", said, re.ASCII) or int(said) != totals.lines:
                shown = said if re.fullmatch(r"[0-9]{1,12}", said, re.ASCII) else "no number"
                raise draft.refused(
                    row.line, f"the trailer says {shown} data lines, the file has {totals.lines}"
                )
        for column in trailer.sums:
            minor = self._minor(self._value(row, column), BALANCE_MINOR_MAX)
            if minor is None:
                raise draft.refused(row.line, f"the trailer's sum of {column} cannot be read")
            if column in totals.unread:
                self._say_unproved(totals.unread[column], column, minor - totals.sums[column])
            elif minor != totals.sums[column]:
                said, has = format_amount(minor), format_amount(totals.sums[column])
                raise draft.refused(
                    row.line,
                    f"the trailer says {said} as the sum of {column}, the file has {has}",
                )

    def _say_unproved(self, line: int, column: str, left_minor: int) -> None:
        """Say beside the line that cannot be read what the trailer leaves for such lines."""
        left = format_amount(left_minor)
        for at, each in enumerate(self._draft.set_aside):
            if each.line == line:
                reason = (
                    f"{each.reason}; the trailer leaves {left} of {column} for what is not read"
                )
                self._draft.set_aside[at] = type(each)(line, each.why, reason)


@lru_cache(maxsize=4096)
def _day(text: str, form: str) -> date | None:
    if not text.isascii() or len(text) != len(form):
        return None
    try:
        day = datetime.strptime(text, DAYS[form]).date()  # noqa: DTZ007 - a day has no zone
    except ValueError:
        return None
    return day if DAY_MIN <= day <= DAY_MAX else None


@lru_cache(maxsize=64)
def _amount_pattern_of(decimal: str, thousands: tuple[str, ...]) -> re.Pattern[str]:
    # The same separator throughout, between whole groups of three, or none.
    grouped = ""
    if thousands:
        marks = "".join(map(re.escape, thousands))
        grouped = rf"[0-9]{{1,3}}(?P<mark>[{marks}])[0-9]{{3}}(?:(?P=mark)[0-9]{{3}})*|"
    return re.compile(
        rf"(?P<sign>-?)(?P<whole>{grouped}[0-9]+)(?:{re.escape(decimal)}(?P<cents>[0-9]{{1,2}}))?",
        re.ASCII,
    )


def _amount_pattern(dialect: Dialect) -> re.Pattern[str]:
    return _amount_pattern_of(dialect.decimal, dialect.thousands)
