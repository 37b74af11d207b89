"""What a demo did, and whether every centime is accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from gateway.models import AccountKind
from gateway.money import format_amount
from gateway.simulators.tally import Tally

_ACCOUNTS: Final = {
    AccountKind.CLEARING: "held by the providers",
    AccountKind.PAYABLE: "owed to the institution",
    AccountKind.CREDIT: "credit of payers who paid too much",
    AccountKind.SUSPENSE: "in suspense: nobody knows whose debt it pays",
}


@dataclass(frozen=True)
class DemoResult:
    """What was done, and what the journals and the books say of it. Amounts are centimes."""

    contributors: int
    invoices: int
    billed_minor: int
    deliveries: int
    payments: int
    collected: Mapping[str, int]
    """Net, by channel."""
    held: Mapping[str, int]
    """What the books hold, by kind of account: what providers have, and whose it is."""
    records: int
    matched: int
    planted: Mapping[str, int]
    exceptions: Mapping[str, int]
    unaccounted_minor: int
    """Sum over payments of |journal - books|: errors cannot cancel."""
    broken: list[dict[str, str]]
    """What `wasl verify` found."""
    surprises: int
    """Answers that no provider may get."""
    first_surprises: list[str]
    seconds: float

    @property
    def ok(self) -> bool:
        return (
            self.unaccounted_minor == 0
            and self.planted == self.exceptions
            and not self.broken
            and self.surprises == 0
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fixed answer of `wasl demo --json`."""
        return {
            "contributors": self.contributors,
            "invoices": self.invoices,
            "deliveries": self.deliveries,
            "payments": self.payments,
            "collected": format_amount(sum(self.collected.values())),
            "records": self.records,
            "matched": self.matched,
            "planted": dict(sorted(self.planted.items())),
            "exceptions": dict(sorted(self.exceptions.items())),
            "unaccounted": format_amount(self.unaccounted_minor),
            "seconds": round(self.seconds, 1),
        }

    def show(self, console: Console) -> None:
        """Print the result for a person."""
        console.print(self._sums())
        console.print(self._books())
        console.print(self._exceptions())
        if self.unaccounted_minor == 0:
            console.print("Every centime that was paid is accounted for.", style="bold")
        else:
            console.print(
                f"{format_amount(self.unaccounted_minor)} MAD are not accounted for.",
                style="bold red",
            )
        if self.planted != self.exceptions:
            console.print("The exceptions found are not those that were planted.", style="red")
        for finding in self.broken:
            console.print(f"Broken: {finding['what']} ({finding['where']})", style="red")
        for surprise in self.first_surprises:
            console.print(f"Unexpected answer: {surprise}", style="red")
        if self.surprises > len(self.first_surprises):
            more = self.surprises - len(self.first_surprises)
            console.print(f"and {more} more unexpected answers.", style="red")
        console.print(f"{self.seconds:.1f} seconds.", style="dim")

    def _sums(self) -> Table:
        table = Table("", "number", "MAD", title="Collected", title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        table.add_row("contributors", f"{self.contributors}", "")
        table.add_row("invoices", f"{self.invoices}", format_amount(self.billed_minor))
        table.add_row("deliveries", f"{self.deliveries}", "", end_section=True)
        for channel, minor in self.collected.items():
            table.add_row(channel, "", format_amount(minor))
        total = format_amount(sum(self.collected.values()))
        table.add_row("payments", f"{self.payments}", total, end_section=True)
        table.add_row("institution's records", f"{self.records}", "")
        table.add_row("matched", f"{self.matched}", "")
        return table

    def _books(self) -> Table:
        table = Table("account", "MAD", title="The books", title_justify="left")
        table.columns[1].justify = "right"
        for kind, what in _ACCOUNTS.items():
            if kind in self.held:
                end = kind == AccountKind.CLEARING
                table.add_row(what, format_amount(abs(self.held[kind])), end_section=end)
        return table

    def _exceptions(self) -> Table:
        table = Table("exception", "planted", "found", title="Exceptions", title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        for code in sorted({*self.planted, *self.exceptions}):
            planted, found = self.planted.get(code, 0), self.exceptions.get(code, 0)
            table.add_row(code, f"{planted}", f"{found}", style="" if planted == found else "red")
        return table


def unaccounted(told: Tally, booked: Mapping[tuple[str, str], int]) -> int:
    """Return the sum over payments of |journal - books| in centimes, whichever knows of them."""
    payments = {*told.expected, *booked}
    return sum(abs(told.expected.get(each, 0) - booked.get(each, 0)) for each in payments)
