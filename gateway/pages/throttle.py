"""How often a stranger may guess: misses are counted, and whoever missed too often waits.

A miss is a reference or a receipt number that could exist and does not. Honest people hardly ever
miss: their typing errors are found without a look-up and count nothing. Counting is shared by all
processes through Redis. While Redis does not answer, each process counts for itself, and asks again
after a pause, so that neither a stranger nor a dead Redis can hold up a page.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from threading import Lock
from time import monotonic
from typing import Final, TypeVar

import redis
import structlog
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.errors import ConfigurationError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.clock import real_clock
from gateway.pages.clients import Client
from gateway.settings import settings

log = structlog.get_logger(__name__)

WINDOW_MINUTES: Final = 15
MISSES_MAX: Final = 5
MISSES_OVERALL_MAX: Final = 300
AROUND_TIMES: Final = 10
"""How many times the bound on a client the network around it may, where one customer may hold it
all: an IPv6 /48 has 65,536 networks like a household's."""
PHOTOS_MAX: Final = 30
PHOTOS_OVERALL_MAX: Final = 1_500

REDIS_SECONDS_MAX: Final = 0.25
"""For each thing Redis is asked; it takes a thousandth of that."""
PAUSE_SECONDS: Final = 15.0
"""Between attempts to reach a Redis that did not answer."""

_PREFIX: Final = "wasl"
_EVERYBODY: Final = "everybody"

_Answer = TypeVar("_Answer")


class Counters:
    """The counters, in Redis while it answers, else in this process."""

    def __init__(self, redis_url: str | None) -> None:
        self._shared = _shared(redis_url)
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._away = False
        self._again_at = 0.0
        self._turn = Lock()

    def ask(self, question: Callable[[MovingWindowRateLimiter], _Answer]) -> _Answer:
        """Return what the counters say to a question; never raises for the sake of Redis."""
        if self._shared is not None and self._may_try():
            try:
                said = question(self._shared)
            except (redis.RedisError, OSError) as error:
                self._lost(error)
            else:
                self._found()
                return said
        return question(self._own)

    def _may_try(self) -> bool:
        if not self._away:
            return True
        with self._turn:
            if monotonic() < self._again_at:
                return False
            # One asks whether it is back; the others do not wait for the answer.
            self._again_at = monotonic() + PAUSE_SECONDS
            return True

    def _lost(self, error: Exception) -> None:
        with self._turn:
            first, self._away = not self._away, True
            self._again_at = monotonic() + PAUSE_SECONDS
        if first:
            log.warning("counting_without_redis", reason=type(error).__name__)

    def _found(self) -> None:
        if self._away:
            with self._turn:
                # What was counted meanwhile is let go, or it would be kept for ever.
                self._away, self._own = False, MovingWindowRateLimiter(MemoryStorage())
            log.info("counting_with_redis_again")


class Bound:
    """So many in the window for each client, for the network around it, and for everybody."""

    def __init__(self, counters: Counters, name: str, *, each: int, overall: int) -> None:
        self._counters = counters
        self._each = _item(each, name)
        self._around = _item(each * AROUND_TIMES, f"{name}-around")
        self._overall = _item(overall, f"{name}-overall")

    def seconds_to_wait(self, client: Client) -> int:
        """Return for how long a client is not served; 0: now.

        Beyond the overall bound waits whoever is counted, or has a neighbour who is. Who has none
        goes on: one that guesses from many networks cannot shut the door to everybody else.
        """
        reset, left = self._standing(self._each, client.own)
        if not left:
            return self._until(reset)
        reset, left = self._standing(self._around, client.around)
        if left == self._around.amount:
            return 0
        if not left and client.may_hold_around:
            return self._until(reset)
        return 0 if self._standing(self._overall, _EVERYBODY)[1] else self._until(reset)

    def count(self, client: Client) -> int:
        """Count one; return 0, or for how long the client waits because it was one too many.

        Of several at once only so many are told 0: the counter decides, not the look before. What
        else the look before let through must look again after it.
        """
        if not self._hit(self._each, client.own):
            return self._until(self._standing(self._each, client.own)[0])
        if not self._hit(self._around, client.around) and client.may_hold_around:
            return self._until(self._standing(self._around, client.around)[0])
        self._hit(self._overall, _EVERYBODY)
        return 0

    def _hit(self, item: RateLimitItem, whose: str) -> bool:
        return self._counters.ask(lambda counter: counter.hit(item, whose))

    def _standing(self, item: RateLimitItem, whose: str) -> tuple[float, int]:
        return self._counters.ask(lambda counter: counter.get_window_stats(item, whose))

    def _until(self, reset: float) -> int:
        seconds = math.ceil(reset - real_clock().timestamp())
        return min(max(seconds, 1), WINDOW_MINUTES * 60)


@cache
def counters() -> Counters:
    """Return the counters of this process."""
    url = settings().redis_url
    return Counters(url.get_secret_value() if url else None)


@cache
def misses() -> Bound:
    """Return the bound on guesses."""
    return Bound(counters(), "misses", each=MISSES_MAX, overall=MISSES_OVERALL_MAX)


@cache
def photos() -> Bound:
    """Return the bound on photos: reading one costs a hundred times a page."""
    return Bound(counters(), "photos", each=PHOTOS_MAX, overall=PHOTOS_OVERALL_MAX)


def _item(amount: int, name: str) -> RateLimitItem:
    return RateLimitItemPerMinute(amount, WINDOW_MINUTES, namespace=name)


def _shared(redis_url: str | None) -> MovingWindowRateLimiter | None:
    if redis_url is None:
        return None
    try:
        pool = redis.ConnectionPool.from_url(
            redis_url,
            socket_timeout=REDIS_SECONDS_MAX,
            socket_connect_timeout=REDIS_SECONDS_MAX,
            retry=Retry(NoBackoff(), 0),
        )
        return MovingWindowRateLimiter(RedisStorage(redis_url, pool, key_prefix=_PREFIX))
    except (ConfigurationError, ValueError):
        log.warning("counting_without_redis", reason="the address is none of Redis")
        return None
