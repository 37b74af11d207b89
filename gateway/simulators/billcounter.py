"""A bill hub's counters and their payers: inquiry, confirm, cancel, status.

For each payer the counter asks what the bill says and confirms; or, where the money is in its till
already, it only tells. An answer that was lost is asked for by `status`, and the same is sent again
where nothing came of it. Some customers leave, before or after: then the counter cancels, and
another transaction pays. One program is one hub (see gateway.simulators.rounds).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.simulators.dealing import Behaviour, Case
from gateway.simulators.deliveries import Attack, Step
from gateway.simulators.faults import Fate
from gateway.simulators.notices import dirhams
from gateway.simulators.rounds import Outcome, add_options, play, read_options

ANSWER_SECONDS_MAX: Final = 20.0
RETRY_SECONDS_MAX: Final = 180.0
PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 2.0
HELD: Final = 3
"""In one payment of so many the money is in the till before the hub tells."""
CANCELLED_FIRST: Final = 3
"""Of the customers who leave, one in so many has left before the confirm arrives."""
MISTYPED: Final = 10
"""One agent in so many types more than the bill asks for, and is told so."""
OTHER_AMOUNT_MINOR: Final = 1000

Said = Mapping[str, Any]


def plan(case: Case, planned_at: datetime, fate: Fate) -> list[Step]:
    """Return the calls of a case in the order they must be made and answered."""
    if case.behaviour is Behaviour.UNPAID:
        return []
    told = _Telling(case, planned_at, fate)
    if fate.wrong_currency:
        told.confirm(held=True, currency="EUR", booked=0, planted="wrong_currency")
        return told.steps
    if fate.tamper:
        told.confirm(attack=Attack.OTHER_KEY)
    if fate.reorder:
        told.leave(first=case.pick("leaves first", CANCELLED_FIRST) == 0)
    if case.pick("mistyped", MISTYPED) == 0:
        told.mistype()
    # What was told late was taken before.
    held = bool(fate.late) or case.pick("held", HELD) == 0
    told.confirm(held=held, booked=told.due)
    if fate.wrong_amount:
        other = told.due + OTHER_AMOUNT_MINOR
        told.confirm(held=held, minor=other, booked=told.due, planted="conflicting_delivery")
    if fate.double:
        told.confirm(held=held, booked=told.due)
    return told.steps


class _Telling:
    """Collects the steps of one case."""

    def __init__(self, case: Case, planned_at: datetime, fate: Fate) -> None:
        self.case = case
        self.due = case.notice.amount_minor
        self.planned_at = planned_at.replace(microsecond=0)
        self.paid_at = self.planned_at - timedelta(days=fate.late, minutes=1)
        self.behaviour = "+".join(fate.struck) or case.behaviour
        self.steps: list[Step] = []
        self._transaction = 0

    @property
    def named(self) -> str:
        return f"BH-{self.case.name(f'payment {self._transaction}')}"

    def confirm(
        self,
        *,
        held: bool = False,
        minor: int | None = None,
        currency: str = "MAD",
        booked: int | None = None,
        planted: str | None = None,
        attack: Attack | None = None,
    ) -> None:
        said = {
            "transaction_id": self.named,
            "reference": self.case.notice.reference,
            "amount": dirhams(self.due if minor is None else minor),
            "currency": currency,
            "channel": self.case.channel,
            "paid_at": self.paid_at.isoformat(),
            "held": held,
            "terminal_id": f"T-{self.case.pick('terminal', 900):04d}",
        }
        # What is not held bears the id of an inquiry besides, which is not known yet.
        self._add(said, f"held.{self.named}" if held else "", booked, planted, attack)

    def mistype(self) -> None:
        """Have more than is due be declined; what is typed right is another transaction."""
        self.confirm(minor=self.due + OTHER_AMOUNT_MINOR, booked=0)
        self._transaction += 1

    def leave(self, *, first: bool) -> None:
        """Have a payment taken back, after it was made or before; another one follows."""
        if not first:
            self.confirm(booked=self.due)
        said = {
            "transaction_id": self.named,
            "reference": self.case.notice.reference,
            "amount": dirhams(self.due),
            "currency": "MAD",
            "reason": "customer_left",
        }
        self._add(said, f"cancel.{self.named}", 0, None, None)
        if first:
            # It was on its way already: it must not be taken any more.
            self.confirm(booked=0)
        self._transaction += 1

    def _add(
        self,
        said: Said,
        delivery_id: str,
        booked: int | None,
        planted: str | None,
        attack: Attack | None,
    ) -> None:
        self.steps.append(
            Step(
                key=f"{self.case.id}.{len(self.steps)}",
                behaviour=self.behaviour,
                delivery_id=delivery_id,
                body=json.dumps(said, separators=(",", ":")).encode(),
                reference=self.case.notice.reference,
                paid_at=self.paid_at.isoformat(),
                planned_at=self.planned_at.isoformat(),
                refused=attack is not None,
                attack=attack,
                payment_id=None if attack is not None else self.named,
                booked_minor=booked,
                planted=planted,
            )
        )


def expected(step: Step) -> str:
    """Return the `result` that a call must get."""
    said = json.loads(step.body)
    if "reason" in said:
        return "cancelled"
    if step.planted == "wrong_currency":
        return "quarantined"
    if step.planted is not None:
        return "conflicting"
    return "booked" if step.booked_minor else "declined"


# -- asking and paying ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    said: Said


class _NoAnswer(Exception):
    """There is no answer yet: how it stands is asked, and the same is sent again."""


class Hub:
    """One kept-alive connection to the product, which retries as a hub does."""

    def __init__(self, url: str, *, api_key: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"{url!r} is not an http address")
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port, timeout=ANSWER_SECONDS_MAX
        )
        self._prefix = parts.path.rstrip("/")
        self._api_key = api_key
        self._answers: dict[bytes, bytes] = {}
        """To each call, what was answered: the same again must get the same bytes."""

    def close(self) -> None:
        self._connection.close()

    def deliver(self, step: Step, *, stop: threading.Event) -> Outcome:
        """Make one call, and follow it to its end (see gateway.simulators.rounds.Sender)."""
        until = time.monotonic() + RETRY_SECONDS_MAX
        pause, lost = PAUSE_SECONDS_MIN, False
        while True:
            try:
                return self._made(step, ask_first=lost)
            except (OSError, http.client.HTTPException, _NoAnswer) as error:
                self._connection.close()
                lost = True
                if stop.is_set() or time.monotonic() + pause > until:
                    return Outcome(None, type(error).__name__)
            time.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def _made(self, step: Step, *, ask_first: bool) -> Outcome:
        said: dict[str, Any] = json.loads(step.body)
        if step.attack is not None:
            answer = self._call("confirm", step.body, key="wrong" + self._api_key)
            return Outcome(answer.status, None, answer.said.get("code"))
        call = "cancel" if "reason" in said else "confirm"
        wanted = expected(step)
        if ask_first:
            stands = self._call("status", json.dumps({"transaction_id": said["transaction_id"]}))
            if stands.said.get("result") == wanted and wanted in {"booked", "cancelled"}:
                return Outcome(200, None, wanted)
        body = step.body
        if call == "confirm" and not said["held"]:
            inquiry_id = self._inquire(step.reference)
            if inquiry_id is not None:
                body = json.dumps({**said, "inquiry_id": inquiry_id}).encode()
        answer = self._call(call, body)
        result = answer.said.get("result")
        if result != wanted:
            code = answer.said.get("code")
            return Outcome(answer.status, f"{result} ({code}) and not {wanted}", result)
        if self._answers.setdefault(step.body, answer.body) != answer.body:
            return Outcome(answer.status, "the same call got another answer", result)
        return Outcome(answer.status, None, result)

    def _inquire(self, reference: str) -> str | None:
        """Return by which id a bill is paid, or None where it asks for nothing."""
        answer = self._call("inquiry", json.dumps({"reference": reference}))
        bills = answer.said.get("bills") or [{}]
        named: str | None = bills[0].get("inquiry_id")
        return named

    def _call(self, call: str, body: bytes | str, key: str | None = None) -> _Answer:
        """Return an answer below 500.

        Raises:
            OSError, http.client.HTTPException, _NoAnswer: There is none.
        """
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {key or self._api_key}",
        }
        self._connection.request("POST", f"{self._prefix}/{call}", body, headers)
        answer = self._connection.getresponse()
        read = answer.read()
        if answer.status >= 500:
            raise _NoAnswer
        try:
            said = json.loads(read)
        except ValueError:
            said = {}
        return _Answer(answer.status, read, said if isinstance(said, dict) else {})


def main(arguments: list[str] | None = None) -> int:
    """Play one hub; return 0, 1 after surprises, or 2 if the call was wrong."""
    parser = argparse.ArgumentParser(description="Play one bill hub, its counters and payers.")
    add_options(parser)
    parser.add_argument("--url", required=True, help="http://…/bills/{name}")
    parser.add_argument("--key-env", required=True, help="variable with the bearer key")
    options = read_options(parser, arguments)
    api_key = os.environ.get(options.key_env, "")
    return play(options, plan=plan, make_sender=lambda: Hub(options.url, api_key=api_key))


if __name__ == "__main__":
    sys.exit(main())
