"""Take deliveries in: store what is authentic, many to a commit, and answer once it is durable.

The one asynchronous module of the product. It stores and answers; it decides nothing. Requests wait
on a future while a flusher writes all that wait in one statement and one commit; there is no
linger: the next batch forms while the last one commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final, NamedTuple

import asyncpg
import structlog

from gateway.db import asyncpg_address

FLUSHERS: Final = 2
BATCH_MAX: Final = 512
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bodies that may wait for a commit; who comes when they are more is told to come back (503)."""

STORE_SECONDS_MAX: Final = 8.0
RETRY_SECONDS: Final = 0.2
BELL_SECONDS: Final = 0.2
REFUSED_LOG_SECONDS: Final = 60.0

# A commit that is told is on disk, whatever the server's default. And a statement that waits for a
# lock ends with those who waited for it: a connection that we drop would be held until then.
_SESSION: Final = {
    "synchronous_commit": "on",
    "statement_timeout": f"{STORE_SECONDS_MAX:.0f}s",
}

log = structlog.get_logger(__name__)


class StoreUnavailable(Exception):
    """The database did not confirm in time. The sender is told to try again."""


class Arrival(NamedTuple):
    """An authentic delivery, byte for byte."""

    provider: str
    delivery_id: str
    body: bytes
    readable: bool
    received_at: datetime


# A first body that can be read stands under its delivery id; one that differs, or that cannot be
# read, is kept beside it. The second statement sees what other flushers committed meanwhile.
_STORE_FIRST: Final = """
    INSERT INTO webhook_delivery (provider, delivery_id, body, body_sha256, received_at)
    SELECT provider, delivery_id, body, sha256(body), received_at
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::timestamptz[])
        AS a (provider, delivery_id, body, received_at)
    ON CONFLICT (provider, delivery_id) DO NOTHING
"""
_STORE_VARIANTS: Final = """
    INSERT INTO webhook_variant
        (provider, delivery_id, body, body_sha256, received_at, readable)
    SELECT a.provider, a.delivery_id, a.body, sha256(a.body), a.received_at, a.readable
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::timestamptz[], $5::boolean[])
        AS a (provider, delivery_id, body, received_at, readable)
    LEFT JOIN webhook_delivery d USING (provider, delivery_id)
    WHERE NOT a.readable OR d.body_sha256 <> sha256(a.body)
    ON CONFLICT (provider, delivery_id, body_sha256) DO NOTHING
"""


class Intake:
    """The queue before the queue: from a request to a committed row.

    Args:
        database_url: `postgresql://…`.
        ring: Asks for the inbox to be drained; called after commits, at most every BELL_SECONDS.
            It may fail: the sweep finds what nobody rang for.
    """

    def __init__(self, database_url: str, ring: Callable[[], Awaitable[None]]) -> None:
        self._database_url = database_url
        self._ring = ring
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._waiting: list[tuple[Arrival, asyncio.Future[None]]] = []
        self._waiting_bytes = 0
        self._work = asyncio.Event()
        self._bell = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.refused: Counter[str] = Counter()
        """Deliveries that were not authentic, by provider: all that is kept of them."""
        self._refused_logged_at = -REFUSED_LOG_SECONDS

    async def start(self) -> None:
        """Start the flushers. The database is connected to when first needed."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._flush_for_ever()) for _ in range(FLUSHERS)]
        self._tasks.append(loop.create_task(self._ring_for_ever()))

    async def stop(self) -> None:
        """Stop; whoever still waits is told that it was not stored."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, stored in self._waiting:
            _fail(stored)
        self._waiting.clear()
        if self._pool is not None:
            self._pool.terminate()

    def count_refused(self, provider: str) -> None:
        """Count a delivery that was not authentic; log the counts now and then, not each one."""
        self.refused[provider] += 1
        if time.monotonic() - self._refused_logged_at >= REFUSED_LOG_SECONDS:
            self._refused_logged_at = time.monotonic()
            log.warning("deliveries_refused", so_far=dict(self.refused))

    async def store(self, arrival: Arrival) -> None:
        """Return once the delivery is committed.

        Raises:
            StoreUnavailable: It is not known to be. Storing it again is safe.
        """
        if self._waiting_bytes >= WAITING_BYTES_MAX:
            raise StoreUnavailable
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((arrival, stored))
        self._waiting_bytes += len(arrival.body)
        self._work.set()
        try:
            await stored
        finally:
            self._waiting_bytes -= len(arrival.body)

    async def _flush_for_ever(self) -> None:
        while True:
            await self._work.wait()
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            if not self._waiting:
                self._work.clear()
            # Who hung up meanwhile gets no answer, and will come again.
            batch = [(arrival, stored) for arrival, stored in batch if not stored.done()]
            if batch:
                try:
                    await self._flush(batch)
                except asyncio.CancelledError:
                    raise
                except Exception as error:  # noqa: BLE001 - the next batch still needs us
                    log.error("batch_not_stored", error=type(error).__name__)
                finally:
                    # Nobody may wait for ever, whatever became of the batch.
                    for _, stored in batch:
                        _fail(stored)

    async def _flush(self, batch: list[tuple[Arrival, asyncio.Future[None]]]) -> None:
        # One order of keys for all flushers, so that no two wait for each other in a ring. The sort
        # is stable: of two bodies under one id in a batch, the first to arrive stands.
        batch.sort(key=lambda waiting: (waiting[0].provider, waiting[0].delivery_id))
        arrivals = [arrival for arrival, _ in batch]
        try:
            await self._write_until(arrivals, time.monotonic() + STORE_SECONDS_MAX)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
            await self._flush_one_by_one(batch)
            return
        except StoreUnavailable:
            for _, stored in batch:
                _fail(stored)
            return
        for _, stored in batch:
            if not stored.done():
                stored.set_result(None)
        self._bell.set()

    async def _flush_one_by_one(self, batch: list[tuple[Arrival, asyncio.Future[None]]]) -> None:
        """Keep one row that the database refuses from refusing its neighbours."""
        deadline = time.monotonic() + STORE_SECONDS_MAX
        for arrival, stored in batch:
            try:
                await self._write_until([arrival], deadline)
            except (asyncpg.PostgresError, StoreUnavailable) as error:
                log.error("delivery_not_stored", provider=arrival.provider, error=str(error))
                _fail(stored)
            else:
                if not stored.done():
                    stored.set_result(None)
                self._bell.set()

    async def _write_until(self, arrivals: list[Arrival], deadline: float) -> None:
        """Write, over a restart of the database if it comes back in time. Writing twice is safe."""
        while True:
            try:
                await self._write_within(arrivals, max(0.1, deadline - time.monotonic()))
                return
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
                raise
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if time.monotonic() + RETRY_SECONDS >= deadline:
                    log.warning("store_unavailable", error=type(error).__name__)
                    raise StoreUnavailable from None
                await asyncio.sleep(RETRY_SECONDS)

    async def _write_within(self, arrivals: list[Arrival], seconds: float) -> None:
        """Write, or give up on a database that does not even refuse.

        A cancelled query waits for the server to say so. One that is frozen says nothing, so the
        connections are dropped, and the write is not waited for.
        """
        write = asyncio.ensure_future(self._write(arrivals))
        try:
            done, _ = await asyncio.wait({write}, timeout=seconds)
            if done:
                return write.result()
        finally:
            if not write.done():
                write.cancel()
                write.add_done_callback(_not_waited_for)
                pool, self._pool = self._pool, None
                if pool is not None:
                    pool.terminate()
        raise TimeoutError

    async def _write(self, arrivals: list[Arrival]) -> None:
        """Write them; each statement is a transaction, and both are done before anybody is told.

        Should the second one fail, what the first stored is the same again at the next try.
        """
        readable = [a for a in arrivals if a.readable]
        async with (await self._connections()).acquire() as connection:
            stored = 0
            if readable:
                said = await connection.execute(_STORE_FIRST, *_columns(readable))
                stored = int(said.rpartition(" ")[2])
            if stored < len(arrivals):
                flags = [a.readable for a in arrivals]
                await connection.execute(_STORE_VARIANTS, *_columns(arrivals), flags)

    async def _connections(self) -> asyncpg.Pool[asyncpg.Record]:
        if self._pool is None:
            # Nothing is left behind in a session here, so the round trip that resets it is saved.
            self._pool = asyncpg.create_pool(
                asyncpg_address(self._database_url),
                min_size=0,
                max_size=FLUSHERS + 1,
                reset=_leave_as_it_is,
                server_settings=_SESSION,
            )
        return await self._pool

    async def _ring_for_ever(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            try:
                await self._ring()
            except Exception as error:  # noqa: BLE001 - whatever ails it, the sweep still works
                log.warning("bell_failed", error=type(error).__name__)
            await asyncio.sleep(BELL_SECONDS)


async def _leave_as_it_is(_connection: object) -> None:
    return None


def _not_waited_for(write: asyncio.Future[None]) -> None:
    """Take note of how an abandoned write ended, so that nobody complains it was not."""
    if not write.cancelled():
        write.exception()


def _columns(arrivals: list[Arrival]) -> list[list[Any]]:
    return [
        [a.provider for a in arrivals],
        [a.delivery_id for a in arrivals],
        [a.body for a in arrivals],
        [a.received_at for a in arrivals],
    ]


def _fail(stored: asyncio.Future[None]) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):
        stored.set_exception(StoreUnavailable())
