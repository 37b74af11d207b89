"""Which deliveries are about a person.

One is if it told of the person's payment, or its body or address has the person's number, card,
telephone or reference in it. What has the same digits within longer ones is not taken for it:
somebody else's data must not be handed out, nor a neighbour's delivery emptied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_plus

import sqlalchemy as sa
from sqlmodel import Session

from gateway.privacy import Subject, national, telephone_pattern
from gateway.references import format_reference

ID_LENGTH_MIN: Final = 6
"""Of a provider's payment id that is looked for in bodies: shorter ones stand in any text."""
ROWS_AT_ONCE: Final = 500


@dataclass(slots=True)
class Mentions:
    """The rows that are about a person, by id."""

    deliveries: set[int] = field(default_factory=set)
    variants: set[int] = field(default_factory=set)


def mentions(session: Session, subject: Subject) -> Mentions:
    """Return what is about a person. Reads all bodies there are: masked ones may name people in
    fields of other names."""
    found = Mentions()
    needles = _Needles(subject)
    told = [each.removeprefix(_DELIVERY) for each in subject.sources if each.startswith(_DELIVERY)]
    asked = {
        "needles": needles.bytes(),
        "texts": needles.texts,
        "providers": [each.partition("/")[0] for each in told],
        "named": [each.partition("/")[2] for each in told],
    }
    for table, into in (
        ("webhook_delivery", found.deliveries),
        ("webhook_variant", found.variants),
    ):
        rows = session.connection().execute(
            sa.text(_SOUGHT.format(table=table)),
            asked,
            execution_options={"yield_per": ROWS_AT_ONCE},
        )
        for row in rows:
            where = [bytes(row.body).decode("utf-8", "replace"), row.path or ""]
            if row.told or needles.stand_in(row.provider, where):
                into.add(row.id)
    return found


# Roughly, by the bytes; what the digits stand in is looked at afterwards, row by row.
_SOUGHT: Final = """
    SELECT id, provider, body, path, true AS told FROM {table}
    JOIN (SELECT DISTINCT * FROM unnest(CAST(:providers AS text[]), CAST(:named AS text[]))
        AS told (provider, delivery_id)) AS told USING (provider, delivery_id)
    UNION ALL
    SELECT id, provider, body, path, false FROM {table} WHERE
        EXISTS (SELECT FROM unnest(CAST(:needles AS bytea[])) AS n WHERE position(n IN body) > 0)
        OR EXISTS (SELECT FROM unnest(CAST(:texts AS text[])) AS t
            WHERE strpos(path, t) > 0)
"""
_DELIVERY: Final = "delivery:"

_ESCAPED: Final = re.compile(r"\\u([0-9A-Fa-f]{4})")
_ESCAPES: Final = tuple(rb"\u00%d" % first for first in range(3, 8))
"""How JSON may write a digit or a letter: what has one is read before it is judged."""


def readings(text: str) -> set[str]:
    """Return a text as it stands, and as a form or JSON means it."""
    return {text, unquote_plus(text), _ESCAPED.sub(lambda code: chr(int(code[1], 16)), text)}


class _Needles:
    """What a person is found by in a text, and where it must end."""

    def __init__(self, subject: Subject) -> None:
        references = [form for each in subject.references for form in _written(each)]
        cards = [form for cin in subject.cins for form in (cin, cin.lower())]
        ids = [(p, named) for p, named in subject.payments if len(named) >= ID_LENGTH_MIN]
        self.texts: Final = [
            *subject.cnss_numbers,
            *cards,
            *map(national, subject.phones),
            *references,
            *(named for _, named in ids),
        ]
        alone = "|".join(map(re.escape, [*subject.cnss_numbers, *references]))
        words = "|".join(map(re.escape, cards))
        phones = "|".join(map(telephone_pattern, subject.phones))
        parts = [
            rf"(?<![0-9])(?:{alone})(?![0-9])" if alone else "",
            rf"(?<![0-9A-Za-z])(?:{words})(?![0-9A-Za-z])" if words else "",
            phones,
        ]
        self._anywhere: Final = re.compile("|".join(filter(None, parts)) or "(?!)")
        self._ids: Final = {
            provider: re.compile(
                "|".join(
                    rf"(?<![0-9A-Za-z]){re.escape(named)}(?![0-9A-Za-z])"
                    for p, named in ids
                    if p == provider
                )
            )
            for provider, _ in ids
        }

    def bytes(self) -> list[bytes]:
        """Return what stands in a body that may have one of them."""
        return [*(text.encode() for text in self.texts), *_ESCAPES]

    def stand_in(self, provider: str, texts: Iterable[str]) -> bool:
        """Say whether one of them stands in a text by itself."""
        of_provider = self._ids.get(provider)
        for text in texts:
            for written in readings(text):
                if self._anywhere.search(written):
                    return True
                if of_provider is not None and of_provider.search(written):
                    return True
        return False


def _written(reference: str) -> list[str]:
    """Return the ways in which a reference is written in one body or another."""
    spaced = format_reference(reference)
    return [reference, spaced, *(spaced.replace(" ", gap) for gap in ("%20", "+", "-", "\u00a0"))]


_NUMBER: Final = re.compile(
    r"(?<![0-9])(?:[0-9]{9}|[0-9]{4}([ \u00a0-]?)[0-9]{4}\1[0-9]{4})(?![0-9])"
)


def numbers_in(texts: Iterable[str]) -> set[str]:
    """Return the digits of what may be a reference or a CNSS number in texts."""
    read = (reading for text in texts for reading in readings(text))
    found = (each[0] for text in read for each in _NUMBER.finditer(text))
    return {"".join(filter(str.isdecimal, written)) for written in found}
