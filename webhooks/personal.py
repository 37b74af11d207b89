"""What the inbox holds about a person: deliveries as they came, what they were answered.

A delivery is a person's if it told of the person's payment, or its body or address has the
person's number, card, telephone or reference in it. What has the same digits within longer ones is
not taken for it: somebody else's data must not be handed out, nor a neighbour's delivery emptied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote_plus

import sqlalchemy as sa
from sqlmodel import Session

from gateway.db import execute
from gateway.privacy import LEFT, Hold, Section, Subject, national, said, telephone_pattern
from gateway.privacy.periods import KEPT_WITH_BOOKS, doubt
from gateway.references import format_reference
from gateway.retention import retention
from gateway.words.catalogs import mark
from webhooks.masking import BodyKind, kind_of, length_mark, mask

ID_LENGTH_MIN: Final = 6
"""Of a provider's payment id that is looked for in bodies: shorter ones stand in any text."""
ROWS_AT_ONCE: Final = 500

_TO_RECEIVE: Final = mark("To keep what providers sent, byte for byte, and to act on it once")
_TO_ANSWER: Final = mark("To answer a provider that asks again as it was answered first")


@dataclass(slots=True)
class Mentions:
    """The rows that are about a person, by id."""

    deliveries: set[int] = field(default_factory=set)
    variants: set[int] = field(default_factory=set)


class Inbox:
    """The holder of deliveries."""

    tables: Final = frozenset(
        {
            "webhook_delivery",
            "webhook_variant",
            "webhook_answer",
            "provider_callback",
            "webhook_replay",
            "replayed_delivery",
        }
    )

    def held(self, session: Session, subject: Subject) -> list[Section]:
        """Return the deliveries about a person, and what followed from them. Reads only."""
        found = _mentions(session, subject, masked_too=True)
        asked = {
            "deliveries": sorted(found.deliveries),
            "variants": sorted(found.variants),
            "payments": list(subject.payment_ids),
        }
        bodies = retention().bodies
        until = (
            f"{bodies.days} days, then what names people in it is masked{doubt(bodies)}. The rest"
            " stays with the books."
        )
        return [
            Section(name, title, purpose, until if bodied else KEPT_WITH_BOOKS, rows)
            for name, title, purpose, query, bodied in _ASKED
            for rows in [[said(row) for row in execute(session, query, asked).mappings()]]
        ]

    def hold(self, session: Session, subject: Subject) -> Hold:
        """Lock the deliveries about a person; none of them may still wait to be acted on."""
        # What is masked already has no field left that names anybody: not all of it is read again.
        found = found_in = _mentions(session, subject, masked_too=False)
        bodies: dict[str, list[tuple[int, bytes, bool]]] = {}
        waiting = 0
        for table, ids, condition in (
            ("webhook_delivery", found.deliveries, "state = 'done'"),
            ("webhook_variant", found.variants, "processed_at IS NOT NULL"),
        ):
            rows = execute(
                session,
                f"SELECT id, body, {condition} AS done, {_READABLE[table]} AS readable"
                f" FROM {table} WHERE id = ANY(:ids) AND masked_at IS NULL"
                " ORDER BY id FOR NO KEY UPDATE",
                {"ids": sorted(ids)},
            ).all()
            waiting += sum(not row.done for row in rows)
            bodies[table] = [(row.id, bytes(row.body), row.readable) for row in rows]
        about = {"ids": sorted(found.deliveries)}
        parked = execute(session, _OPEN, about).scalar_one()
        later = execute(session, _LATER, about).scalar_one()
        hindrances = (
            *([f"{waiting} deliveries about the person are not acted on yet."] if waiting else []),
            *([f"{parked} exceptions about such deliveries are open."] if parked else []),
            *([f"{later} callbacks or replays of such deliveries wait."] if later else []),
        )

        def erase(now: datetime) -> Mapping[str, int]:
            found = {
                table: _write(session, table, _emptied(subject, rows), now)
                for table, rows in bodies.items()
            }
            return found | _left(session, subject, found_in)

        return Hold(hindrances, erase)


_READABLE: Final = {"webhook_delivery": "true", "webhook_variant": "readable"}

# A delivery that mentions the person and told of somebody else's payment is shown without its body.
_OF_ANOTHER: Final = """EXISTS (SELECT FROM payment p
    WHERE p.provider = d.provider AND p.source = 'delivery:' || d.provider || '/' || d.delivery_id
        AND p.id <> ALL(:payments) AND (p.invoice_id IS NOT NULL OR p.bundle_id IS NOT NULL))"""

_ASKED: Final = (
    (
        "deliveries",
        mark("What providers sent"),
        _TO_RECEIVE,
        "SELECT d.provider, d.delivery_id, d.received_at, d.state, d.outcome, d.processed_at,"
        f" d.masked_at, CASE WHEN NOT {_OF_ANOTHER} THEN d.path END AS path,"
        f" CASE WHEN NOT {_OF_ANOTHER} THEN d.body END AS body FROM webhook_delivery d"
        " WHERE d.id = ANY(:deliveries) ORDER BY d.id",
        True,
    ),
    (
        "delivery_variants",
        mark("Other bodies under the same delivery id"),
        _TO_RECEIVE,
        "SELECT d.provider, d.delivery_id, d.received_at, d.readable, d.processed_at,"
        f" d.masked_at, CASE WHEN NOT {_OF_ANOTHER} THEN d.path END AS path,"
        f" CASE WHEN NOT {_OF_ANOTHER} THEN d.body END AS body"
        " FROM webhook_variant d WHERE d.id = ANY(:variants) ORDER BY d.id",
        True,
    ),
    (
        "delivery_exceptions",
        mark("Questions about deliveries that a person decides"),
        _TO_RECEIVE,
        "SELECT e.id, e.code, e.subject, e.opened_at, e.resolved_at, e.resolution"
        " FROM coded_exception e JOIN webhook_delivery d"
        " ON e.subject = 'delivery:' || d.provider || '/' || d.delivery_id"
        " WHERE d.id = ANY(:deliveries) ORDER BY e.id",
        False,
    ),
    (
        "answers",
        mark("What providers who wait were answered"),
        _TO_ANSWER,
        "SELECT d.provider, d.delivery_id, a.status, a.media_type, a.answered_at,"
        f" CASE WHEN NOT {_OF_ANOTHER} THEN a.body END AS body FROM webhook_answer a"
        " JOIN webhook_delivery d ON d.id = a.delivery_pk WHERE d.id = ANY(:deliveries)"
        " ORDER BY d.id",
        False,
    ),
    (
        "callbacks",
        mark("What we told providers afterwards"),
        _TO_ANSWER,
        f"SELECT d.provider, d.delivery_id, CASE WHEN NOT {_OF_ANOTHER} THEN c.url END AS url,"
        " c.state, c.made_at, c.ended_at,"
        f" CASE WHEN NOT {_OF_ANOTHER} THEN c.body END AS body FROM provider_callback c"
        " JOIN webhook_delivery d ON d.id = c.delivery_pk WHERE d.id = ANY(:deliveries)"
        " ORDER BY d.id",
        False,
    ),
    (
        "replays",
        mark("Deliveries that were acted on again"),
        _TO_RECEIVE,
        "SELECT d.provider, d.delivery_id, r.asked_at, r.asked_by, r.why, t.outcome,"
        " t.processed_at FROM replayed_delivery t JOIN webhook_replay r ON r.id = t.replay_id"
        " JOIN webhook_delivery d ON d.id = t.delivery_pk WHERE d.id = ANY(:deliveries)"
        " ORDER BY r.id, d.id",
        False,
    ),
)
_OPEN: Final = """
    SELECT count(*) FROM coded_exception e JOIN webhook_delivery d
        ON e.subject = 'delivery:' || d.provider || '/' || d.delivery_id
    WHERE d.id = ANY(:ids) AND e.resolved_at IS NULL
"""
_LATER: Final = """
    SELECT (SELECT count(*) FROM provider_callback
            WHERE delivery_pk = ANY(:ids) AND state = 'waiting')
        + (SELECT count(*) FROM replayed_delivery
            WHERE delivery_pk = ANY(:ids) AND processed_at IS NULL)
"""


_NEVER_CHANGE: Final = (
    (
        "webhook_delivery",
        "SELECT body, path FROM webhook_delivery WHERE id = ANY(:deliveries)",
    ),
    ("webhook_variant", "SELECT body, path FROM webhook_variant WHERE id = ANY(:variants)"),
    (
        "webhook_answer",
        "SELECT body, '' FROM webhook_answer WHERE delivery_pk = ANY(:deliveries)",
    ),
    (
        "provider_callback",
        "SELECT body, url FROM provider_callback WHERE delivery_pk = ANY(:deliveries)",
    ),
)


def _left(session: Session, subject: Subject, found: Mentions) -> dict[str, int]:
    """Count what names the person and is a fact for good: addresses, answers, masked bodies."""
    asked = {"deliveries": sorted(found.deliveries), "variants": sorted(found.variants)}
    left = {}
    for table, query in _NEVER_CHANGE:
        rows = execute(session, query, asked)
        texts = (f"{bytes(body).decode('utf-8', 'replace')} {path or ''}" for body, path in rows)
        left[f"{LEFT}{table}"] = sum(subject.names_in(text) for text in texts)
    return left


# -- finding them ---------------------------------------------------------------------------------


def _mentions(session: Session, subject: Subject, *, masked_too: bool) -> Mentions:
    """Return what is about a person. Reads all bodies there are, or all that are not masked."""
    found = Mentions()
    needles = _Needles(subject)
    told = [each.removeprefix(_DELIVERY) for each in subject.sources if each.startswith(_DELIVERY)]
    asked = {
        "needles": needles.bytes(),
        "texts": needles.texts,
        "providers": [each.partition("/")[0] for each in told],
        "named": [each.partition("/")[2] for each in told],
    }
    which = "true" if masked_too else "masked_at IS NULL"
    for table, into in (
        ("webhook_delivery", found.deliveries),
        ("webhook_variant", found.variants),
    ):
        rows = session.connection().execute(
            sa.text(_SOUGHT.format(table=table, which=which)),
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
    SELECT id, provider, body, path, false FROM {table} WHERE {which} AND (
        EXISTS (SELECT FROM unnest(CAST(:needles AS bytea[])) AS n WHERE position(n IN body) > 0)
        OR EXISTS (SELECT FROM unnest(CAST(:texts AS text[])) AS t
            WHERE strpos(path, t) > 0)
    )
"""
_DELIVERY: Final = "delivery:"


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
        """Return them as they stand in a body."""
        return [text.encode() for text in self.texts]

    def stand_in(self, provider: str, texts: Iterable[str]) -> bool:
        """Say whether one of them stands in a text by itself."""
        of_provider = self._ids.get(provider)
        for text in texts:
            for written in {text, unquote_plus(text)}:
                if self._anywhere.search(written):
                    return True
                if of_provider is not None and of_provider.search(written):
                    return True
        return False


def _written(reference: str) -> list[str]:
    """Return the ways in which a reference is written in one body or another."""
    spaced = format_reference(reference)
    return [reference, spaced, *(spaced.replace(" ", gap) for gap in ("%20", "+", "-", "\u00a0"))]


# -- emptying them --------------------------------------------------------------------------------

_JSON_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


def _emptied(
    subject: Subject, rows: Sequence[tuple[int, bytes, bool]]
) -> Sequence[tuple[int, bytes]]:
    return [
        (at, without(subject, body, kind_of(body) if readable else BodyKind.UNREADABLE))
        for at, body, readable in rows
    ]


def without(subject: Subject, body: bytes, kind: BodyKind) -> bytes:
    """Return a body without what is personal in it, and without this person in any field."""
    masked = mask(body, kind)
    match kind:
        case BodyKind.JSON:
            told = _JSON_TEXT.sub(lambda text: _told(subject, text[0]), masked.decode())
            # A bare number has no field to be left in: the body goes as a whole.
            if not subject.names_in(told):
                return told.encode()
        case BodyKind.FORM:
            if not subject.names_in(unquote_plus(masked.decode("utf-8", "replace"))):
                return masked
        case BodyKind.UNREADABLE:
            return masked
    return length_mark(body)


def _told(subject: Subject, text: str) -> str:
    """Return a text of a JSON body, its quotes included, without the person."""
    read = json.loads(text, strict=False)
    return json.dumps(subject.without(read)) if subject.names_in(read) else text


def _write(session: Session, table: str, rows: Sequence[tuple[int, bytes]], now: datetime) -> int:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        values: dict[str, Any] = {
            "now": now,
            "ids": [at for at, _ in some],
            "bodies": [body for _, body in some],
        }
        execute(
            session,
            f"UPDATE {table} SET body = emptied.body, masked_at = :now FROM unnest("
            "CAST(:ids AS bigint[]), CAST(:bodies AS bytea[])) AS emptied (id, body)"
            f" WHERE {table}.id = emptied.id",
            values,
        )
    return len(rows)


HOLDER: Final = Inbox()
