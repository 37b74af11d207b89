"""The sandbox's own providers file, and the programs that play the providers named in it.

The file is made once, with fresh secrets and with the ports of this machine where pages to pay on
are: a home keeps its addresses. Nothing of it is good for production, which refuses its marks.
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.embedded.processes import free_port
from gateway.providers.standard_webhooks import SANDBOX_MARK

SIGNED: Final = ("cashplus", "kiosk", "wallet", "card", "bank")
"""One for each way to pay, so that a first trial has all of them."""
OTHERS: Final = ("cmi", "mobile-money", "wallet-query", "bill-hub", "chari", "youcan")
NAMES: Final = (*SIGNED, *OTHERS)

STAND_INS: Final = "stand-ins"
"""The folder of a sandbox's home where the programs that play its providers keep what they do."""

_TEXT_MARK: Final = "sandbox-"
_CLIENT_ID: Final = "600001234"

Entry = dict[str, Any]


def sandbox_file() -> bytes:
    """Return the text of a new file, with secrets and ports of its own."""
    lines = ["# Made for this sandbox. The secrets are its own: never use them elsewhere.", ""]
    for entry in (*map(signed_entry, SIGNED), *other_entries()):
        # A JSON text or list of texts is the same in TOML.
        lines += ["[[provider]]", *(f"{name} = {json.dumps(v)}" for name, v in entry.items()), ""]
    return "\n".join(lines).encode()


def signed_entry(name: str) -> Entry:
    """Return an entry of the kind standard-webhooks with a fresh secret."""
    secret = base64.b64encode(SANDBOX_MARK + secrets.token_bytes(32)).decode()
    return {"name": name, "kind": "standard-webhooks", "secrets": [f"whsec_{secret}"]}


def other_entries() -> list[Entry]:
    """Return an entry for each of OTHERS, with fresh secrets and free ports."""
    # All at once, lest two get the same one.
    ports: set[int] = set()
    while len(ports) < 4:
        ports.add(free_port())
    card, wallet, links, tokens = (f"http://127.0.0.1:{port}" for port in ports)
    return [
        {
            "name": "cmi",
            "kind": "cmi",
            "client_id": _CLIENT_ID,
            "store_key": _key(),
            "api_base": card,
        },
        {
            "name": "mobile-money",
            "kind": "gsma",
            "api_keys": [f"{SANDBOX_MARK.decode()}-{secrets.token_hex(24)}"],
        },
        {
            "name": "wallet-query",
            "kind": "status-query",
            "status_url": f"{wallet}/transactionstatus",
            "request_url": f"{wallet}/webpayment",
            "api_key": _key(),
        },
        {
            "name": "bill-hub",
            "kind": "bills",
            "api_keys": [f"{SANDBOX_MARK.decode()}-{secrets.token_hex(24)}"],
        },
        {
            "name": "chari",
            "kind": "chari",
            "secrets": [_key()],
            "api_key": f"chari_sk_test_{secrets.token_hex(16)}",
            "api_base": links,
        },
        {
            "name": "youcan",
            "kind": "youcan",
            "method": "cashplus",
            "api_key": f"pri_sandbox_{secrets.token_hex(16)}",
            "public_key": f"pub_sandbox_{secrets.token_hex(16)}",
            "api_base": f"{tokens}/api",
        },
    ]


def _key() -> str:
    return f"{_TEXT_MARK}{secrets.token_hex(24)}"


@dataclass(frozen=True, slots=True)
class StandIn:
    """A program that plays a provider's side, on a port of this machine."""

    name: str
    argv: Sequence[str]
    port: int
    journal: Path
    """What it did: it goes on there when it is started again."""


def stand_ins(file: Path, journals: Path) -> dict[str, StandIn]:
    """Return the programs that a providers file asks for, by provider: pages on this machine.

    Args:
        file: A sandbox's; one that is not there, or cannot be read, asks for none.
        journals: The folder of what they do.
    """
    try:
        with file.open("rb") as opened:
            entries = tomllib.load(opened).get("provider", [])
    except (OSError, tomllib.TOMLDecodeError):
        return {}
    found = {}
    for entry in entries:
        made = _stand_in(entry, journals)
        if made is not None:
            found[entry["name"]] = made
    return found


def _stand_in(entry: Mapping[str, Any], journals: Path) -> StandIn | None:
    journal = journals / f"{entry.get('name')}.jsonl"
    match entry.get("kind"):
        case "cmi":
            name, program, address = "card-page", "cardpage", entry.get("api_base", "")
            own = ["--store-key", entry["store_key"], "--client-id", entry["client_id"]]
        case "status-query" if entry.get("style") == "push":
            name, program, address = "wallet-phone", "walletpush", entry.get("request_url", "")
            own = ["--api-key", entry["api_key"]]
        case "status-query":
            name, program, address = "wallet-page", "walletquery", entry.get("request_url", "")
            own = ["--api-key", entry["api_key"]]
        case "chari":
            name, program, address = "chari-page", "aggregatorpage", entry.get("api_base", "")
            own = ["--kind", "chari", "--secret", entry["secrets"][0], "--name", entry["name"]]
            own += ["--api-key", entry.get("api_key", "")]
        case "youcan":
            name, program, address = "youcan-page", "aggregatorpage", entry.get("api_base", "")
            kind = "youcan-cash" if entry.get("method") == "cashplus" else "youcan"
            own = ["--kind", kind, "--secret", entry["api_key"], "--name", entry["name"]]
            own += ["--api-key", entry["api_key"]]
        case _:
            return None
    parts = urlsplit(address)
    if parts.hostname != "127.0.0.1" or not parts.port:
        return None
    argv = [
        *(sys.executable, "-m", f"gateway.simulators.{program}"),
        *("--port", str(parts.port), "--journal", str(journal)),
        *own,
    ]
    return StandIn(name, argv, parts.port, journal)
