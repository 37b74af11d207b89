"""Which debt a payment pays: named policies, recorded on each allocation. Pure."""

from __future__ import annotations

from typing import Final

QUOTED_INVOICE: Final = "quoted-invoice-v1"
"""The invoice whose reference the payer quoted, as far as it is due; the rest is the payer's."""


def to_quoted_invoice(due_minor: int, amount_minor: int) -> tuple[int, int]:
    """Split a payment into what its invoice takes and what is beyond it, in centimes."""
    assert due_minor >= 0
    assert amount_minor > 0
    taken = min(due_minor, amount_minor)
    return taken, amount_minor - taken
