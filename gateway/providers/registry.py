"""Which providers are switched on: the providers file, read when a process starts."""

from __future__ import annotations

import importlib
import os
import re
import tomllib
from collections.abc import Mapping
from itertools import product
from typing import Any, Final

from pydantic import ValidationError

from gateway.errors import Unusable
from gateway.providers import Provider, sandbox
from gateway.secretfiles import read_or_make
from gateway.settings import Settings, in_plain_words

Providers = Mapping[str, Provider]

KINDS: Final[Mapping[str, str]] = {
    "standard-webhooks": "gateway.providers.standard_webhooks",
    "stripe": "gateway.providers.stripe_pages",
    "status-query": "gateway.providers.status_query",
    "cmi": "gateway.providers.cmi",
    "gsma": "gateway.providers.gsma",
    "bills": "gateway.providers.bills",
    "chari": "gateway.providers.chari_pages",
    "youcan": "gateway.providers.youcan",
}
"""The module of each kind: its `make(name, values, live=…)` returns a provider of these settings,
and raises pydantic's ValidationError or Unusable for what it cannot use. It is imported when a
provider of the kind is switched on."""

_FROM_ENVIRONMENT: Final = ("secrets", "api_key", "api_keys", "store_key", "subscription_key")
"""Settings that a variable may hold instead: its name is given as `…_env`."""

_LISTS: Final = ("secrets", "api_keys")

_TWO_WAYS: Final = ("chari", "youcan")
"""Kinds of which one account may stand twice, as two values of `method`. Their `make` is told so:
`has_sibling`. Without a sibling, what is paid the other way is booked all the same."""

SANDBOX_PROVIDERS: Final = sandbox.NAMES

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
        text = read_or_make(path, sandbox.sandbox_file).decode()
    else:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise Unusable(f"The providers file {path} cannot be read: {reason}.") from None
    return read_providers(text, path.name, live=settings.mode == "production")


def unsafe_in_production(providers: Providers) -> list[str]:
    """Return what of the providers is good for trying out only: a sentence for each reason."""
    named: dict[str, list[str]] = {}
    for name in providers:
        for reason in dict.fromkeys(providers[name].unsafe_in_production()):
            named.setdefault(reason, []).append(name)
    return [f"Provider {', '.join(names)}: {reason}." for reason, names in named.items()]


def read_providers(text: str, where: str, *, live: bool = False) -> Providers:
    """Return the providers that a TOML text describes.

    Args:
        text: Of the file.
        where: Its name, for what is said of it.
        live: Whether real money is meant; else test money.

    Raises:
        Unusable: As load_providers.
    """
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Unusable(f"{where} is not TOML: {error}.") from None
    entries = read.pop("provider", [])
    if read:
        raise Unusable(
            f"{where}: {next(iter(read))} is not known: write each provider as a [[provider]]"
            " table, and its settings below that line."
        )
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Unusable(f"{where}: write each provider as a [[provider]] table.")
    read_entries: dict[str, tuple[object, dict[str, Any]]] = {}
    for at, entry in enumerate(entries, start=1):
        name = entry.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Unusable(
                f"{where}, provider {at}: its name must be lower-case letters, digits and hyphens,"
                " beginning with a letter."
            )
        if name in read_entries:
            raise Unusable(f"{where}: two providers are named {name}.")
        read_entries[name] = (entry.get("kind"), _values(name, entry, where))
    found: dict[str, Provider] = {}
    owners: dict[str, str] = {}
    for name, (kind, values) in read_entries.items():
        siblings = any(_are_siblings(kind, values, *other) for other in read_entries.values())
        found[name] = _make(name, kind, values, where, live=live, has_sibling=siblings)
        # A trial may play several providers of the standard kind by one secret.
        if live or kind != "standard-webhooks":
            _claim(owners, name, values, where)
    return found


def _are_siblings(
    kind: object, values: Mapping[str, Any], other_kind: object, other: Mapping[str, Any]
) -> bool:
    """Say whether two entries are one account's, each for its own way to pay. Both hear all."""
    if kind not in _TWO_WAYS or kind != other_kind:
        return False
    ways = [values.get("method"), other.get("method")]
    if None in ways or ways[0] == ways[1]:
        return False
    ours, theirs = (
        {str(key) for name in _FROM_ENVIRONMENT for key in _listed(each.get(name))}
        for each in (values, other)
    )
    return not ours.isdisjoint(theirs)


def _claim(owners: dict[str, str], name: str, values: Mapping[str, Any], where: str) -> None:
    """Note whose the keys of an entry are: by two names one delivery is booked twice."""
    # An entry for one way to pay leaves what is paid otherwise to another entry of the account.
    ways = [values["method"]] if "method" in values else ["card", "cash", "cashplus"]
    for setting in (*_FROM_ENVIRONMENT, "public_keys"):
        for secret, way in product(_listed(values.get(setting)), ways):
            plain = str(secret).removeprefix("whsec_").removeprefix("whpk_").rstrip("=")
            if (owner := owners.setdefault(f"{way}:{plain}", name)) != name:
                raise Unusable(
                    f"{where}: {owner} and {name} have the same {setting}, and so would book the"
                    " same money twice: keep one of them."
                )


def _values(name: str, entry: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the settings of an entry, with those that variables hold."""
    values = {key: value for key, value in entry.items() if key not in {"name", "kind"}}
    for setting in _FROM_ENVIRONMENT:
        if variable := values.pop(f"{setting}_env", None):
            secret = os.environ.get(str(variable))
            if not secret:
                raise Unusable(f"{where}, provider {name}: the variable {variable} is not set.")
            kept = _listed(values.get(setting)) if setting in _LISTS else None
            values[setting] = secret.strip() if kept is None else [*kept, *secret.split()]
    return values


def _make(
    name: str,
    kind: object,
    values: dict[str, Any],
    where: str,
    *,
    live: bool,
    has_sibling: bool,
) -> Provider:
    module = KINDS.get(kind) if isinstance(kind, str) else None
    if module is None:
        raise Unusable(
            f"{where}, provider {name}: its kind is not one of {', '.join(sorted(KINDS))}."
        )
    try:
        own = {"has_sibling": True} if has_sibling else {}
        provider = importlib.import_module(module).make(name, values, live=live, **own)
        assert isinstance(provider, Provider)
        return provider
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"])
        raise Unusable(f"{where}, provider {name}, {setting}: {in_plain_words(first)}.") from None
    except Unusable as error:
        raise Unusable(f"{where}, provider {name}: {error}.") from None


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [] if value is None else [value]
