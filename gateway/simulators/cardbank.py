"""The bank behind the card page: reserves, asks the merchant by a signed callback, and obeys.

What it means to send is in the journal before the first byte leaves, so that a bank that was killed
sends the rest when it is started again. A payment is captured if, and only if, the answer says so.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit

from gateway.simulators.clock import INSTITUTION_ZONE, Clock
from gateway.simulators.faults import Fate, Faults
from gateway.simulators.journal import Journal, Line
from gateway.simulators.notices import centimes, dirhams

CAPTURE: Final = "ACTION=POSTAUTH"
ACKNOWLEDGED: Final = "APPROVED"
REFUSED: Final = "FAILURE"

ANSWER_SECONDS_MAX: Final = 20.0
RETRY_SECONDS_MAX: Final = 180.0
PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 2.0

Form = Mapping[str, str]


def signature(fields: Form, store_key: str) -> str:
    """Return the HASH ver3 of fields with everyday names: values in natural order, the key."""

    def order(name: str) -> list[tuple[int, int, str]]:
        parts = [part for part in re.split("([0-9]+)", name.upper()) if part]
        return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]

    names = sorted((n for n in fields if n.lower() not in {"hash", "encoding"}), key=order)
    text = "".join(f"{_escaped(fields[name])}|" for name in names) + _escaped(store_key)
    return base64.b64encode(hashlib.sha512(text.encode()).digest()).decode()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("|", "\\|")


def signed(fields: Form, store_key: str) -> dict[str, str]:
    """Return fields with their HASH."""
    return {**fields, "HASH": signature(fields, store_key)}


@dataclass(frozen=True, slots=True)
class Step:
    """One callback, with all that is needed to send it again and to judge the answer."""

    step: str
    oid: str
    attempt: str
    """The payment that a payer tried; what else is told beside it names the same."""
    payment_id: str
    kind: str
    """accepted, declined, tampered, again (the same as accepted), or other_amount."""
    amount_minor: int
    body: str
    url: str
    lost: bool = False
    """Whether the first sending never arrives."""
    planted: str | None = None
    """The code of the exception that it must open."""

    def fits(self, word: str, first: str | None) -> bool:
        """Say whether a word is an answer to this; `first`: the one to the attempt's acceptance."""
        if self.kind == "accepted":
            return word in {CAPTURE, ACKNOWLEDGED}
        expected = {"tampered": REFUSED, "again": first}.get(self.kind, ACKNOWLEDGED)
        return word == expected

    def as_line(self) -> Line:
        """Return the journal's line."""
        return {"line": "send", **asdict(self)}

    @classmethod
    def of_line(cls, line: Line) -> Self:
        """Return the step that `as_line` wrote."""
        return cls(**{name: value for name, value in line.items() if name != "line"})


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one try to pay."""

    payment_id: str
    word: str | None
    """The merchant's answer to the acceptance; None of a decline, and while there is none."""
    captured_minor: int
    fields: Form
    """What the payer's browser brings back, signed."""


@dataclass(slots=True)
class _Order:
    """What was tried under one `oid`. Whoever tries holds the lock."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    tries: int = 0
    captured: Result | None = None


def captures(lines: Iterable[Line]) -> dict[str, int]:
    """Return for how many centimes each payment of a journal was captured in the end, by its id.

    Declined ones are there with 0. A payment that is announced and not among them has not been told
    to its end: start the bank again.
    """
    return {
        line["payment_id"]: line["captured_minor"] for line in lines if line["line"] == "captured"
    }


class Bank:
    """All that the bank knows. Any number of threads may pay at once."""

    def __init__(
        self,
        store_key: str,
        client_id: str,
        *,
        clock: Clock,
        journal: Journal | None = None,
        past: Iterable[Line] = (),
        faults: Faults | None = None,
    ) -> None:
        """Take the bank up where its journal ends.

        Args:
            store_key: What both sides sign by.
            client_id: The merchant's number.
            clock: The business clock, by which payments are dated.
            journal: Where everything is written before it is done.
            past: The journal's lines so far.
            faults: What goes wrong, by `oid` and the number of the try: `148275036141.1`.
        """
        self.store_key = store_key
        self.client_id = client_id
        self.faults = faults or Faults()
        self.captured: dict[str, int] = {}
        """Net centimes by payment."""
        self.away = False
        """Whether the merchant cannot be reached: nobody waits for his answer, see `resume`."""
        self._clock = clock
        self._journal = journal
        self._orders: defaultdict[str, _Order] = defaultdict(_Order)
        self._lock = threading.Lock()
        self._left: list[list[Step]] = []
        self._words: dict[str, str] = {}
        self._take_up(list(past))

    def is_signed(self, form: Form) -> bool:
        """Say whether a form is our merchant's."""
        given = form.get("HASH", "")
        return form.get("clientid") == self.client_id and given == signature(form, self.store_key)

    def pay(self, form: Form, *, accepted: bool) -> Result:
        """Try to pay by a card. An order that was captured is not paid again: the same result."""
        with self._lock:
            order = self._orders[form["oid"]]
        with order.lock:
            if order.captured is not None:
                return order.captured
            order.tries += 1
            steps = self._plan(form, order.tries, accepted=accepted)
            for step in steps:
                self._write(step.as_line(), durable=step is steps[-1])
            return self._tell(steps)

    def resume(self) -> None:
        """Send what was announced, here or in the journal, and has no answer yet."""
        left, self._left = self._left, []
        for steps in left:
            with self._orders[steps[0].oid].lock:
                self._tell(steps)

    # -- what is sent -----------------------------------------------------------------------------

    def _plan(self, form: Form, number: int, *, accepted: bool) -> list[Step]:
        oid, url, amount = form["oid"], form["callbackUrl"], centimes(form["amount"])
        fate = self.faults.of(f"{oid}.{number}")
        time.sleep(fate.slow)
        named = self._named(oid, number)

        def step(kind: str, body: str, payment_id: str = named, **values: Any) -> Step:
            key = f"{named}.{kind}"
            return Step(key, oid, named, payment_id, kind, amount, body, url, **values)

        if not accepted:
            return [step("declined", self._body(form, named, "51"))]
        stated = {**form, "currency": "978"} if fate.wrong_currency else form
        body = self._body(stated, named, "00", fate)
        steps = [step("accepted", body, lost=fate.lose)]
        if fate.tamper:
            steps.insert(0, step("tampered", body.replace("TransId=T", "TransId=X")))
        if fate.double:
            steps.append(step("again", body))
        if fate.wrong_amount:
            other = self._body({**stated, "amount": dirhams(amount + 100)}, named, "00", fate)
            steps.append(step("other_amount", other, planted="conflicting_delivery"))
        if fate.reorder:
            # A card that was refused before, told of after the one that was taken.
            before = self._named(f"{oid}.before", number)
            late = self._body(form, before, "51", fate, seconds=90)
            steps.append(step("declined", late, before))
        return steps

    def _named(self, oid: str, number: int) -> str:
        text = f"{self.faults.seed}|{self.client_id}|{oid}|{number}"
        return f"T{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def _body(
        self, form: Form, named: str, code: str, fate: Fate | None = None, *, seconds: int = 0
    ) -> str:
        days = 0 if fate is None else fate.late
        paid_at = self._clock() - timedelta(days=days, seconds=seconds)
        accepted = code == "00"
        echoed = {name: value for name, value in form.items() if name != "HASH"}
        told = {
            **echoed,
            "ReturnOid": form["oid"],
            "merchantID": self.client_id,
            "maskedCreditCard": "4000 00** **** 0010",
            "MaskedPan": "400000***0010",
            "EXTRA.CARDBRAND": "VISA",
            "EXTRA.CARDISSUER": "A BANK, NOT REAL",
            "EXTRA.TRXDATE": paid_at.astimezone(INSTITUTION_ZONE).strftime("%Y%m%d %H:%M:%S"),
            "acqStan": str(int(named[1:7], 16) % 1_000_000).zfill(6),
            "ProcReturnCode": code,
            "Response": "Approved" if accepted else "Declined",
            "TransId": named,
            "TRANID": "",
            "AuthCode": named[-6:] if accepted else "",
            "ErrMsg": "" if accepted else "Not sufficient funds",
            "mdStatus": "1",
            "mdErrorMsg": "Authenticated",
            "callbackCall": "true",
            "rnd": hashlib.sha256(named.encode()).hexdigest()[:20],
        }
        return urlencode(signed(told, self.store_key))

    # -- sending it -------------------------------------------------------------------------------

    def _tell(self, steps: list[Step]) -> Result:
        """Send an attempt's callbacks that are not answered yet, in order; note what came of it."""
        main = next((step for step in steps if step.kind == "accepted"), steps[0])
        for step in steps:
            if step.step not in self._words:
                word = self._deliver(step, self._words.get(main.step))
                if word is None:
                    # What follows assumes that this was answered.
                    self._left.append(steps)
                    return self._result(main, None, 0)
                self._words[step.step] = word
        word = self._words[main.step]
        taken = main.amount_minor if word == CAPTURE and main.kind == "accepted" else 0
        for named in dict.fromkeys(step.payment_id for step in steps):
            self._note(named, main.oid, taken if named == main.payment_id else 0)
        return self._result(main, word, taken)

    def _result(self, main: Step, word: str | None, taken: int) -> Result:
        told = {
            "clientid": self.client_id,
            "oid": main.oid,
            "amount": dirhams(main.amount_minor),
            "TransId": main.payment_id,
            "ProcReturnCode": "00" if taken else "51",
            "Response": "Approved" if taken else "Declined",
            "hashAlgorithm": "ver3",
        }
        result = Result(main.payment_id, word, taken, signed(told, self.store_key))
        if taken:
            self._orders[main.oid].captured = result
        return result

    def _note(self, named: str, oid: str, minor: int) -> None:
        line = {"line": "captured", "payment_id": named, "oid": oid, "captured_minor": minor}
        self._write(line, durable=True)
        self.captured[named] = minor

    def _deliver(self, step: Step, first: str | None) -> str | None:
        """Send until the answer fits, for RETRY_SECONDS_MAX; return it, or None."""
        until = time.monotonic() + (0 if self.away else RETRY_SECONDS_MAX)
        pause = PAUSE_SECONDS_MIN
        lost = step.lost or self.away
        while True:
            word = None if lost else _posted(step)
            lost = False
            if word is not None:
                fits = step.fits(word, first)
                line = {"line": "answer", "step": step.step, "said": word, "as_expected": fits}
                # A lost line only means that the callback is sent once more.
                self._write(line, durable=False)
                if fits or word in {CAPTURE, ACKNOWLEDGED}:
                    return word
            if time.monotonic() + pause > until:
                return None
            time.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    # -- the journal ------------------------------------------------------------------------------

    def _write(self, line: Line, *, durable: bool) -> None:
        if self._journal is not None:
            self._journal.append(line, durable=durable)

    def _take_up(self, past: list[Line]) -> None:
        """Learn what was done, and what was announced and not ended."""
        self.captured = captures(past)
        attempts: dict[str, list[Step]] = {}
        for line in past:
            if line["line"] == "send":
                attempts.setdefault(line["attempt"], []).append(Step.of_line(line))
            elif line["line"] == "answer" and (
                line["as_expected"] or line["said"] in {CAPTURE, ACKNOWLEDGED}
            ):
                self._words[line["step"]] = line["said"]
        for named, steps in attempts.items():
            main = next((step for step in steps if step.kind == "accepted"), steps[0])
            self._orders[main.oid].tries += 1
            if any(step.payment_id not in self.captured for step in steps):
                self._left.append(steps)
            elif taken := self.captured[named]:
                self._result(main, CAPTURE, taken)


def _posted(step: Step) -> str | None:
    """Send a callback once; return the word that was answered, or None."""
    to = urlsplit(step.url)
    make = http.client.HTTPSConnection if to.scheme == "https" else http.client.HTTPConnection
    connection = make(to.hostname or "", to.port, timeout=ANSWER_SECONDS_MAX)
    try:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", to.path or "/", step.body.encode(), headers)
        answer = connection.getresponse()
        said = answer.read(1_000).decode("utf-8", "replace").strip()
        return said if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
