"""One reference that pays several invoices, of one person or of several."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session

from gateway.db import execute
from gateway.errors import Unusable
from gateway.models import Bundle, BundleKind

ITEMS_MAX = 5_000
"""Invoices in one bundle: what one booking can lock and place in good time."""


def make_selection(
    session: Session,
    invoice_ids: Sequence[int],
    *,
    contributor_id: int | None,
    now: datetime,
) -> Bundle:
    """Make a reference that pays these invoices, in this order. The caller owns the transaction.

    Args:
        session: Whose transaction it is.
        invoice_ids: At least one, none twice, none cancelled.
        contributor_id: Whose credit is what goes beyond; None: nobody's, a person decides.
        now: The business clock.

    Raises:
        Unusable: No invoice is given, one is given twice, is unknown or is cancelled, nothing is
            due on any, there are more than ITEMS_MAX, or there is no such contributor.
    """
    query = (
        "SELECT bool_and(status IN ('paid', 'cleared') AND cancelled_at IS NULL) FROM invoice"
        " WHERE id = ANY(:ids)"
    )
    if execute(session, query, {"ids": list(invoice_ids)}).scalar_one():
        raise Unusable("Nothing is due on any of these invoices: there is nothing to bundle.")
    return make_bundle(
        session, BundleKind.SELECTION, invoice_ids, contributor_id=contributor_id, now=now
    )


def make_bundle(
    session: Session,
    kind: BundleKind,
    invoice_ids: Sequence[int],
    *,
    contributor_id: int | None,
    now: datetime,
) -> Bundle:
    """Make a bundle of either kind; as `make_selection`, which says what is raised."""
    _refuse_bad_items(session, invoice_ids)
    if contributor_id is not None:
        query = "SELECT EXISTS (SELECT FROM contributor WHERE id = :id)"
        if not execute(session, query, {"id": contributor_id}).scalar_one():
            raise Unusable(f"There is no contributor {contributor_id}.")
    reference = execute(
        session,
        "SELECT wasl_reference(nextval('invoice_number'), (SELECT key FROM reference_key))",
    ).scalar_one()
    bundle = Bundle(reference=reference, kind=kind, contributor_id=contributor_id, made_at=now)
    session.add(bundle)
    session.flush()
    execute(
        session,
        "INSERT INTO bundle_item (bundle_id, position, invoice_id)"
        " SELECT :bundle, position, invoice_id"
        " FROM unnest(CAST(:ids AS bigint[])) WITH ORDINALITY AS item (invoice_id, position)",
        {"bundle": bundle.id, "ids": list(invoice_ids)},
    )
    return bundle


def owes_one_of(session: Session, contributor_id: int, invoice_ids: Sequence[int]) -> bool:
    """Say whether one of these invoices is of a person, by any file."""
    query = """
        SELECT EXISTS (
            SELECT FROM invoice JOIN contributor owner ON owner.id = invoice.contributor_id,
                contributor payer
            WHERE invoice.id = ANY(:ids) AND payer.id = :id
                AND coalesce(owner.merged_into_id, owner.id)
                    = coalesce(payer.merged_into_id, payer.id)
        )
    """
    asks = {"ids": list(invoice_ids), "id": contributor_id}
    return bool(execute(session, query, asks).scalar_one())


def withdraw_bundle(session: Session, bundle_id: int, *, now: datetime) -> None:
    """Let a bundle's reference pay nothing from now on; what it paid stands.

    Money that quotes it later is the contributor's credit, or waits in suspense. Again: changes
    nothing. The caller owns the transaction.
    """
    execute(
        session,
        "UPDATE bundle SET withdrawn_at = :now WHERE id = :id AND withdrawn_at IS NULL",
        {"now": now, "id": bundle_id},
    )


def _refuse_bad_items(session: Session, invoice_ids: Sequence[int]) -> None:
    if not invoice_ids:
        raise Unusable("A bundle needs at least one invoice.")
    if len(invoice_ids) > ITEMS_MAX:
        raise Unusable(
            f"A bundle holds at most {ITEMS_MAX} invoices, not {len(invoice_ids)}: make several."
        )
    if len(set(invoice_ids)) != len(invoice_ids):
        raise Unusable("An invoice is named twice: a bundle pays each once.")
    rows = execute(
        session,
        "SELECT id, reference, cancelled_at IS NOT NULL FROM invoice WHERE id = ANY(:ids)",
        {"ids": list(invoice_ids)},
    ).all()
    unknown = set(invoice_ids) - {at for at, _, _ in rows}
    if unknown:
        raise Unusable(f"There is no invoice {min(unknown)}.")
    for _, reference, cancelled in rows:
        if cancelled:
            raise Unusable(f"Invoice {reference} is cancelled: nothing is due on it.")
