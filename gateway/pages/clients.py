"""Who asks, as far as counting needs it: a network, as a keyed hash and never as an address."""

from __future__ import annotations

import hmac
import os
from functools import cache
from ipaddress import IPv6Address, ip_address
from typing import Final

from fastapi import Request

from gateway.errors import Unusable
from gateway.secretfiles import read_or_make
from gateway.settings import settings

_KEY_BYTES: Final = 32
_HASH_BYTES: Final = 16
_NETWORK_BITS: Final = 64
"""What a household or a phone gets in IPv6: it may choose the rest anew for each request."""


def client_of(request: Request) -> str:
    """Return a name for the network that a request comes from, good for counting only."""
    host = request.client.host if request.client else ""
    return hmac.digest(_key(), network_of(host).encode(), "sha256")[:_HASH_BYTES].hex()


def network_of(host: str) -> str:
    """Return an address as it is counted: IPv4 whole, IPv6 by its first half."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{int(address) >> (128 - _NETWORK_BITS):x}"


@cache
def _key() -> bytes:
    try:
        path = settings().keys_dir / "visitors.key"
        return read_or_make(path, lambda: os.urandom(_KEY_BYTES))
    except Unusable:
        # Counting goes on within this process.
        return os.urandom(_KEY_BYTES)
