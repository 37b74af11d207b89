from __future__ import annotations

import hmac
from datetime import date

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import process
from gateway.billing.invoice_seals import (
    SEAL_BYTES,
    Sealer,
    broken_seals,
    facts_of,
    sealer_of,
    terms_of,
)
from gateway.books.seals import BooksKey
from gateway.db import snapshot, transaction
from gateway.errors import Unusable
from tests.factories import NOON, a_contributor, as_owner, broken_promises, rows_of, some_invoices

TABLES = ("invoice", "invoice_line", "event")


def broken() -> list[str]:
    with snapshot() as session:
        return list(broken_seals(session, process.signing_key()))


def test_a_seal_is_an_hmac_of_all_facts_under_a_derived_key() -> None:
    key = BooksKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    terms = terms_of(
        category="cpu",
        period="2026-Q4",
        due_on=date(2026, 12, 31),
        amount_minor=39000,
        issued_at=NOON,
        tariff="2026-01",
    )
    facts = facts_of(7, b"148275036141", 9, terms)
    assert facts == (
        b"7\n148275036141\n9\ncpu\n2026-Q4\n2026-12-31\n39000\n1795003200000000\n2026-01\n"
    )
    derived = key.derived(b"wasl invoice seals v1")
    text = b"wasl invoice v1\n5\n" + facts
    assert Sealer(key, 5).seal(facts) == hmac.digest(derived, text, "sha256")[:SEAL_BYTES]
    assert derived != key.derived(b"another purpose")


def test_every_invoice_is_sealed_and_verifies(database: str) -> None:
    some_invoices(3)
    assert rows_of(database, "SELECT length(seal) FROM invoice") == [(SEAL_BYTES,)] * 3
    assert broken() == []


@pytest.mark.parametrize(
    "change",
    [
        "amount_minor = 100, owed_minor = 100",
        "due_on = due_on + 365",
        "period = '2026-12'",
        "contributor_id = (SELECT max(id) FROM contributor)",
        "category_code = 'fishing-boat-owner'",
        "tariff = 'none'",
        "issued_at = issued_at + interval '1 microsecond'",
        "id = 1000",
        "seal = seal || '\\x00'",
        "seal = (SELECT seal FROM invoice WHERE id = 3)",
        "seal = NULL",
    ],
)
def test_what_an_owner_of_the_database_changes_is_found(database: str, change: str) -> None:
    some_invoices(3)
    with transaction() as session:
        a_contributor(session)
    as_owner(
        database,
        "ALTER TABLE invoice_line DISABLE TRIGGER USER",
        "ALTER TABLE event DISABLE TRIGGER USER",
        "DELETE FROM event",
        "DELETE FROM invoice_line WHERE invoice_id = 2",
        f"UPDATE invoice SET {change} WHERE id = 2",
    )
    assert [where.split(" (")[0] for where in broken()] == [
        "invoice 1000" if change == "id = 1000" else "invoice 2"
    ]


def test_an_invoice_lowered_with_its_line_is_found_by_the_promises(database: str) -> None:
    (reference,) = some_invoices()
    as_owner(
        database,
        "ALTER TABLE invoice_line DISABLE TRIGGER USER",
        "UPDATE invoice SET amount_minor = 100, owed_minor = 100",
        "UPDATE invoice_line SET amount_minor = 100",
        "ALTER TABLE invoice_line ENABLE TRIGGER USER",
    )
    found = [(each.what, each.where) for each in broken_promises()]
    assert (
        "an invoice was written or changed by another hand",
        f"invoice 1 ({reference})",
    ) in found


def test_what_was_issued_before_there_were_seals_needs_none(database: str) -> None:
    some_invoices(2)
    as_owner(database, "UPDATE invoice SET seal = NULL")
    assert broken() == []
    some_invoices(1, "2026-12")
    assert broken() == []
    as_owner(
        database,
        "INSERT INTO invoice (id, reference, contributor_id, category_code, period, due_on,"
        " amount_minor, owed_minor, tariff, issued_at) SELECT 0, '222222222266', contributor_id,"
        " category_code, '2025-01', due_on, 1, 1, tariff, issued_at FROM invoice WHERE id = 1",
    )
    assert broken() == ["invoice 0 (222222222266)"]


@pytest.mark.parametrize("taken", [1, 2])
def test_the_oldest_invoices_do_not_look_older_without_their_seals(
    database: str, taken: int
) -> None:
    some_invoices(3)
    as_owner(database, f"UPDATE invoice SET seal = NULL WHERE id <= {taken}")
    assert [where.split(" (")[0] for where in broken()] == ["invoice 1", "invoice 2"][:taken]
    with transaction() as session:
        a_contributor(session)
        with pytest.raises(Unusable, match="wasl verify"):
            sealer_of(session, process.signing_key())


def test_old_invoices_beside_new_ones_are_searched_by_halves(database: str) -> None:
    some_invoices(9)
    as_owner(
        database,
        *(f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in TABLES),
        "UPDATE invoice SET seal = NULL",
        "DELETE FROM event",
        "DELETE FROM invoice_line WHERE invoice_id IN (4, 9)",
        "DELETE FROM invoice WHERE id IN (4, 9)",
        *(f"ALTER TABLE {table} ENABLE TRIGGER USER" for table in TABLES),
    )
    some_invoices(2, "2026-12")
    some_invoices(2, "2026-10")
    assert broken() == []


def test_a_home_with_another_key_issues_nothing(database: str) -> None:
    some_invoices()
    with transaction() as session:
        sealer_of(session, process.signing_key())
        with pytest.raises(Unusable, match=r"books\.key"):
            sealer_of(session, BooksKey(Ed25519PrivateKey.generate()))
