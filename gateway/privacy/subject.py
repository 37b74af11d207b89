"""Whose data it is: all files of a person, and what the person's data are found by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlmodel import Session

from gateway.db import execute
from gateway.privacy import Subject

# The file that stands, and those that were merged into it.
_FILES: Final = """
    SELECT c.* FROM contributor c, (
        SELECT coalesce(merged_into_id, id) AS standing FROM contributor WHERE id = :id
    ) AS asked
    WHERE asked.standing IN (c.id, c.merged_into_id)
    ORDER BY c.merged_into_id IS NOT NULL, c.id
"""
_INVOICES: Final = "SELECT id, reference FROM invoice WHERE contributor_id = ANY(:files) ORDER BY 1"
_BUNDLES: Final = "SELECT id, reference FROM bundle WHERE contributor_id = ANY(:files) ORDER BY 1"
_PAYMENTS: Final = """
    SELECT id, provider, provider_payment_id, source FROM payment
    WHERE invoice_id = ANY(:invoices) OR bundle_id = ANY(:bundles) ORDER BY id
"""
_NAMES: Final = ("family_name", "given_name", "family_name_ar", "given_name_ar")


def subject_of(session: Session, contributor_id: int) -> Subject | None:
    """Return the person whom a file is of, and what is found by it; None if there is no such file.

    The caller owns the transaction.
    """
    files = execute(session, _FILES, {"id": contributor_id}).mappings().all()
    if not files:
        return None
    ids = [row["id"] for row in files]
    invoices = execute(session, _INVOICES, {"files": ids}).all()
    bundles = execute(session, _BUNDLES, {"files": ids}).all()
    found = {"invoices": [i.id for i in invoices], "bundles": [b.id for b in bundles]}
    payments = execute(session, _PAYMENTS, found).all()
    return Subject(
        contributor_id=ids[0],
        file_ids=tuple(ids),
        # What stands there once it is erased is no number, and would find nothing.
        cnss_numbers=_given([row for row in files if not row["erased_at"]], "cnss_number"),
        cins=_given(files, "cin"),
        phones=_given(files, "phone"),
        names=tuple(dict.fromkeys(n for column in _NAMES for n in _given(files, column))),
        invoice_ids=tuple(found["invoices"]),
        bundle_ids=tuple(found["bundles"]),
        references=tuple(row.reference for row in (*invoices, *bundles)),
        payment_ids=tuple(row.id for row in payments),
        payments=tuple((row.provider, row.provider_payment_id) for row in payments),
        sources=tuple(row.source for row in payments),
    )


def _given(files: Sequence[Any], column: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row[column] for row in files if row[column]))
