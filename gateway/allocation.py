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
