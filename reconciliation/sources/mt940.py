"""Read MT940 statements of SWIFT. Pure.

Our own reader, since `mt-940` (PyPI) gives a reversal of a credit a plus, reads `1.172,50` as 1,
and fails on marks of MT942; tests hold it against this one where it is right. Every message must
lead from its opening balance to its closing one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from gateway.errors import Unusable
from gateway.money import AMOUNT_MINOR_MAX
from reconciliation.sources.statements import (
    BALANCE_MINOR_MAX,
    TEXT_MAX,
    Draft,
    Form,
    Kind,
    Statement,
    StatementLine,
    Why,
    days_covered,
    plain_account,
    refused,
)

_TAG: Final = re.compile(r":([0-9]{2}[A-Z]?):(.*)", re.DOTALL)
_BLOCKS: Final = re.compile(r"(?:\{[123]:(?:[^{}]|\{[^{}]*\})*\})*\{4:\s*(.*)", re.DOTALL)
_END: Final = re.compile(r"-\}(?:\{[5S]:(?:[^{}]|\{[^{}]*\})*\})*[\x01\x03$\s]*(\{.*)?", re.DOTALL)
_TYPE: Final = re.compile(r"\{2:[IO]([0-9]{3})")
_LINE: Final = re.compile(
    r"(?P<value>[0-9]{6})(?P<entry>[0-9]{4})?(?P<mark>RC|RD|EC|ED|C|D)(?P<funds>[A-Z])?"
    r"(?P<amount>[0-9]+,[0-9]*)(?P<type>[A-Z][A-Z0-9]{3})(?P<ours>.{0,16}?)(?://(?P<bank>.{1,34}))?",
    re.ASCII,
)
_BALANCE: Final = re.compile(
    r"(?P<mark>[CD])(?P<day>[0-9]{6})(?P<currency>[A-Z]{3})(?P<amount>[0-9]+,[0-9]*)", re.ASCII
)
_AMOUNT: Final = re.compile(r"([0-9]{1,14}),([0-9]{0,2})(0*)", re.ASCII)
_SIGNS: Final = {"C": 1, "D": -1, "RC": -1, "RD": 1}
_EXPECTED: Final = frozenset({"EC", "ED"})
_CHARGES: Final = frozenset({"CHG", "COM"})
_RETURNED: Final = "RTI"
_INTERIM: Final = frozenset({"34F", "90C", "90D"})
_NOTHING: Final = frozenset({"", "NONREF"})
_OWN_ID: Final = re.compile(r"(?:EREF\+|/EREF/)([^/+?\n]{1,35})")
_SUBFIELD: Final = re.compile(r"\?([0-9]{2})")
_HALF_A_YEAR: Final = timedelta(days=183)
FIELD_MAX: Final = 10_000
"""Characters of a line, or of a field of several: SWIFT's are shorter than 800."""
_WRAPPED: Final = 65
"""How long a line of a text is before it goes on in the next."""


def read_mt940(data: bytes, name: str) -> list[Statement]:
    """Return the statements of a file, each with its own account; a page is one of its own.

    Args:
        data: The file.
        name: Its name, for what is said of it.

    Raises:
        Unusable: It is not such a file, it was cut, or a statement in it does not add up.
    """
    text = _decoded(data)
    if "\x00" in text:
        raise refused(name, text.count("\n", 0, text.index("\x00")) + 1, "a NUL character")
    messages = list(_messages(text, name))
    if not messages:
        raise refused(name, 1, "it holds no statement, which begins with :20:")
    return [_Message(fields, name).statement() for fields in messages]


def _decoded(data: bytes) -> str:
    # Amounts and days are ASCII; texts are in whatever the bank writes.
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


@dataclass(slots=True)
class _Field:
    line: int
    tag: str
    text: str
    """Its lines, as they were broken."""


def _messages(text: str, name: str) -> Iterator[list[_Field]]:
    """Yield the fields of each message."""
    fields: list[_Field] = []
    for number, line in _unwrapped(text, name):
        tag = _TAG.fullmatch(line)
        if tag is None:
            if not fields:
                raise refused(name, number, "this is no statement of MT940")
            fields[-1].text += f"\n{line}"
            if len(fields[-1].text) > FIELD_MAX:
                raise _too_long(name, fields[-1].line, f"field :{fields[-1].tag}:")
            continue
        if tag[1] == "20":
            if fields:
                yield fields
            fields = []
        elif not fields:
            raise refused(name, number, f"field :{tag[1]}: stands before any :20:")
        fields.append(_Field(number, tag[1], tag[2]))
    if fields:
        yield fields


def _unwrapped(text: str, name: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, without the blocks that messages are wrapped in."""
    in_block = False
    number = 0
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        rest = line.removesuffix("\n")
        if len(rest) > FIELD_MAX:
            raise _too_long(name, number, "the line")
        if in_block and (ended := _END.fullmatch(rest)):
            in_block, rest = False, ended[1] or ""
        if rest.startswith("{"):
            found, kind = _BLOCKS.fullmatch(rest), _TYPE.search(rest)
            other = kind is not None and kind[1] != "940"
            if found is None or other or in_block:
                what = f"MT{kind[1]}" if kind is not None and other else "this"
                raise refused(name, number, f"{what} is no statement of MT940, or was cut")
            in_block, rest = True, found[1]
        if rest.strip() and (in_block or rest.rstrip() != "-"):
            yield number, rest
    if in_block:
        raise refused(name, number, "the file was cut: its last message does not end")


def _too_long(name: str, line: int, what: str) -> Unusable:
    return refused(name, line, f"{what} is longer than {FIELD_MAX} characters")


class _Message:
    """Reads one message."""

    def __init__(self, fields: list[_Field], name: str) -> None:
        self._fields: Final = fields
        self._draft: Final = Draft(name)

    def statement(self) -> Statement:
        draft = self._draft
        account, number = self._one("25", "25P"), self._one("28C", "28")
        opening, closing = self._one("60F", "60M"), self._one("62F", "62M")
        for each in self._fields:
            if each.tag in _INTERIM:
                raise draft.refused(each.line, "this is an interim report (MT942), not final")
        opened_minor, currency, opened_on = self._balance(opening)
        closed_minor, other, closed_on = self._balance(closing)
        if not number.text.strip().isprintable():
            raise draft.refused(number.line, "field :28C: cannot be a number")
        what = f"statement {number.text.strip()}"
        if other != currency:
            raise draft.refused(
                closing.line, f"{what} opens in {currency} and closes in {other}: not one account"
            )
        for at, (field, texts) in enumerate(self._movements(opening, closing), start=1):
            self._movement(at, field, texts)
        draft.require_balance(what, closing.line, opened_minor, closed_minor)
        # The opening balance is that of the end of a day before.
        began_on = min(opened_on + timedelta(days=1), closed_on)
        days = [began_on, closed_on, *(line.booked_on for line in draft.lines)]
        from_on, to_on = days_covered(days)
        return Statement(
            form=Form.MT940,
            account=plain_account(account.text.partition("\n")[0]),
            number=number.text.strip(),
            currency=currency,
            lines=tuple(draft.lines),
            set_aside=tuple(draft.set_aside),
            opening_minor=opened_minor,
            closing_minor=closed_minor,
            from_on=from_on,
            to_on=to_on,
        )

    def _one(self, *tags: str) -> _Field:
        """Return the one field with such a tag."""
        found = [each for each in self._fields if each.tag in tags]
        if len(found) != 1:
            last = self._fields[-1]
            if found:
                raise self._draft.refused(found[1].line, f"field :{tags[0]}: stands there twice")
            hint = ": the file was cut" if tags[0].startswith("6") else ""
            raise self._draft.refused(
                last.line + last.text.count("\n"), f"a statement has no field :{tags[0]}:{hint}"
            )
        if not found[0].text.strip() or len(found[0].text) > TEXT_MAX:
            raise self._draft.refused(found[0].line, f"field :{tags[0]}: is empty or too long")
        return found[0]

    def _balance(self, field: _Field) -> tuple[int, str, date]:
        found = _BALANCE.fullmatch(field.text.strip())
        day = None if found is None else _day(found["day"])
        minor = None if found is None else _minor(found["amount"], BALANCE_MINOR_MAX)
        if found is None or day is None or minor is None:
            raise self._draft.refused(field.line, f"the balance of :{field.tag}: cannot be read")
        return _SIGNS[found["mark"]] * minor, found["currency"], day

    def _movements(self, opening: _Field, closing: _Field) -> Iterator[tuple[_Field, list[str]]]:
        """Yield each movement between the balances with the texts that belong to it."""
        movement: tuple[_Field, list[str]] | None = None
        for each in self._fields:
            if each.tag == "61":
                if not opening.line < each.line < closing.line:
                    raise self._draft.refused(each.line, "a movement stands outside the balances")
                if movement is not None:
                    yield movement
                movement = each, []
            elif each.tag == "86" and movement is not None and each.line < closing.line:
                movement[1].append(each.text)
        if movement is not None:
            yield movement

    def _movement(self, at: int, field: _Field, texts: list[str]) -> None:
        draft = self._draft
        first, _, more = field.text.partition("\n")
        found = _LINE.fullmatch(first.rstrip())
        if found is None:
            reason = f"movement {at} cannot be read by the form of field :61:"
            draft.unread = draft.unread or (field.line, reason)
            draft.put_aside(field.line, Why.AMOUNT, reason)
            return
        if found["mark"] in _EXPECTED:
            draft.put_aside(field.line, Why.NOT_BOOKED, f"movement {at} is expected, not booked")
            return
        minor = _minor(found["amount"], AMOUNT_MINOR_MAX)
        if minor is None:
            reason = f"the amount of movement {at} cannot be read as one of two decimals"
            draft.unread = draft.unread or (field.line, reason)
            draft.put_aside(field.line, Why.AMOUNT, reason)
            return
        amount_minor = _SIGNS[found["mark"]] * minor
        draft.moved_minor += amount_minor
        value_on = _day(found["value"])
        booked_on = None if value_on is None else _entry_day(found["entry"], value_on)
        if value_on is None or booked_on is None:
            draft.put_aside(field.line, Why.UNREADABLE, f"the day of movement {at} cannot be read")
            return
        if not minor:
            draft.put_aside(field.line, Why.AMOUNT, f"the amount of movement {at} is zero")
            return
        ours, bank = ((found[each] or "").strip() for each in ("ours", "bank"))
        ids = [ours, *(each.strip() for text in texts for each in _OWN_ID.findall(text))]
        draft.lines.append(
            StatementLine(
                line=field.line,
                kind=_kind(amount_minor, found["mark"], found["type"][1:]),
                amount_minor=amount_minor,
                booked_on=booked_on,
                value_on=value_on,
                payment_ids=tuple(dict.fromkeys(each for each in ids if each not in _NOTHING)),
                texts=(ours, *_pieces(more), *(p for text in texts for p in _pieces(text))),
                bank_reference=None if bank in _NOTHING else bank,
                entry=at,
                entry_minor=amount_minor,
                is_reversal=found["mark"].startswith("R"),
            )
        )


def _kind(amount_minor: int, mark: str, reason: str) -> Kind:
    if reason in _CHARGES:
        return Kind.FEE
    if mark == "RC" or (amount_minor < 0 and reason == _RETURNED):
        return Kind.REVERSAL
    return Kind.PAYMENT if mark == "C" else Kind.OTHER


def _minor(text: str, most: int) -> int | None:
    found = _AMOUNT.fullmatch(text) if len(text) <= 15 else None
    if found is None:
        return None
    minor = int(found[1]) * 100 + int(found[2].ljust(2, "0"))
    return minor if minor <= most else None


def _day(text: str) -> date | None:
    """Return the day that YYMMDD means: of this century up to 79."""
    year = int(text[:2])
    try:
        return date(year + (2000 if year < 80 else 1900), int(text[2:4]), int(text[4:6]))
    except ValueError:
        return None


def _entry_day(text: str | None, value_on: date) -> date | None:
    """Return the day that MMDD means: the one nearest to the value day, of whichever year."""
    if text is None:
        return value_on
    days = []
    for year in (value_on.year - 1, value_on.year, value_on.year + 1):
        try:
            days.append(date(year, int(text[:2]), int(text[2:])))
        except ValueError:
            continue
    nearest = min(days, key=lambda day: abs(day - value_on), default=None)
    # Every day is that near in some year, save one that only leap years have.
    return nearest if nearest is not None and abs(nearest - value_on) <= _HALF_A_YEAR else None


def _pieces(text: str) -> Iterator[str]:
    """Yield the texts in which a reference may stand whole: lines, and what goes on over them."""
    lines = text.split("\n")
    yield from lines
    going_on = ""
    for line in lines:
        going_on += line
        if len(line) < _WRAPPED:
            yield going_on
            going_on = ""
    if len(found := _SUBFIELD.split("".join(lines))) > 1:
        # The subfields of a text that has them: 20 to 29 and 60 to 63 are one text, cut in pieces.
        parts = zip(found[1::2], found[2::2], strict=True)
        yield "".join(part for code, part in parts if "20" <= code <= "29" or "60" <= code <= "63")
