"""The soak's own providers file: every kind that is simulated, with fresh secrets."""

from __future__ import annotations

import base64
import json
import secrets
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway.embedded.processes import free_port
from gateway.providers.sandbox import StandIn, other_entries, signed_entry, stand_ins
from gateway.secretfiles import write_privately
from gateway.simulators.signing import PrivateKey

SIGNED_BY_SECRET: Final = ("cashplus", "kiosk", "wallet")
SIGNED_BY_KEY: Final = "bank"
"""By Ed25519 (`v1a`), of which the file holds the public half."""
ASKS_PER_MINUTE: Final = 1_200
"""To the wallet's operator: a soak makes in minutes what a day brings."""

Entry = dict[str, Any]


def make_providers(file: Path) -> dict[str, str]:
    """Write the providers file, and return what of the signing keys is not in it, by provider."""
    seed = secrets.token_bytes(32)
    public = {"kind": "standard-webhooks", "public_keys": [PrivateKey(seed).public]}
    phones = f"http://127.0.0.1:{free_port()}/requesttopay"
    entries: list[Entry] = [
        *map(signed_entry, SIGNED_BY_SECRET),
        {"name": SIGNED_BY_KEY, **public},
        *other_entries(),
        {
            "name": "stripe",
            "kind": "stripe",
            "secrets": [f"whsec_sandbox_{secrets.token_hex(16)}"],
            "api_key": f"sk_test_{secrets.token_hex(16)}",
            "api_base": f"http://127.0.0.1:{free_port()}",
        },
        {
            "name": "wallet-push",
            "kind": "status-query",
            "style": "push",
            "api_key": f"sandbox-{secrets.token_hex(24)}",
            "request_url": phones,
            "status_url": phones,
        },
    ]
    for entry in entries:
        if entry["kind"] == "status-query":
            entry["asks_per_minute"] = ASKS_PER_MINUTE
    write_privately(file, "\n".join(map(_toml, entries)))
    return {SIGNED_BY_KEY: "whsk_" + base64.b64encode(seed).decode()}


def read_entries(file: Path) -> list[Entry]:
    """Return the entries of the providers file."""
    with file.open("rb") as opened:
        entries: list[Entry] = tomllib.load(opened)["provider"]
    return entries


def all_stand_ins(
    file: Path, journals: Path, *, base_url: str, seed: int, shares: Mapping[str, str]
) -> dict[str, StandIn]:
    """Return the programs behind the providers' pages, by provider.

    Args:
        file: The providers file.
        journals: The folder of what they do.
        base_url: Where the product is.
        seed: Of what goes wrong.
        shares: Of what goes wrong: options of gateway.simulators.faults and their values.
    """
    found = {}
    # Whose orders are paid by its page must take them in the end: an amount or a currency that the
    # status states wrongly is not known to have been heard where a worker was killed.
    spared = {
        "cmi": {"--wrong-currency"},
        "wallet-query": {"--wrong-currency", "--wrong-amount"},
        "wallet-push": {"--wrong-currency", "--wrong-amount"},
        "chari": {"--wrong-currency"},
        "youcan": {"--wrong-currency"},
    }
    for name, made in stand_ins(file, journals).items():
        words = [
            word
            for option, share in shares.items()
            if option not in spared[name]
            for word in (option, share)
        ]
        argv = [*made.argv, "--seed", str(seed), *words]
        found[name] = StandIn(made.name, argv, made.port, made.journal)
    stripe = next(entry for entry in read_entries(file) if entry["kind"] == "stripe")
    port = int(stripe["api_base"].rpartition(":")[2])
    journal = journals / "stripe.jsonl"
    argv = [
        *(sys.executable, "-m", "gateway.simulators.stripe", "--port", str(port)),
        *("--webhook", f"{base_url}/webhooks/stripe", "--secret", stripe["secrets"][0]),
        *("--double", shares["--double"], "--lose", shares["--lose"], "--reorder"),
        *("--seed", str(seed), "--journal", str(journal)),
    ]
    found["stripe"] = StandIn("stripe-page", argv, port, journal)
    return found


def _toml(entry: Entry) -> str:
    # JSON texts, numbers and lists of texts are the same in TOML.
    lines = [f"{name} = {json.dumps(value)}" for name, value in entry.items()]
    return "\n".join(["[[provider]]", *lines, ""])
