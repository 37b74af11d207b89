"""Attestations: for who is up to date, signed, and true only as long as the books say so."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from gateway import process
from gateway.clock import day_of
from gateway.codes import attestations as codes
from gateway.codes import cose
from gateway.codes import receipts as receipt_codes
from gateway.db import execute, snapshot, transaction
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.people.attestations import (
    Attestation,
    AttestationStanding,
    Finding,
    NotUpToDate,
    attest,
    find,
    look_into,
    read_number,
    standing_of,
    validity,
    verdict_on,
)
from gateway.settings import settings
from tests.factories import NOON, broken_promises
from tests.gateway.people.test_standing import billed, pay

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CLAIMS = codes.Claims("A26-123456789", "2026-10", NOON, date(2026, 12, 31))


def up_to_date() -> int:
    """Return one who has paid October, and owes November by its end."""
    person, references = billed("2026-10", "2026-11")
    pay(references["2026-10"], "2026-10-20")
    return person


def attested(person: int, now: datetime = NOON) -> Attestation:
    with transaction() as session:
        made = attest(session, person, process.receipt_keys(), tariff(), now=now)
    assert made is not None
    return made[0]


def test_who_is_up_to_date_gets_one(database: str) -> None:
    person = up_to_date()
    made = attested(person)
    assert (made.standing, made.period) == (AttestationStanding.STANDS, "2026-10")
    # To the end of the month after.
    assert (made.issued_on, made.valid_until) == (date(2026, 11, 18), date(2026, 12, 31))
    assert validity().verified is False
    assert attested(person) == made  # the same day: the same one
    assert attested(person, NOON + timedelta(days=1)).number != made.number
    assert broken_promises() == []


def test_who_is_not_gets_a_reason(database: str) -> None:
    late, _ = billed("2026-10")
    with pytest.raises(NotUpToDate, match="since 2026-11-01: the contribution for 2026-10"):
        attested(late)
    new, _ = billed("2026-12")
    with pytest.raises(NotUpToDate, match="nothing to attest"):
        attested(new)
    with transaction() as session:
        assert attest(session, 404, process.receipt_keys(), tariff(), now=NOON) is None


def test_it_stands_as_long_as_the_books_say(database: str) -> None:
    made = attested(up_to_date())
    with snapshot() as session:
        found = {
            day: verdict.record and verdict.record.standing
            for day in ("2026-11-30", "2026-12-01", "2027-01-01")
            if (
                verdict := look_into(
                    session,
                    made.number,
                    process.receipt_keys().published(),
                    tariff(),
                    now=datetime.fromisoformat(f"{day}T12:00:00+00:00"),
                )
            )
        }
    assert found == {
        "2026-11-30": AttestationStanding.STANDS,
        "2026-12-01": AttestationStanding.LAPSED,
        "2027-01-01": AttestationStanding.EXPIRED,
    }


def test_each_worth_of_a_code(database: str) -> None:
    made = attested(up_to_date())
    keys = process.receipt_keys().published()
    signer = process.receipt_keys().signer(now=NOON)
    changed = bytearray(made.signed)
    changed[-1] ^= 1
    genuine = codes.claimed(made.signed)
    assert genuine is not None
    longer = codes.Claims(
        genuine.number, genuine.period, genuine.issued_at, genuine.valid_until + timedelta(days=1)
    )
    texts = {
        cose.as_text(made.signed): Finding.GENUINE,
        cose.as_text(bytes(changed)): Finding.CHANGED,
        cose.as_text(made.signed)[:-30]: Finding.CUT,
        cose.as_text(codes.sign(genuine, key_id="0badc0de", private_key=KEY)): Finding.FOREIGN_KEY,
        # Ours, and our books have another day.
        cose.as_text(
            codes.sign(longer, key_id=signer.key_id, private_key=signer.private)
        ): Finding.NOT_IN_BOOKS,
    }
    with snapshot() as session:
        for text, finding in texts.items():
            assert verdict_on(session, text, keys, tariff(), now=NOON).finding is finding
        unknown = look_into(session, "A26-000000000", keys, tariff(), now=NOON)
    assert unknown.finding is Finding.UNKNOWN_NUMBER


def test_an_attestation_that_was_changed_in_the_database_breaks_a_promise(database: str) -> None:
    made = attested(up_to_date())
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE attestation DISABLE TRIGGER USER")
        connection.execute("UPDATE attestation SET valid_until = '2030-01-01'")
        connection.execute("ALTER TABLE attestation ENABLE TRIGGER USER")
    assert [(b.what, b.where) for b in broken_promises()] == [
        ("an attestation says other than its row", f"attestation:{made.number}")
    ]


def test_its_rows_are_never_changed_and_its_keys_never_made_anew(database: str) -> None:
    person = up_to_date()
    made = attested(person)
    with pytest.raises(DBAPIError), transaction() as session:
        execute(session, "UPDATE attestation SET valid_until = '2030-01-01'")
    folder = settings().keys_dir
    (folder / "receipts.json").unlink()
    with pytest.raises(Unusable, match="restore the keys"):
        attested(person, NOON + timedelta(days=1))
    with snapshot() as session:
        assert find(session, made.number, tariff(), now=NOON) == made


@pytest.mark.parametrize(
    "typed",
    [
        "A26-123456789",
        " a26 123456789 ",
        "A26–123456789",
        "https://x.ma/verify/A26-123456789?lang=ar",
        "A٢٦-١٢٣٤٥٦٧٨٩",
    ],
)
def test_a_number_is_understood_however_it_is_typed(typed: str) -> None:
    assert read_number(typed) == "A26-123456789"


@pytest.mark.parametrize("typed", ["26-123456789", "R26-123456789", "A26-12345678", ""])
def test_other_numbers_are_none(typed: str) -> None:
    assert read_number(typed) is None


@given(st.dates(date(2025, 1, 1), date(2027, 12, 31)), st.integers(0, 60), st.integers(0, 86_399))
def test_a_code_says_what_was_signed(day: date, days: int, seconds: int) -> None:
    issued_at = datetime.fromisoformat(f"{day}T00:00:00+00:00") + timedelta(seconds=seconds)
    claims = codes.Claims(
        "A26-000000001", "2026-Q3", issued_at, day_of(issued_at) + timedelta(days=days)
    )
    signed = codes.sign(claims, key_id="aabbccdd", private_key=KEY)
    assert codes.read(cose.as_text(signed), {"aabbccdd": KEY.public_key()}) == codes.Genuine(
        claims, "aabbccdd"
    )


def test_receipts_and_attestations_are_not_taken_for_each_other() -> None:
    keys = {"aabbccdd": KEY.public_key()}
    attestation = cose.as_text(codes.sign(CLAIMS, key_id="aabbccdd", private_key=KEY))
    receipt = cose.as_text(
        receipt_codes.sign(
            receipt_codes.Claims("R26-123456789", "148275036141", 1, NOON, "2026-11", "kiosk"),
            key_id="aabbccdd",
            private_key=KEY,
        )
    )
    assert codes.is_one(attestation)
    assert not codes.is_one(receipt)
    assert receipt_codes.read(attestation, keys) == cose.Changed("aabbccdd")
    assert codes.read(receipt, keys) == codes.NotAnAttestation()
    assert codes.read("Facture 12", keys) == codes.NotAnAttestation()


@pytest.mark.parametrize(
    ("today", "ok", "standing"),
    [
        (date(2026, 12, 31), True, AttestationStanding.STANDS),
        (date(2026, 12, 31), False, AttestationStanding.LAPSED),
        (date(2027, 1, 1), True, AttestationStanding.EXPIRED),
    ],
)
def test_how_it_stands(today: date, ok: bool, standing: AttestationStanding) -> None:
    assert standing_of(valid_until=date(2026, 12, 31), up_to_date=ok, today=today) is standing
