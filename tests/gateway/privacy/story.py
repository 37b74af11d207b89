"""A person who was billed, paid, was recorded and left, and a neighbour who did the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from gateway import process, receipts
from gateway.checks import Broken, run_checks
from gateway.db import execute, snapshot, transaction
from gateway.dues.tariff import tariff
from gateway.holders import HOLDERS
from gateway.models import IdempotentAnswer, Role
from gateway.people.attestations import attest
from gateway.privacy.erasure import Erased, erase
from gateway.privacy.extract import extract
from gateway.staff import create_key
from reconciliation.checks import CHECKS as RECONCILIATION_CHECKS
from reconciliation.records import import_records
from reconciliation.runs import reconcile
from tests.factories import (
    NOON,
    a_contributor,
    a_delivery,
    a_desk,
    an_event,
    broken_promises,
    issue,
    rows_of,
    seal,
)
from webhooks.inbox import drain

WHY: Final = "letter of 5 January 2038"
LATER: Final = datetime(2038, 1, 5, 12, 0, tzinfo=UTC)
"""More than ten years after both the payment and the last day of the registration."""


@dataclass(frozen=True)
class Somebody:
    """A person of the story, and all that names the person."""

    cnss_number: str
    cin: str
    family_name: str
    given_name: str
    family_name_ar: str
    given_name_ar: str
    phone: str
    region: str = "Fès-Meknès"
    left_on: date | None = date(2026, 11, 30)
    ids: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def tokens(self) -> list[str]:
        """What must be found nowhere after an erasure."""
        names = [self.family_name, self.given_name, self.family_name_ar, self.given_name_ar]
        numbers = [self.cnss_number, self.cin, self.phone, self.phone.replace("+212", "0")]
        return [*names, *numbers]

    @property
    def id(self) -> int:
        return int(self.ids["id"])

    @property
    def reference(self) -> str:
        return str(self.ids["reference"])


GHIZLANE: Final = Somebody(
    "187654329", "QX918273", "Zouhairi", "Ghizlane", "الزهيري", "غزلان", "+212677889911"
)
NEIGHBOUR: Final = Somebody(
    "287654329", "QY918273", "Benkirat", "Yassir", "بنقيراط", "ياسر", "+212688776655"
)


def enrolled(who: Somebody, **values: Any) -> int:
    """Enrol somebody with all that the register can hold."""
    with transaction() as session:
        row = a_contributor(
            session,
            cnss_number=who.cnss_number,
            cin=who.cin,
            family_name=who.family_name,
            given_name=who.given_name,
            family_name_ar=who.family_name_ar,
            given_name_ar=who.given_name_ar,
            phone=who.phone,
            language="ar",
            region=who.region,
            province="Fès",
            chamber="Chambre d'artisanat Fès-Meknès",
            commune="03.231.01.0",
            ice="001234567000062",
            **{"registered_on": date(2026, 11, 1), "left_on": who.left_on, **values},
        )
        assert row.id is not None
        who.ids["id"] = row.id
    return who.id


def told(home: Path, *people: Somebody) -> None:
    """Have it all happen: bill, pay by signed deliveries, sign, match with the records."""
    for who in people:
        enrolled(who)
    issue("2026-11")
    desk = a_desk()
    for who in people:
        who.ids["reference"] = _reference_of(who)
        body = _paid(who)
        who.ids["delivery"] = a_delivery(body)
        drain(desk, batches_max=2)
        _variant(who, body)
    # It tells of nobody's payment, and has the first one's number in what somebody typed.
    typed = {"payer_note": "nothing", "memo": f"for {people[0].cnss_number}, {people[0].phone}"}
    a_delivery(an_event("nothing", kind="payment.failed", **typed))
    drain(desk, batches_max=2)
    receipts.issue_all(process.receipt_keys(), lambda: NOON)
    with transaction() as session:
        for who in people:
            attest(session, who.id, process.receipt_keys(), tariff(), now=NOON)
        key = create_key(session, Role.ADMIN, now=NOON).removeprefix("wasl_").partition("_")[0]
        for who in people:
            answer = {"id": str(who.id), "cnss_number": who.cnss_number, "name": who.given_name}
            session.add(_kept_answer(key, who.cnss_number, answer))
    _recorded(home, people)
    seal()


def _paid(who: Somebody) -> bytes:
    return an_event(
        who.reference,
        provider_payment_id=f"CP-{who.reference}",
        cnss_number=who.cnss_number,
        payer_name=f"{who.given_name_ar} {who.family_name_ar}",
        payer_note=f"{who.given_name} {who.family_name} {who.phone.replace('+212', '0')}",
        # A field that nobody knows, with what nobody expects in it.
        remark=f"card {who.cin.lower()} of {who.family_name.upper()}",
    )


def _variant(who: Somebody, body: bytes) -> None:
    with transaction() as session:
        execute(
            session,
            "INSERT INTO webhook_variant (provider, delivery_id, body, body_sha256, readable,"
            " received_at) VALUES ('cashplus', :id, :body, sha256(:body), true, :now)",
            {"id": who.ids["delivery"], "body": body + b" ", "now": NOON},
        )
    drain(a_desk(), batches_max=1)


def _kept_answer(key: str, named: str, answer: dict[str, Any]) -> IdempotentAnswer:
    return IdempotentAnswer(
        api_key_id=key,
        idempotency_key=f"key-{hash(named)}",
        request_sha256=bytes(32),
        status=201,
        headers={},
        body=json.dumps(answer, separators=(",", ":")).encode(),
        answered_at=NOON,
    )


def _recorded(home: Path, people: Sequence[Somebody]) -> None:
    lines = ["record_id,reference,cnss_number,cin,name,period,amount,posted_on,channel"]
    for at, who in enumerate(people):
        name = f"{who.family_name} {who.given_name}"
        lines.append(
            f"B-{at},{who.reference},{who.cnss_number},{who.cin},{name},2026-11,163.52,"
            "2026-11-19,cash_agent"
        )
    path = home / "records.csv"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    import_records(path, now=NOON)
    reconcile(period=None, now=NOON)


def _reference_of(who: Somebody) -> str:
    with snapshot() as session:
        query = "SELECT reference FROM invoice WHERE contributor_id = :id"
        return str(execute(session, query, {"id": who.id}).scalar_one())


# -- acting and looking ---------------------------------------------------------------------------


def erased(who: Somebody, *, now: datetime = LATER, why: str = WHY) -> Erased:
    """Erase somebody, committed."""
    with transaction() as session:
        done = erase(session, who.id, HOLDERS, asked_by="test", why=why, now=now)
    assert done is not None
    return done


def extracted(who: Somebody, *, now: datetime = NOON) -> dict[str, Any]:
    """Return what is held about somebody, as JSON has it."""
    with snapshot() as session:
        made = extract(session, who.id, HOLDERS, now=now)
    assert made is not None
    said: dict[str, Any] = json.loads(json.dumps(made.as_json()))
    return said


def rows_in(document: dict[str, Any], section: str) -> list[dict[str, Any]]:
    """Return the rows of a section of an extract."""
    (found,) = (each for each in document["sections"] if each["name"] == section)
    return list(found["rows"])


def all_promises() -> list[Broken]:
    """Run every check that `wasl verify` runs."""
    with snapshot() as session:
        found = run_checks(session, RECONCILIATION_CHECKS)
    return [*broken_promises(deliveries=True), *found]


def places_of(database: str, tokens: Sequence[str]) -> set[str]:
    """Return each column of the database in which one of these texts stands, in any case.

    Also as JSON escapes it, which is how programs write what is not ASCII.
    """
    escaped = [json.dumps(token)[1:-1] for token in tokens]
    wanted = sorted({token.lower() for token in (*tokens, *escaped)})
    with psycopg.connect(database) as connection:
        return {
            f"{table}.{column}"
            for table, column, kind in _columns(database)
            if connection.execute(_search(table, column, kind), [wanted]).fetchone()
        }


def _columns(database: str) -> Iterator[tuple[str, str, str]]:
    yield from rows_of(
        database,
        "SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns c"
        " JOIN information_schema.tables t USING (table_schema, table_name)"
        " WHERE c.table_schema = current_schema() AND t.table_type = 'BASE TABLE'"
        " AND c.data_type IN ('text', 'character varying', 'jsonb', 'json', 'bytea', 'ARRAY')",
    )


def _search(table: str, column: str, kind: str) -> sql.Composed:
    named = sql.Identifier(column)
    if kind == "bytea":
        # Bytes above ASCII as they are: Arabic in UTF-8 is found in them, too.
        text = sql.SQL("encode({}, 'escape')").format(named)
        token = sql.SQL("encode(convert_to(t, 'UTF8'), 'escape')")
    else:
        text, token = sql.SQL("{}::text").format(named), sql.SQL("t")
    return sql.SQL(
        "SELECT 1 FROM {}, unnest(%s::text[]) AS t WHERE strpos(lower({}), {}) > 0 LIMIT 1"
    ).format(sql.Identifier(table), text, token)
