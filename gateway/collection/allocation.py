"""Which debt a payment pays: named policies, recorded on each allocation. Pure."""

from __future__ import annotations

from typing import Final

QUOTED_INVOICE: Final = "quoted-invoice-v1"
"""The invoice whose reference the payer quoted: principal, penalty, fees; the rest is credit."""

BUNDLE_ORDER: Final = "bundle-order-v1"
"""The invoices of the bundle whose reference was quoted, in its order, each as above."""

OLDEST_FIRST: Final = "oldest-first-v1"
"""Credit: the person's open invoices, the one that was due first before the others."""

CURRENT_FIRST: Final = "current-first-v1"
"""In a plan or a campaign: what came due since it was made, then the debts, oldest first."""

CURRENT_OF_PLAN: Final = """
    SELECT i.id FROM plan
    JOIN contributor asked ON asked.id = plan.contributor_id
    JOIN contributor file ON file.id = coalesce(asked.merged_into_id, asked.id)
        OR file.merged_into_id = coalesce(asked.merged_into_id, asked.id)
    JOIN invoice i ON i.contributor_id = file.id
    WHERE plan.bundle_id = {bundle} AND i.due_on >= plan.made_on
        AND i.status IN ('open', 'part_paid') AND i.cancelled_at IS NULL
        AND NOT EXISTS (SELECT FROM bundle_item item
            WHERE item.bundle_id = plan.bundle_id AND item.invoice_id = i.id)
    ORDER BY i.due_on, i.id
"""
"""What a plan's reference pays first: what came due since the plan was made, on all files of the
person, oldest first. Of the bundle that `{bundle}` names; nothing for a selection."""
