"""What the inbox holds about a person: deliveries as they came, what they were answered.

Which deliveries are about a person: webhooks.mentions. Here is what of them is handed out, and what
is emptied: nobody else's data may be in the one, nor be lost by the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote_plus

from sqlmodel import Session

from gateway.db import execute
from gateway.privacy import LEFT, Hold, Section, Subject, said
from gateway.privacy.periods import KEPT_WITH_BOOKS, doubt
from gateway.retention import retention
from gateway.words.catalogs import mark
from webhooks.masking import BodyKind, kind_of, length_mark, mask
from webhooks.mentions import Mentions, mentions, numbers_in, readings

ROWS_AT_ONCE: Final = 500

_TO_RECEIVE: Final = mark("To keep what providers sent, byte for byte, and to act on it once")
_TO_ANSWER: Final = mark("To answer a provider that asks again as it was answered first")


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
            # Of programs, and of events, which name nobody.
            "webhook_endpoint",
            "webhook_secret",
            "webhook_walk",
            "webhook_attempt",
        }
    )

    def held(self, session: Session, subject: Subject) -> list[Section]:
        """Return the deliveries about a person, and what followed from them. Reads only."""
        found = mentions(session, subject)
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
            for rows in [_shown(session, subject, execute(session, query, asked).mappings().all())]
        ]

    def hold(self, session: Session, subject: Subject) -> Hold:
        """Lock the deliveries about a person; none of them may still wait to be acted on."""
        found = mentions(session, subject)
        bodies: dict[str, list[tuple[int, bytes, bool]]] = {}
        waiting = 0
        for table, ids, condition in (
            ("webhook_delivery", found.deliveries, "state = 'done'"),
            ("webhook_variant", found.variants, "processed_at IS NOT NULL"),
        ):
            rows = execute(
                session,
                "SELECT id, CASE WHEN masked_at IS NULL THEN body END AS body,"
                f" {condition} AS done, {_READABLE[table]} AS readable"
                f" FROM {table} WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE",
                {"ids": sorted(ids)},
            ).all()
            waiting += sum(not row.done for row in rows)
            bodies[table] = [
                (row.id, bytes(row.body), row.readable) for row in rows if row.body is not None
            ]
        about = {"ids": sorted(found.deliveries), "variants": sorted(found.variants)}
        parked = execute(session, _OPEN, about).scalar_one()
        later = execute(session, _LATER, about).scalar_one()
        found_open = {
            "Deliveries about the person, waiting or parked": waiting,
            "Open exceptions on deliveries about the person": parked,
            "Callbacks or replays of deliveries about the person, still to be done": later,
        }
        hindrances = tuple(f"{what}: {n}." for what, n in found_open.items() if n)

        def erase(now: datetime) -> Mapping[str, int]:
            emptied = {
                table: _write(session, table, _emptied(subject, rows), now)
                for table, rows in bodies.items()
            }
            reasons = _reasons(session, subject, about)
            return emptied | reasons | _left(session, subject, found)

        return Hold(hindrances, erase, tuple(execute(session, _SUBJECTS, about).scalars()))


# -- showing them ---------------------------------------------------------------------------------

_CONTENTS: Final = ("body", "path", "url")
_OTHERS: Final = """
    SELECT reference FROM invoice WHERE reference = ANY(:numbers) AND reference <> ALL(:own)
    UNION ALL
    SELECT reference FROM bundle WHERE reference = ANY(:numbers) AND reference <> ALL(:own)
    UNION ALL
    SELECT cnss_number FROM contributor WHERE cnss_number = ANY(:numbers) AND id <> ALL(:files)
"""


def _shown(session: Session, subject: Subject, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Return rows for JSON, without the contents of those that name somebody else."""
    shown = [said(row) for row in rows]
    numbers = [numbers_in(row.get(name) or "" for name in _CONTENTS) for row in shown]
    asked = {
        "numbers": sorted(set().union(*numbers)),
        "own": list(subject.references),
        "files": list(subject.file_ids),
    }
    others = set(execute(session, _OTHERS, asked).scalars()) if asked["numbers"] else set()
    for row, found in zip(shown, numbers, strict=True):
        if found & others:
            row.update({name: None for name in _CONTENTS if name in row})
    return shown


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


_SUBJECTS: Final = """
    SELECT 'delivery:' || provider || '/' || delivery_id FROM webhook_delivery WHERE id = ANY(:ids)
    UNION SELECT 'delivery:' || provider || '/' || delivery_id FROM webhook_variant
    WHERE id = ANY(:variants)
"""

# Why something failed, which may quote what could not be understood.
_REASONS: Final = (("webhook_delivery", "id"), ("provider_callback", "delivery_pk"))


def _reasons(session: Session, subject: Subject, about: Mapping[str, Any]) -> dict[str, int]:
    """Take the person out of the reasons why deliveries and callbacks failed."""
    counted = {}
    for table, of in _REASONS:
        query = f"SELECT id, last_error FROM {table} WHERE {of} = ANY(:ids)"
        rows = execute(session, f"{query} AND last_error IS NOT NULL", about).all()
        changed = [(at, subject.without(text)) for at, text in rows if subject.names_in(text)]
        execute(
            session,
            f"UPDATE {table} SET last_error = said.text FROM unnest(CAST(:ids AS bigint[]),"
            f" CAST(:texts AS text[])) AS said (id, text) WHERE {table}.id = said.id",
            {"ids": [at for at, _ in changed], "texts": [text for _, text in changed]},
        )
        counted[f"{table}.last_error"] = len(changed)
    return counted


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
    (
        "webhook_replay",
        "SELECT convert_to(why, 'UTF8'), '' FROM webhook_replay WHERE id IN (SELECT replay_id"
        " FROM replayed_delivery WHERE delivery_pk = ANY(:deliveries))",
    ),
)


def _left(session: Session, subject: Subject, found: Mentions) -> dict[str, int]:
    """Count what names the person and is a fact for good: addresses, answers, masked bodies."""
    asked = {"deliveries": sorted(found.deliveries), "variants": sorted(found.variants)}
    left = {}
    for table, query in _NEVER_CHANGE:
        rows = execute(session, query, asked)
        texts = (f"{bytes(body).decode('utf-8', 'replace')} {path or ''}" for body, path in rows)
        left[f"{LEFT}{table}"] = sum(any(map(subject.names_in, readings(t))) for t in texts)
    return left


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
