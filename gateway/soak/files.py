"""Where a soak keeps what it did: the folder `soak/` of its home."""

from __future__ import annotations

from pathlib import Path

from gateway.simulators.dealing import CHANNELS
from gateway.simulators.pages import PAGES


class Files:
    """The paths of a soak in its home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "soak"
        self.begun = self.root / "begun"
        """There once something was done: a soak is not continued."""
        self.lock = self.root / "lock"
        self.logs = self.root / "logs"
        self.providers = self.root / "providers.toml"
        self.contributors = self.root / "contributors.csv"
        self.notices = self.root / "notices.csv"
        self.journals = self.root / "journals"
        self.kills = self.journals / "kills.jsonl"
        self.given_back = self.journals / "given_back.jsonl"
        self.payers = {name: self.journals / f"{name}.jsonl" for name in CHANNELS}
        self.page_journals = self.root / "pages"
        self.pages = {name: self.page_journals / f"{name}.jsonl" for name in PAGES}
