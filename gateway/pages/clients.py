"""Who asks, as far as counting needs it: a network, as a keyed hash and never as an address."""

from __future__ import annotations

import hmac
import os
import re
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from fastapi import Request

from gateway.errors import Unusable
from gateway.secretfiles import read_or_make
from gateway.settings import settings

_KEY_BYTES: Final = 32
_HASH_BYTES: Final = 16
_OWN_BITS: Final = {4: 32, 6: 64}
"""What a household or a phone gets: in IPv6 it may choose the rest anew for each request."""
_AROUND_BITS: Final = {4: 24, 6: 48}
"""What one customer of a provider may get whole in IPv6, and what neighbours share in IPv4."""

_WITH_PORT: Final = re.compile(r"\[(.*)\](?::[0-9]+)?|([^:]*):[0-9]+", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Client:
    """Names for the network that a request comes from and for the wider one around it."""

    own: str
    around: str
    may_hold_around: bool
    """Whether the wider network may be one customer's, so that it has a bound of its own."""


def client_of(request: Request) -> Client:
    """Return who asks, good for counting only."""
    own, around = networks_of(request.client.host if request.client else "")
    return Client(_name(own), _name(around), ":" in own)


def networks_of(host: str) -> tuple[str, str]:
    """Return what an address is counted by: its network, and the wider one around that.

    A port behind the address, as some proxies write it, is left out.
    """
    with_port = _WITH_PORT.fullmatch(host)
    plain = host if with_port is None else with_port[1] or with_port[2] or ""
    try:
        address = ip_address(plain.partition("%")[0])
    except ValueError:
        return host, host
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    bits = _OWN_BITS[address.version], _AROUND_BITS[address.version]
    own, around = (str(ip_network((address, each), strict=False)) for each in bits)
    return own, around


def _name(network: str) -> str:
    digest = hmac.digest(_key(), network.encode("utf-8", "surrogatepass"), "sha256")
    return digest[:_HASH_BYTES].hex()


@cache
def _key() -> bytes:
    try:
        path = settings().keys_dir / "visitors.key"
        return read_or_make(path, lambda: os.urandom(_KEY_BYTES))
    except Unusable:
        # Counting goes on within this process.
        return os.urandom(_KEY_BYTES)
