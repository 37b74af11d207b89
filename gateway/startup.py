"""What must be set before a program starts, and what had better be: all of it at once.

Each program asks here before it does anything. What would be wrong or unsafe stops it, every
finding in a sentence of its own, so that a person mends all of it in one go and not one a start.
What is only unwise is said and goes on.
"""

from __future__ import annotations

import os
import socket
import stat
import tomllib
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal
from urllib.parse import urlsplit

from gateway.dues.campaigns import campaigns
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.institution import institution
from gateway.providers.registry import load_providers, unsafe_in_production
from gateway.retention import retention
from gateway.services import refuse_in_production, tell
from gateway.settings import Settings, readable_settings
from gateway.settings import settings as read_settings

Program = Literal["up", "web", "worker", "beat"]

CONNECT_SECONDS_MAX: Final = 3
TOKEN_CHARACTERS_MIN: Final = 16

_GUESSED_FIRST: Final = frozenset({"redis", "valkey", "password", "changeme", "foobared", "secret"})
_CONTAINER_SECRETS: Final = Path("/run/secrets")
_TLS: Final = frozenset({"require", "verify-ca", "verify-full"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about the settings, in one sentence that names the setting and what to do."""

    sentence: str
    stops: bool
    """Whether the program must not start."""


def require(program: Program) -> Settings:
    """Stop before what is wrong or unsafe, else say what is unwise, and return the settings.

    Raises:
        Unusable: Something is. One finding is the error's text; of several each has been written
            to standard error, and the text counts them.
    """
    found = findings_here(program)
    stopping = [finding.sentence for finding in found if finding.stops]
    if len(stopping) == 1:
        raise Unusable(stopping[0])
    if stopping:
        for sentence in stopping:
            tell(sentence)
        raise Unusable(f"{len(stopping)} settings are missing or unsafe: nothing was started.")
    for finding in found:
        tell(f"warning: {finding.sentence}")
    return read_settings()


def findings_here(program: Program) -> list[Finding]:
    """Return what findings does of this environment; values that mean nothing come first.

    Such a value hides no other finding, save those about the very same variable.
    """
    chosen, unreadable = readable_settings()
    found = [Finding(sentence, stops=True) for sentence in unreadable.values()]
    return found + [
        finding
        for finding in findings(chosen, program)
        if not any(variable in finding.sentence for variable in unreadable)
    ]


def findings(settings: Settings, program: Program) -> list[Finding]:
    """Return everything there is to say about the settings, what stops the program first.

    Reads files and, in production, asks the database about its role, within CONNECT_SECONDS_MAX.
    """
    found = [Finding(sentence, stops=True) for sentence in _wrong(settings, program)]
    if _real(settings):
        found += [Finding(sentence, stops=True) for sentence in _unsafe(settings, program)]
        found += [Finding(sentence, stops=False) for sentence in _unwise(settings, program)]
    if program != "beat":
        found += _about_keys(settings)
        found += _about_providers(settings)
    return sorted(found, key=lambda finding: not finding.stops)


def _real(settings: Settings) -> bool:
    return settings.mode == "production"


def _said(attempt: Callable[[], object]) -> Iterator[str]:
    """Yield what an attempt complains of."""
    try:
        attempt()
    except Unusable as error:
        yield str(error)


# -- wrong ----------------------------------------------------------------------------------------


def _wrong(settings: Settings, program: Program) -> Iterator[str]:
    if program != "beat":
        yield from _said(lambda: refuse_in_production(settings))
    if program == "beat" or (program != "up" and not _real(settings)):
        yield from _missing_services(settings, program)
    yield from _wrong_addresses(settings, program)
    yield from _said(settings.business_clock)
    # The schedule rings bells. It is given neither a home nor secrets, and needs none.
    if program == "beat":
        return
    yield from _said(settings.proxies)
    yield from _unusable_home(settings.home)
    if not _makes_providers(settings):
        yield from _said(lambda: load_providers(settings))
    yield from _said(institution)
    yield from _said(tariff)
    yield from _said(campaigns)
    yield from _said(retention)


def _missing_services(settings: Settings, program: Program) -> Iterator[str]:
    if settings.database_url is None and program != "beat":
        yield "WASL_DATABASE_URL is not set: start this through wasl up, or set it."
    if settings.redis_url is None:
        yield "WASL_REDIS_URL is not set: start this through wasl up, or set it."


def _wrong_addresses(settings: Settings, program: Program) -> Iterator[str]:
    """Complain of addresses that mean nothing. They may bear passwords, so none is said back."""
    database = settings.database_url.get_secret_value() if settings.database_url else None
    asked = database is not None and program != "beat"
    if asked and _hosts(database or "", {"postgresql", "postgres"}) is None:
        yield (
            "WASL_DATABASE_URL is no address of PostgreSQL: give it as"
            " postgresql://user:password@host:5432/database."
        )
    redis = settings.redis_url.get_secret_value() if settings.redis_url else None
    if redis is not None and not any(_hosts(redis, {"redis", "rediss"}) or [""]):
        yield "WASL_REDIS_URL is no address of Redis: give it as redis://:password@host:6379/0."


def _hosts(address: str, schemes: Set[str]) -> list[str] | None:
    """Return whom an address names, by commas or nobody; None if it has none of the schemes, or a
    port that cannot be."""
    try:
        parts = urlsplit(address)
        named = parts.netloc.rpartition("@")[2].split(",")
        each = [urlsplit(f"//{host}") for host in named]
        meant = parts.scheme in schemes and all(host.port != 0 for host in each)
    except ValueError:
        return None
    return [host.hostname or "" for host in each] if meant and "://" in address else None


def _makes_providers(settings: Settings) -> bool:
    """Say whether the providers file is yet to be made, by a sandbox for itself."""
    return (
        not _real(settings) and settings.providers is None and not settings.providers_file.exists()
    )


def _unusable_home(home: Path) -> Iterator[str]:
    """Complain of a home that is not there and cannot be made, or where nothing can be written."""
    nearest = next(path for path in (home, *home.parents) if os.path.lexists(path))
    try:
        # Rights, a file system for reading only, one that is none: trying tells all of it.
        with TemporaryDirectory(prefix=".wasl-", dir=nearest):
            pass
    except OSError as error:
        yield (
            f"WASL_HOME: {home} cannot be written ({nearest}: {error.strerror}): choose a home"
            " that this user may write to."
        )


# -- unsafe in production -------------------------------------------------------------------------


def _unsafe(settings: Settings, program: Program) -> Iterator[str]:
    parts = urlsplit(settings.base_url)
    if parts.scheme != "https":
        yield (
            f"WASL_BASE_URL is {settings.base_url}: in production it is the public https address"
            " that codes and receipts bear."
        )
    if program == "beat":
        return
    try:
        providers = load_providers(settings)
    except Unusable:
        return
    yield from unsafe_in_production(providers)


def _is_here(host: str) -> bool:
    """Say whether a host is this machine itself, however it is written."""
    host = host.rstrip(".")
    if not host or host == "localhost" or host.endswith(".localhost") or host.startswith("/"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        try:
            # Browsers and systems take more for an address: 127.1, 2130706433, 0.
            address = IPv4Address(socket.inet_aton(host))
        except OSError:
            return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def _about_keys(settings: Settings) -> Iterator[Finding]:
    """Look at who may read private keys. Others never; the group is a warning: volumes have one."""
    for path in sorted(settings.keys_dir.glob("*.key")):
        folder, file = path.parent.stat().st_mode, path.stat().st_mode
        if folder & stat.S_IXOTH and file & (stat.S_IROTH | stat.S_IWOTH):
            who, stops = "everybody on this machine", _real(settings)
        elif folder & stat.S_IXGRP and file & (stat.S_IRGRP | stat.S_IWGRP):
            who, stops = "its group", False
        else:
            continue
        yield Finding(f"{path} may be read by {who}: chmod 600 it.", stops)


def _about_providers(settings: Settings) -> Iterator[Finding]:
    """Look at who may read or change the providers file: whoever can may state payments."""
    path = settings.providers_file
    try:
        folder, file = path.parent.stat().st_mode, path.stat().st_mode
        named = "provider" in tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return
    if not named:
        yield Finding(f"{path} names no provider: no delivery will be taken.", stops=False)
    # Where containers get secrets nobody else is, and their modes are the engine's.
    if settings.providers is None or path.parent == _CONTAINER_SECRETS:
        return
    if folder & stat.S_IXOTH and file & (stat.S_IROTH | stat.S_IWOTH):
        changed = bool(file & stat.S_IWOTH)
        may = "changed" if changed else "read"
        yield Finding(
            f"{path} may be {may} by everybody on this machine: chmod 600 it.",
            stops=changed and _real(settings),
        )


# -- unwise in production -------------------------------------------------------------------------


def _unwise(settings: Settings, program: Program) -> Iterator[str]:
    yield from _about_redis(settings)
    if program == "beat":
        return
    if _is_here(urlsplit(settings.base_url).hostname or ""):
        yield (
            f"WASL_BASE_URL is {settings.base_url}, which is this machine: the codes on papers open"
            " nowhere else."
        )
    yield from _about_database(settings)
    for proxies in (settings.proxies() or "").split(",") if _names_proxies(settings) else ():
        network = ip_network(proxies, strict=False)
        if network.num_addresses > 1 and network.is_global:
            yield (
                f"WASL_TRUSTED_PROXIES: {proxies} is a network of the Internet, and everybody in it"
                " may choose the address he is counted by: name the proxy alone."
            )
    token = settings.metrics_token
    if token is None:
        yield "WASL_METRICS_TOKEN is not set: nobody can read /metrics."
    elif len(token.get_secret_value()) < TOKEN_CHARACTERS_MIN:
        yield f"WASL_METRICS_TOKEN is shorter than {TOKEN_CHARACTERS_MIN} characters: make one up."
    yield from _about_institution(settings)


def _names_proxies(settings: Settings) -> bool:
    return settings.trusted_proxies not in {"", "none"}


def _about_database(settings: Settings) -> Iterator[str]:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    if settings.database_url is None:
        return
    url = settings.database_url.get_secret_value()
    try:
        parts = conninfo_to_dict(url)
        insists = str(parts.get("sslmode") or os.environ.get("PGSSLMODE", "")) in _TLS
        hosts = str(parts.get("host") or "").split(",")
        if not insists and not all(_is_here(host) for host in hosts):
            yield (
                "WASL_DATABASE_URL does not insist on TLS to another machine: add sslmode=require,"
                " or better verify-full."
            )
        with psycopg.connect(url, connect_timeout=CONNECT_SECONDS_MAX) as connection:
            query = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
            row = connection.execute(query).fetchone()
    except psycopg.Error:
        # Whether it answers is another question, asked by those who cannot start without it.
        return
    if row is not None and row[0]:
        yield (
            "The role of WASL_DATABASE_URL is a superuser, whom no trigger of the books stops: give"
            " Wasl a role of its own that owns its database."
        )


def _about_redis(settings: Settings) -> Iterator[str]:
    if settings.redis_url is None:
        return
    try:
        parts = urlsplit(settings.redis_url.get_secret_value())
        host, password = parts.hostname or "", parts.password or ""
    except ValueError:
        return
    if parts.scheme in {"redis", "rediss"} and not _is_here(host):
        if not password:
            yield "WASL_REDIS_URL bears no password for another machine: give Redis one."
        elif password in _GUESSED_FIRST:
            yield "WASL_REDIS_URL bears a password that is guessed first: make one up."


def _about_institution(settings: Settings) -> Iterator[str]:
    if settings.institution is None:
        yield (
            "WASL_INSTITUTION is not set: names, fees and ceilings on papers are those shipped,"
            " which nobody has confirmed."
        )
        return
    try:
        house = institution()
    except Unusable:
        return
    unverified = [way.channel.value for way in house.way if not way.verified]
    if not house.validity.verified:
        unverified.insert(0, "validity")
    if unverified:
        yield (
            f"WASL_INSTITUTION: the figures of {', '.join(unverified)} are marked unverified, and"
            " papers show them."
        )
