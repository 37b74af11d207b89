"""Send to endpoints what they walk past: one message at a time to each, all of them side by side.

Where a walk stands is kept after each block, or a second, or a failure. So a sender that is killed
sends at most a second of what was taken again, under the same ids, and loses nothing.

One sender at a time serves an endpoint: it holds a right to it that ends with its connection, and
so with the process. Should that connection be lost alone, two may send side by side for a moment;
each in order, and only one of them moves the walk on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final

import structlog
from cryptography.fernet import Fernet

from gateway import process
from gateway.clock import Clock
from gateway.db import alone, snapshot, transaction
from gateway.errors import Unusable
from gateway.settings import settings
from webhooks.guarded import NotAllowed, Reach, Wire
from webhooks.outbound.schedule import Failed, Later, NoMore, after, judge
from webhooks.outbound.secrets import Signer, sealing_key
from webhooks.outbound.walks import Block, Message, Tried, due_endpoints, keep, next_block

AT_ONCE_MAX: Final = 8
"""Endpoints that one process sends to side by side."""
ANSWER_SECONDS_MAX: Final = 20.0
"""For one attempt, from the look-up of the name to the head of the answer."""
KEEP_SECONDS: Final = 1.0
"""After which what was taken so far is kept."""
SERVE_SECONDS: Final = 20.0
"""After which an endpoint makes room for others, where there are many."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Means:
    """What sending takes."""

    key: Fernet
    """That secrets are sealed with."""
    clock: Clock
    """The business clock, by which an end is dated."""
    reach: Reach


def reach() -> Reach:
    """Return where endpoints of this installation may be."""
    return Reach.THIS_MACHINE if settings().mode == "sandbox" else Reach.INTERNET


def means() -> Means:
    """Return what sending takes in this process.

    Raises:
        Unusable: The key of the secrets cannot be used.
    """
    return Means(sealing_key(settings().keys_dir), process.business_clock(), reach())


class Sender:
    """Serves endpoints in threads of its own, which outlive the call that began them.

    One a process: a receiver that hangs holds up its own thread, and neither the others nor the
    caller.
    """

    def __init__(self) -> None:
        self._serving: dict[int, threading.Thread] = {}
        self._stopped = threading.Event()

    def serve_due(self, means: Means) -> int:
        """Begin to serve the endpoints that something waits for, and return how many began.

        Those that are being served are left alone, by this process or another.

        Raises:
            DBAPIError: The database is away.
        """
        self._serving = {at: each for at, each in self._serving.items() if each.is_alive()}
        free = AT_ONCE_MAX - len(self._serving)
        if free <= 0 or self._stopped.is_set():
            return 0
        with snapshot() as session:
            due = [each for each in due_endpoints(session) if each not in self._serving]
        for endpoint in due[:free]:
            name = f"endpoint {endpoint}"
            # Daemons: what is cut off by the end of the process is sent again.
            thread = threading.Thread(
                target=self._serve, args=(endpoint, means), name=name, daemon=True
            )
            self._serving[endpoint] = thread
            thread.start()
        return min(len(due), max(0, free))

    def wait(self) -> None:
        """Wait until all that was begun has ended."""
        for thread in list(self._serving.values()):
            thread.join()

    def stop(self) -> None:
        """Begin nothing more, and end each thread after the message that it is at."""
        self._stopped.set()

    def _serve(self, endpoint: int, means: Means) -> None:
        try:
            serve(endpoint, means, stopped=self._stopped.is_set)
        except Exception as error:  # noqa: BLE001 - the next ring finds what is still to be sent
            log.warning("endpoint_not_served", endpoint=endpoint, reason=type(error).__name__)


def serve(
    endpoint: int,
    means: Means,
    *,
    stopped: Callable[[], bool] = lambda: False,
    blocks_max: int | None = None,
) -> int:
    """Send an endpoint what waits for it, until nothing does, and return how much was taken.

    Opens its own transactions, none of which is open while something is sent. Returns at once where
    another serves it.

    Raises:
        DBAPIError: The database is away. What was sent meanwhile may be sent again.
    """
    until = time.monotonic() + SERVE_SECONDS
    taken = 0
    with alone(f"webhooks.endpoint {endpoint}") as ours:
        line = _Line(means)
        try:
            blocks = 0
            while ours and time.monotonic() < until and not stopped() and blocks != blocks_max:
                blocks += 1
                block = next_block(endpoint)
                if block is None:
                    break
                tried, then = line.send(block, stopped)
                with transaction() as session:
                    moved = keep(session, block, tried, then, now=means.clock())
                taken += sum(each.error is None for each in tried)
                if not moved:
                    break
        finally:
            line.close()
    return taken


@dataclass(slots=True)
class _Line:
    """The connection to an endpoint, as long as it keeps its address."""

    _means: Means
    _wire: Wire | None = None
    _url: str = ""
    _headers: dict[str, str] = field(
        default_factory=lambda: {
            "Content-Type": "application/json",
            "User-Agent": f"Wasl/{version('wasl')}",
        }
    )

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()

    def send(
        self, block: Block, stopped: Callable[[], bool]
    ) -> tuple[list[Tried], Later | NoMore | None]:
        """Send the messages of a block until one fails, or it is time to keep what was taken."""
        if not block.messages:
            return [], None
        if self._url != block.url or self._wire is None:
            self.close()
            self._wire = Wire(block.url, self._means.reach, seconds=ANSWER_SECONDS_MAX)
            self._url = block.url
        until = time.monotonic() + KEEP_SECONDS
        tried: list[Tried] = []
        try:
            signer = Signer(block.secrets, self._means.key)
        except Unusable as error:
            failed = Failed(str(error))
            first = Tried(block.messages[0], block.clock(), 0, None, failed.error)
            return [first], after(failed, block.attempts + 1)
        for message in block.messages:
            if tried and (time.monotonic() > until or stopped()):
                break
            each, failed_now = self._try(message, block, signer, self._wire)
            tried.append(each)
            if failed_now is not None:
                attempts = 1 + (block.attempts if len(tried) == 1 else 0)
                return tried, after(failed_now, attempts)
        return tried, None

    def _try(
        self, message: Message, block: Block, signer: Signer, wire: Wire
    ) -> tuple[Tried, Failed | None]:
        """Send one message. Raises nothing, whatever its address and a network do."""
        at, began = block.clock(), time.monotonic()
        headers = {**self._headers, **signer.sign(message.id, message.body, at)}
        status = None
        try:
            answered = wire.send("POST", headers, message.body.encode())
            status, failed = answered.status, judge(answered, block.clock())
        except NotAllowed as error:
            failed = Failed(str(error))
        except TimeoutError:
            failed = Failed(f"no answer within {ANSWER_SECONDS_MAX:g} s")
        except Exception as error:  # noqa: BLE001 - all that a name, a network and a server can do
            failed = Failed(f"no answer: {type(error).__name__}")
        ms = round((time.monotonic() - began) * 1000)
        reason = None if failed is None else failed.error
        return Tried(message, at, ms, status, reason), failed
