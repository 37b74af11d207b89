"""Rows of invoices, lines and events as PostgreSQL's binary COPY takes them. Pure.

What many invoices share is packed once; of each only its number, reference, person and seal are
left to pack. So a million rows cost seconds, and the server is what sets the pace.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from struct import Struct, pack
from typing import Final, NamedTuple

from gateway.billing.invoice_seals import SEAL_BYTES, Sealer, facts_of, terms_of
from gateway.events import Happening
from gateway.models import EventType, LineKind
from gateway.money import format_amount

COPY_INVOICES: Final = (
    "COPY invoice (id, reference, contributor_id, category_code, period, due_on, amount_minor,"
    " owed_minor, tariff, issued_at, seal) FROM STDIN (FORMAT BINARY)"
)
COPY_LINES: Final = (
    "COPY invoice_line (invoice_id, position, kind, amount_minor, rule_id)"
    " FROM STDIN (FORMAT BINARY)"
)
COPY_EVENTS: Final = "COPY event (type, invoice_id, data, happened_at) FROM STDIN (FORMAT BINARY)"

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + pack(">ii", 0, 0)
_TRAILER: Final = pack(">h", -1)
_NULL: Final = pack(">i", -1)
_JSONB: Final = b"\x01"
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_BLOCK_ROWS: Final = 512
_REFERENCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class Terms:
    """What the invoices of one price and issue share."""

    category: str
    period: str
    due_on: date
    amount_minor: int
    """In centimes: the only line's, too."""
    rule_id: int
    tariff: str
    issued_at: datetime

    def as_told(self) -> dict[str, str]:
        """Return what the event of an issue says beside the reference."""
        return {
            "period": self.period,
            "due_on": f"{self.due_on}",
            "amount": format_amount(self.amount_minor),
        }


class Billed(NamedTuple):
    """One invoice to be written: its terms by their place in a list."""

    invoice_id: int
    reference: bytes
    contributor_id: int
    terms: int


class Rows:
    """Packs invoices with their lines and events; `billed` may be worked out while it does.

    Iterating `invoices` packs the others, too: they are complete when it is done. Each is a whole
    COPY in blocks.
    """

    def __init__(
        self, billed: Iterable[Billed], terms: Sequence[Terms], sealer: Sealer | None
    ) -> None:
        self._billed: Final = billed
        self._terms: Final = terms
        self._templates: Final = [_Template(each, sealer) for each in terms]
        self.lines: Final[list[bytes]] = []
        self.events: Final[list[bytes]] = []

    def happenings(self) -> list[Happening]:
        """Return the events for whoever tells them with others; few."""
        return [
            Happening(
                EventType.INVOICE_ISSUED,
                {"reference": one.reference.decode(), **self._terms[one.terms].as_told()},
                invoice_id=one.invoice_id,
            )
            for one in self._billed
        ]

    def invoices(self) -> Iterator[bytes]:
        """Yield the invoices in blocks while packing the rest."""
        yield _HEADER
        self.lines.append(_HEADER)
        self.events.append(_HEADER)
        templates = self._templates
        billed = iter(self._billed)
        while block := list(islice(billed, _BLOCK_ROWS)):
            invoices, lines, events = [], [], []
            for one in block:
                invoice, line, event = templates[one.terms].rows(one)
                invoices.append(invoice)
                lines.append(line)
                events.append(event)
            yield b"".join(invoices)
            self.lines.append(b"".join(lines))
            self.events.append(b"".join(events))
        yield _TRAILER
        self.lines.append(_TRAILER)
        self.events.append(_TRAILER)


class _Template:
    """The three rows of all invoices of the same terms, but for what differs."""

    def __init__(self, terms: Terms, sealer: Sealer | None) -> None:
        amount = _field(pack(">q", terms.amount_minor))
        issued_at = _field(pack(">q", (terms.issued_at - _EPOCH) // timedelta(microseconds=1)))
        due_on = _field(pack(">i", (terms.due_on - _EPOCH.date()).days))
        self._shared: Final = b"".join(
            (
                _text(terms.category),
                _text(terms.period),
                due_on,
                amount * 2,
                _text(terms.tariff),
                issued_at,
                _NULL if sealer is None else pack(">i", SEAL_BYTES),
            )
        )
        self._line: Final = (
            _field(pack(">h", 1))
            + _text(LineKind.PRINCIPAL.value)
            + amount
            + _field(pack(">q", terms.rule_id))
        )
        before, after = _event_text(terms)
        json_bytes = len(_JSONB) + len(before) + _REFERENCE_BYTES + len(after)
        self._event_head: Final = pack(">h", 4) + _text(EventType.INVOICE_ISSUED.value)
        self._event_before: Final = pack(">i", json_bytes) + _JSONB + before
        self._event_after: Final = after + issued_at
        self._sealer: Final = sealer
        self._sealed_terms: Final = terms_of(
            category=terms.category,
            period=terms.period,
            due_on=terms.due_on,
            amount_minor=terms.amount_minor,
            issued_at=terms.issued_at,
            tariff=terms.tariff,
        )

    def rows(self, one: Billed) -> tuple[bytes, bytes, bytes]:
        """Return an invoice, its line and its event."""
        invoice_id, reference, person = one.invoice_id, one.reference, one.contributor_id
        seal = b""
        if self._sealer is not None:
            seal = self._sealer.seal(facts_of(invoice_id, reference, person, self._sealed_terms))
        key = _KEY.pack(8, invoice_id)
        return (
            b"".join((_INVOICE, key, _TWELVE, reference, _KEY.pack(8, person), self._shared, seal)),
            b"".join((_LINE, key, self._line)),
            b"".join((self._event_head, key, self._event_before, reference, self._event_after)),
        )


_KEY: Final = Struct(">iq")
_INVOICE: Final = pack(">h", 11)
_LINE: Final = pack(">h", 5)
_TWELVE: Final = pack(">i", _REFERENCE_BYTES)


def _field(value: bytes) -> bytes:
    return pack(">i", len(value)) + value


def _text(value: str) -> bytes:
    return _field(value.encode())


def _event_text(terms: Terms) -> tuple[bytes, bytes]:
    """Return what stands before and after the reference in an event's JSON."""
    shared = json.dumps(terms.as_told()).encode()
    return shared[:-1] + b', "reference": "', b'"}'
