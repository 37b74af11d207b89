"""A provider and its payers: signs Standard Webhooks deliveries and really sends them.

One program is one provider (see gateway.simulators.rounds). A delivery that is sent again has the
same id and body with a fresh timestamp and signature, as a real provider retries.
"""

from __future__ import annotations

import argparse
import http.client
import os
import sys
import threading
import time
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from gateway.simulators.clock import Clock, business_clock
from gateway.simulators.dealing import Case
from gateway.simulators.deliveries import Attack, Step, plan
from gateway.simulators.faults import Fate
from gateway.simulators.rounds import Outcome, add_options, play, read_options
from gateway.simulators.signing import Signer, signer_of

ANSWER_SECONDS_MAX: Final = 20.0
RETRY_SECONDS_MAX: Final = 180.0
PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 2.0
OUTSIDE_WINDOW_SECONDS: Final = 600
"""How far an attack's timestamp is off: twice what Standard Webhooks tolerates."""


def wire(step: Step, *, signer: Signer, now: datetime) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a delivery sent at `now`, spoilt as its attack says."""
    timestamp = int(now.timestamp())
    if step.attack is Attack.STALE:
        timestamp -= OUTSIDE_WINDOW_SECONDS
    elif step.attack is Attack.AHEAD:
        timestamp += OUTSIDE_WINDOW_SECONDS
    if step.attack is Attack.OTHER_KEY:
        signer = signer.other()
    headers = {
        "content-type": "application/json",
        "webhook-id": step.delivery_id,
        "webhook-timestamp": str(timestamp),
    }
    if step.attack is not Attack.UNSIGNED:
        headers["webhook-signature"] = signer.sign(step.delivery_id, timestamp, step.body)
    if step.attack is Attack.TAMPERED:
        return headers, step.body.replace(b'"amount":"', b'"amount":"9', 1)
    return headers, step.body


class WebhookSender:
    """One kept-alive connection to the product, which retries as a provider does."""

    def __init__(self, url: str, *, signer: Signer, clock: Clock) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"{url!r} is not an http address")
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port, timeout=ANSWER_SECONDS_MAX
        )
        self._path = parts.path
        self._signer = signer
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
        headers, body = wire(step, signer=self._signer, now=self._clock())
        try:
            self._connection.request("POST", self._path, body=body, headers=headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Outcome(None, type(error).__name__)
        return Outcome(answer.status, None)


def main(arguments: list[str] | None = None) -> int:
    """Play one provider; return 0, 1 after surprises, or 2 if the call was wrong."""
    parser = argparse.ArgumentParser(description="Play one payment provider and its payers.")
    add_options(parser)
    parser.add_argument(
        "--secret-env", required=True, help="variable with the whsec_… secret or whsk_… key"
    )
    parser.add_argument("--url", required=True)
    options = read_options(parser, arguments)
    try:
        signer = signer_of(os.environ.get(options.secret_env, ""))
        clock = business_clock()
    except ValueError as error:
        sys.stderr.write(f"{options.provider}: {error}\n")
        return 2
    return play(
        options,
        plan=_plan,
        make_sender=lambda: WebhookSender(options.url, signer=signer, clock=clock),
    )


def _plan(case: Case, planned_at: datetime, fate: Fate) -> list[Step]:
    return plan(case, planned_at=planned_at, fate=fate)


if __name__ == "__main__":
    sys.exit(main())
