"""A provider and its payers: signs Standard Webhooks deliveries and really sends them.

One program is one provider. A journal line is written before each first send, with all that is
needed to send the same again, and a line after each answer. Started again after a kill it skips
what was answered as expected and sends the rest under the same ids, with the same bodies and fresh
timestamps and signatures, as a real provider retries. It exits 1 if an answer was not as expected.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway.simulators.clock import Clock, business_clock
from gateway.simulators.dealing import CHANNELS, Behaviour, Case, deal
from gateway.simulators.deliveries import Attack, Step, plan
from gateway.simulators.journal import Journal, JournalInUse, Line, read_journal
from gateway.simulators.notices import read_notices
from gateway.simulators.signing import secret_bytes, signature

ANSWER_SECONDS_MAX: Final = 20.0
RETRY_SECONDS_MAX: Final = 180.0
PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 2.0
OUTSIDE_WINDOW_SECONDS: Final = 600
"""How far an attack's timestamp is off: twice what Standard Webhooks tolerates."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one delivery: the final answer, or why there is none."""

    status: int | None
    error: str | None

    def as_expected(self, step: Step) -> bool:
        """Say whether this is the answer that the step must get."""
        if self.status is None:
            return False
        return self.status == 400 if step.refused else 200 <= self.status < 300


def wire(step: Step, *, key: bytes, now: datetime) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a delivery sent at `now`, spoilt as its attack says."""
    timestamp = int(now.timestamp())
    if step.attack is Attack.STALE:
        timestamp -= OUTSIDE_WINDOW_SECONDS
    elif step.attack is Attack.AHEAD:
        timestamp += OUTSIDE_WINDOW_SECONDS
    if step.attack is Attack.OTHER_KEY:
        key = hashlib.sha256(b"not the key" + key).digest()
    headers = {
        "content-type": "application/json",
        "webhook-id": step.delivery_id,
        "webhook-timestamp": str(timestamp),
    }
    if step.attack is not Attack.UNSIGNED:
        headers["webhook-signature"] = signature(key, step.delivery_id, timestamp, step.body)
    if step.attack is Attack.TAMPERED:
        return headers, step.body.replace(b'"amount":"', b'"amount":"9', 1)
    return headers, step.body


class Sender:
    """One kept-alive connection to the product, which retries as a provider does."""

    def __init__(self, url: str, *, key: bytes, clock: Clock) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"{url!r} is not an http address")
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port, timeout=ANSWER_SECONDS_MAX
        )
        self._path = parts.path
        self._key = key
        self._clock = clock

    def deliver(self, step: Step, *, stop: threading.Event) -> Outcome:
        """Send until there is an answer below 500, for RETRY_SECONDS_MAX at most."""
        until = time.monotonic() + RETRY_SECONDS_MAX
        pause = PAUSE_SECONDS_MIN
        while True:
            outcome = self._attempt(step)
            answered = outcome.status is not None and outcome.status < 500
            if answered or stop.is_set() or time.monotonic() + pause > until:
                return outcome
            time.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def close(self) -> None:
        self._connection.close()

    def _attempt(self, step: Step) -> Outcome:
        headers, body = wire(step, key=self._key, now=self._clock())
        try:
            self._connection.request("POST", self._path, body=body, headers=headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Outcome(None, type(error).__name__)
        return Outcome(answer.status, None)


class Round:
    """The cases of one provider, sent by several threads; each case by one, in its order."""

    def __init__(
        self,
        cases: list[Case],
        journal: Journal,
        past: list[Line],
        *,
        planned_at: datetime,
    ) -> None:
        self._cases: Iterator[Case] = iter(cases)
        self._journal = journal
        self._planned_at = planned_at
        self._next = threading.Lock()
        self._stop = threading.Event()
        self._sent = {line["step"]: line for line in past if line["line"] == "send"}
        self._settled = {
            line["step"] for line in past if line["line"] == "answer" and line["as_expected"]
        }
        self._surprises = 0

    def run(self, url: str, *, key: bytes, clock: Clock, threads: int) -> int:
        """Send everything that is left; return how many answers were not as expected."""

        def work() -> None:
            sender = Sender(url, key=key, clock=clock)
            try:
                while (case := self._take()) is not None:
                    self._tell(case, sender)
            except BaseException:
                self._stop.set()
                raise
            finally:
                sender.close()

        with ThreadPoolExecutor(threads) as pool:
            try:
                for worker in [pool.submit(work) for _ in range(threads)]:
                    worker.result()
            finally:
                self._stop.set()
        return self._surprises

    def _take(self) -> Case | None:
        with self._next:
            return None if self._stop.is_set() else next(self._cases, None)

    def _tell(self, case: Case, sender: Sender) -> None:
        steps = self._steps(case)
        for step in steps:
            if step.key in self._settled:
                continue
            if step.key not in self._sent:
                self._journal.append(step.as_line(), durable=True)
            outcome = sender.deliver(step, stop=self._stop)
            as_expected = outcome.as_expected(step)
            self._journal.append(
                {
                    "line": "answer",
                    "step": step.key,
                    "status": outcome.status,
                    "error": outcome.error,
                    "as_expected": as_expected,
                    "last": as_expected and step is steps[-1],
                },
                # A lost answer only means that the delivery is sent once more.
                durable=False,
            )
            if not as_expected:
                # What follows in this case assumes that this was answered.
                with self._next:
                    self._surprises += 1
                return

    def _steps(self, case: Case) -> list[Step]:
        """Plan a case; what the journal holds of it stands, to the byte and to the instant."""
        begun = self._sent.get(f"{case.id}.0")
        planned_at = datetime.fromisoformat(begun["planned_at"]) if begun else self._planned_at
        return [
            Step.of_line(self._sent[step.key]) if step.key in self._sent else step
            for step in plan(case, planned_at=planned_at)
        ]


def main(arguments: list[str] | None = None) -> int:
    """Play one provider; return 0, 1 after surprises, or 2 if the call was wrong."""
    options = _options(arguments)
    try:
        key = secret_bytes(os.environ.get(options.secret_env, ""))
        clock = business_clock()
        notices = read_notices(options.notices)
        journal = Journal(options.journal)
    except (OSError, KeyError, ValueError, JournalInUse) as error:
        sys.stderr.write(f"{options.provider}: {error}\n")
        return 2
    with journal:
        past = read_journal(options.journal)
        story = {"provider": options.provider, "channel": options.channel, "seed": options.seed}
        if past and {name: past[0].get(name) for name in story} != story:
            sys.stderr.write(f"{options.journal.name} was begun for another provider or seed.\n")
            return 2
        cases = [c for c in deal(notices, seed=options.seed) if c.provider == options.provider]
        planned_at = clock()
        paid = sum(case.behaviour is not Behaviour.UNPAID for case in cases)
        journal.append(
            {"line": "start", **story, "planned_at": planned_at.isoformat(), "cases": paid},
            durable=True,
        )
        surprises = Round(cases, journal, past, planned_at=planned_at).run(
            options.url, key=key, clock=clock, threads=options.threads
        )
        # Without this line the program broke off, whatever its exit status was.
        journal.append({"line": "end", "surprises": surprises}, durable=True)
    if surprises:
        sys.stderr.write(f"{options.provider}: {surprises} answers were not as expected.\n")
    return 1 if surprises else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Play one payment provider and its payers.")
    parser.add_argument("--provider", required=True, choices=sorted(CHANNELS))
    parser.add_argument("--channel", required=True, choices=sorted(CHANNELS.values()))
    parser.add_argument("--secret-env", required=True, help="variable with the whsec_… secret")
    parser.add_argument("--url", required=True)
    parser.add_argument("--notices", required=True, type=Path)
    parser.add_argument("--journal", required=True, type=Path)
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--threads", default=4, type=int)
    options = parser.parse_args(arguments)
    if CHANNELS[options.provider] != options.channel:
        parser.error(f"{options.provider} collects by {CHANNELS[options.provider]}")
    return options


if __name__ == "__main__":
    sys.exit(main())
