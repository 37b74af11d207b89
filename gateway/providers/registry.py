"""Which providers are switched on: the providers file, read when a process starts."""

from __future__ import annotations

import base64
import os
import re
import secrets
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from gateway.errors import Unusable
from gateway.providers import WebhookProvider
from gateway.providers.standard_webhooks import StandardWebhooks, StandardWebhooksSettings
from gateway.secretfiles import read_or_make
from gateway.settings import Settings

Providers = Mapping[str, WebhookProvider]
Maker = Callable[[str, dict[str, Any]], WebhookProvider]

KINDS: Final[Mapping[str, Maker]] = {
    "standard-webhooks": lambda name, values: StandardWebhooks(
        name, StandardWebhooksSettings.model_validate(values)
    ),
}

# One for each way to pay, so that a first trial has all of them.
SANDBOX_PROVIDERS: Final = ("cashplus", "kiosk", "wallet", "card", "bank")

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}", re.ASCII)


def load_providers(settings: Settings) -> Providers:
    """Return the providers by name. The sandbox makes its own file, with fresh secrets, once.

    Raises:
        Unusable: The file or an entry of it cannot be used; the sentence names the entry.
    """
    path = settings.providers_file
    if settings.providers is None and settings.mode == "production":
        raise Unusable("Production has no providers of its own: set WASL_PROVIDERS to their file.")
    if settings.providers is None:
        text = read_or_make(path, _sandbox_file).decode()
    else:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Unusable(f"The providers file {path} cannot be read: {error}.") from None
    return read_providers(text, path.name)


def read_providers(text: str, where: str) -> Providers:
    """Return the providers that a TOML text describes.

    Raises:
        Unusable: As load_providers.
    """
    try:
        entries = tomllib.loads(text).get("provider", [])
    except tomllib.TOMLDecodeError as error:
        raise Unusable(f"{where} is not TOML: {error}.") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Unusable(f"{where}: write each provider as a [[provider]] table.")
    found: dict[str, WebhookProvider] = {}
    for at, entry in enumerate(entries, start=1):
        name = entry.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Unusable(
                f"{where}, provider {at}: its name must be lower-case letters, digits and hyphens,"
                " beginning with a letter."
            )
        if name in found:
            raise Unusable(f"{where}: two providers are named {name}.")
        found[name] = _make(name, entry, where)
    return found


def _make(name: str, entry: dict[str, Any], where: str) -> WebhookProvider:
    values = {key: value for key, value in entry.items() if key not in {"name", "kind"}}
    kind = entry.get("kind")
    maker = KINDS.get(kind) if isinstance(kind, str) else None
    if maker is None:
        raise Unusable(
            f"{where}, provider {name}: its kind is not one of {', '.join(sorted(KINDS))}."
        )
    if variable := values.pop("secrets_env", None):
        secret = os.environ.get(str(variable))
        if not secret:
            raise Unusable(f"{where}, provider {name}: the variable {variable} is not set.")
        values["secrets"] = [*_listed(values.get("secrets")), *secret.split()]
    try:
        return maker(name, values)
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"])
        raise Unusable(f"{where}, provider {name}, {setting}: {first['msg']}.") from None
    except Unusable as error:
        raise Unusable(f"{where}, provider {name}: {error}.") from None


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _sandbox_file() -> bytes:
    lines = ["# Made for this sandbox. The secrets are its own: never use them elsewhere.", ""]
    for name in SANDBOX_PROVIDERS:
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        lines += [
            "[[provider]]",
            f'name = "{name}"',
            'kind = "standard-webhooks"',
            f'secrets = ["whsec_{secret}"]',
            "",
        ]
    return "\n".join(lines).encode()
