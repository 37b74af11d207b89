"""The chart of accounts, and what a transfer between two of them looks like. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.models import AccountKind


def account(kind: AccountKind, owner: object) -> str:
    """Return the code of an account: `clearing:cashplus`."""
    return f"{kind.value}:{owner}"


PAYABLE: Final = account(AccountKind.PAYABLE, "institution")
SUSPENSE: Final = account(AccountKind.SUSPENSE, "unidentified")
PAID_OUT: Final = account(AccountKind.PAID_OUT, "institution")


class Posting(NamedTuple):
    """A transfer to be posted. The same name with the same content again posts nothing."""

    name: str
    """What it is for; unique for ever."""
    debit: str
    credit: str
    amount_minor: int
    """Centimes, positive."""
    payment_id: int | None = None
    invoice_id: int | None = None
    reverses: str | None = None
    """Name of the transfer that this one takes back in full."""

    def opposite(self) -> Posting:
        """Return the posting that takes this one back."""
        return Posting(
            name=f"{self.name}/reversed",
            debit=self.credit,
            credit=self.debit,
            amount_minor=self.amount_minor,
            payment_id=self.payment_id,
            invoice_id=self.invoice_id,
            reverses=self.name,
        )
