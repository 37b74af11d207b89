"""What a soak did, and whether everything is as the simulators' journals say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table

_WORDS: Final = {
    "double": "told twice, the same both times",
    "reorder": "told in another order than it happened",
    "lose": "lost on the way, and found by a retry or by asking",
    "late": "told of days after they were made",
    "wrong_amount": "told of again with another amount",
    "wrong_currency": "in another currency",
    "tamper": "changed on the way, and refused",
}


@dataclass(frozen=True)
class SoakResult:
    """What was done, and what the journals, the books and the inbox say of it."""

    seed: int
    figures: Mapping[str, Any]
    """As `judge.as_json` names them."""
    struck: Mapping[str, int]
    """Payments by what went wrong with them."""
    channels: Mapping[str, int]
    """Payments by provider, as the journals have them."""
    kills: Mapping[str, int]
    """By program."""
    kills_left: int
    """Planned, and not done."""
    differences: Sequence[str]
    """What is not as the journals say, in sentences."""
    seconds: float
    collecting_seconds: float
    """Of these, while payments came in."""

    @property
    def ok(self) -> bool:
        return not self.differences and not self.kills_left

    def as_json(self) -> dict[str, Any]:
        """Return the answer of `wasl soak --json`."""
        return {
            "seed": self.seed,
            **self.figures,
            "providers": dict(sorted(self.channels.items())),
            "struck": {name: self.struck[name] for name in _WORDS if self.struck.get(name)},
            "kills": dict(sorted(self.kills.items())),
            "kills_left": self.kills_left,
            "differences": list(self.differences),
            "collecting_seconds": round(self.collecting_seconds, 1),
            "seconds": round(self.seconds, 1),
        }

    def show(self, console: Console) -> None:
        """Print the result for a person."""
        table = Table("", "number", title=f"Soak with seed {self.seed}", title_justify="left")
        table.columns[1].justify = "right"
        for name, count in sorted(self.channels.items()):
            table.add_row(f"payments by {name}", f"{count}")
        table.add_section()
        for name, words in _WORDS.items():
            if self.struck.get(name):
                table.add_row(words, f"{self.struck[name]}")
        table.add_section()
        for name, count in sorted(self.kills.items()):
            table.add_row(f"kills (-9) of {name}", f"{count}")
        table.add_section()
        table.add_row("deliveries answered by 2xx", f"{self.figures['answered']}")
        table.add_row("payments in the books", f"{self.figures['payments']}")
        table.add_row("of these, given back in part or in full", f"{self.figures['given_back']}")
        console.print(table)
        for difference in self.differences:
            console.print(difference, style="red", highlight=False)
        if self.kills_left:
            console.print(f"{self.kills_left} kills were not done.", style="red")
        if self.ok:
            console.print(
                "Every delivery is in the inbox once, every payment in the books once, and nothing"
                " is left to do.",
                style="bold",
            )
        rate = self.figures["payments"] / max(self.collecting_seconds, 0.1)
        console.print(f"{self.seconds:.1f} seconds; {rate:.0f} payments a second.", style="dim")
