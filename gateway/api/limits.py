"""How often: requests of a key, keys that open nothing, references that do not exist.

Counted as payers' guesses are (gateway.pages.throttle): shared through Redis, and by each process
for itself while Redis is away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

from limits import RateLimitItemPerMinute

from gateway.clock import real_clock
from gateway.pages.clients import Client
from gateway.pages.throttle import Bound, counters

REQUESTS_PER_MINUTE: Final = 3_000
UNKNOWN_KEYS_MAX: Final = 1_000
UNKNOWN_KEYS_OVERALL_MAX: Final = 100_000
MISSES_MAX: Final = 300
"""References that verify and do not exist, of a key in 15 minutes: nobody types so badly."""
MISSES_OVERALL_MAX: Final = 1_000_000
_WINDOW_SECONDS: Final = 60

_REQUESTS: Final = RateLimitItemPerMinute(REQUESTS_PER_MINUTE, namespace="api-requests")


@dataclass(frozen=True, slots=True)
class Rate:
    """How a key stands to its bound."""

    within: bool
    remaining: int
    reset_seconds: int
    """Until there is room for one more, or for all of them again."""

    def headers(self) -> dict[str, str]:
        """Return it as every answer bears it."""
        return {
            "RateLimit-Limit": str(REQUESTS_PER_MINUTE),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_seconds),
        }


def count_request(key_id: str) -> Rate:
    """Count a request of a key, and say how it stands then. Never fails for the sake of Redis."""
    within = counters().ask(lambda counter: counter.hit(_REQUESTS, key_id))
    reset, left = counters().ask(lambda counter: counter.get_window_stats(_REQUESTS, key_id))
    seconds = math.ceil(reset - real_clock().timestamp())
    return Rate(within, max(left, 0), min(max(seconds, 1), _WINDOW_SECONDS))


def seconds_after_unknown_key(client: Client) -> int:
    """Count a key that opens nothing; return for how long its sender waits, 0 while within."""
    return unknown_keys().count(client)


def seconds_after_miss(key_id: str) -> int:
    """Count a reference that does not exist; return for how long the key looks up no more."""
    return misses().count(_as_client(key_id))


def seconds_until_look_up(key_id: str) -> int:
    """Return for how long a key that missed too often looks up no more; 0: it may."""
    return misses().seconds_to_wait(_as_client(key_id))


def _as_client(key_id: str) -> Client:
    return Client(key_id, key_id, may_hold_around=False)


@cache
def unknown_keys() -> Bound:
    """Return the bound on keys that open nothing, by the address they come from."""
    return Bound(counters(), "keys", each=UNKNOWN_KEYS_MAX, overall=UNKNOWN_KEYS_OVERALL_MAX)


@cache
def misses() -> Bound:
    """Return the bound on references that do not exist, by key."""
    return Bound(counters(), "api-misses", each=MISSES_MAX, overall=MISSES_OVERALL_MAX)
