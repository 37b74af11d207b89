"""Where a demo keeps what it did: the folder `demo/` of its home."""

from __future__ import annotations

from pathlib import Path

from gateway.providers.sandbox import NAMES, STAND_INS
from gateway.simulators.dealing import CHANNELS
from gateway.simulators.pages import PAGES

PLAYED = tuple(name for name in CHANNELS if name in NAMES)
"""The providers of a sandbox's own file, all of which are played."""


class Files:
    """The paths of a demo in its home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "demo"
        self.story = self.root / "story.json"
        self.lock = self.root / "lock"
        self.logs = self.root / "logs"
        self.contributors = self.root / "contributors.csv"
        self.notices = self.root / "notices.csv"
        self.records = self.root / "records.csv"
        self.institution = self.root / "journals" / "institution.jsonl"
        self.payers = {name: self.root / "journals" / f"{name}.jsonl" for name in PLAYED}
        self.pages = {name: home / STAND_INS / f"{name}.jsonl" for name in PAGES if name in PLAYED}
        """Of the stand-ins for providers' pages, which `wasl up` runs."""


def last_line(log: Path) -> str:
    """Return the last words of a log, for an error that ends the demo."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return "it said nothing."
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing.")
