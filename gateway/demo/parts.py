"""Which program plays the payers of which kind of provider, and what it must be told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.demo.crowd import Part
from gateway.embedded.processes import free_port
from gateway.simulators.dealing import CHANNELS

_SIGNING_VARIABLE: Final = "WASL_DEMO_SECRET"
_STAY: Final = "--stay"
"""Told to a program that is called back."""

Entry = Mapping[str, Any]
"""Of the providers file."""

_Own = Callable[[Entry, str], list[str]]


def part_of(
    entry: Entry,
    *,
    base_url: str,
    words: Sequence[str],
    journal: Path,
    log: Path,
    environment: Mapping[str, str],
    secret: str | None = None,
) -> Part:
    """Return the program that plays the payers of a provider.

    Args:
        entry: The provider's, in the providers file.
        base_url: Where the product is.
        words: What all programs are told: notices, seed, shares of what goes wrong.
        journal: The program's.
        log: Where it leaves its words.
        environment: Of the program; its secret is added.
        secret: What it signs by, where the file does not hold it.
    """
    name = entry["name"]
    program, own, secret_of = _PROGRAMS[entry["kind"]]
    argv = [
        *(sys.executable, "-m", f"gateway.simulators.{program}"),
        *("--provider", name, "--channel", CHANNELS[name], "--journal", str(journal)),
        *own(entry, base_url),
        *words,
    ]
    found = secret if secret is not None else secret_of(entry)
    stays = _STAY in argv
    return Part(name, argv, {**environment, _SIGNING_VARIABLE: found}, journal, log, stays=stays)


def _signed(entry: Entry, base_url: str) -> list[str]:
    return ["--secret-env", _SIGNING_VARIABLE, "--url", f"{base_url}/webhooks/{entry['name']}"]


def _mobile_money(entry: Entry, base_url: str) -> list[str]:
    return [
        *("--key-env", _SIGNING_VARIABLE, "--url", f"{base_url}/gsma/{entry['name']}"),
        *("--callback-port", str(free_port()), _STAY),
    ]


def _card_page(entry: Entry, base_url: str) -> list[str]:
    return ["--product", base_url, "--control", f"{entry['api_base']}/_control/pay"]


def _aggregator(entry: Entry, base_url: str) -> list[str]:
    control = f"{str(entry['api_base']).removesuffix('/api')}/_control/pay"
    # Whoever pays cash says a code at an agency, and comes by no page.
    counter = ["--counter"] if entry.get("method") == "cashplus" else []
    return ["--product", base_url, "--control", control, *counter]


def _bill_hub(entry: Entry, base_url: str) -> list[str]:
    return ["--key-env", _SIGNING_VARIABLE, "--url", f"{base_url}/bills/{entry['name']}"]


def _page(_entry: Entry, base_url: str) -> list[str]:
    return ["--product", base_url]


def _wallet(entry: Entry, base_url: str) -> list[str]:
    if entry.get("style") != "push":
        return _page(entry, base_url)
    control = f"{str(entry['request_url']).rpartition('/')[0]}/_control"
    return [*_page(entry, base_url), "--phones", control]


def _no_secret(_entry: Entry) -> str:
    return ""


_PROGRAMS: Final[Mapping[str, tuple[str, _Own, Callable[[Entry], str]]]] = {
    "standard-webhooks": ("payers", _signed, lambda entry: str(entry["secrets"][0])),
    "gsma": ("mobilemoney", _mobile_money, lambda entry: str(entry["api_keys"][0])),
    "cmi": ("browsing", _card_page, _no_secret),
    "status-query": ("browsing", _wallet, _no_secret),
    "stripe": ("browsing", _page, _no_secret),
    "chari": ("browsing", _aggregator, _no_secret),
    "youcan": ("browsing", _aggregator, _no_secret),
    "bills": ("billcounter", _bill_hub, lambda entry: str(entry["api_keys"][0])),
}
"""Of each kind: the program, what it is told besides what all are, and the secret it needs."""
