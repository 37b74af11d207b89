"""A round: what every program that plays the payers of one provider does, whatever it sends.

A journal line is written before each first send, with all that is needed to send the same again,
and a line after each answer. Started again after a kill it skips what was answered as expected and
sends the rest, the same to the byte. What the faults lose is sent again some cases later.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from gateway.simulators import faults
from gateway.simulators.clock import business_clock
from gateway.simulators.dealing import CHANNELS, Behaviour, Case, deal, deal_plainly
from gateway.simulators.deliveries import Step
from gateway.simulators.faults import Fate, Faults
from gateway.simulators.journal import Journal, JournalInUse, Line, read_journal
from gateway.simulators.notices import read_notices

LOST_FOR_CASES: Final = 40
"""How many cases later a sender who got no answer tries again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one delivery: the final answer, or why there is none."""

    status: int | None
    error: str | None
    said: str | None = None
    """Of the answer, what the judge must know of it."""

    def as_expected(self, step: Step) -> bool:
        """Say whether this is the answer that the step must get."""
        if self.status is None or self.error is not None:
            return False
        return self.status == 400 if step.refused else 200 <= self.status < 300


class Sender(Protocol):
    """What sends the steps of one provider; each thread has its own."""

    def deliver(self, step: Step, *, stop: threading.Event) -> Outcome:
        """Send until there is an answer below 500, for a while."""
        ...

    def close(self) -> None: ...


Plan = Callable[[Case, datetime, Fate], list[Step]]


class Round:
    """The cases of one provider, sent by several threads; each case by one, in its order."""

    def __init__(
        self,
        cases: list[Case],
        journal: Journal,
        past: list[Line],
        *,
        plan: Plan,
        faults: Faults,
        planned_at: datetime,
    ) -> None:
        self._cases: Iterator[Case] = iter(cases)
        self._journal = journal
        self._plan = plan
        self._faults = faults
        self._planned_at = planned_at
        self._next = threading.Lock()
        self._stop = threading.Event()
        self._sent = {line["step"]: line for line in past if line["line"] == "send"}
        self._settled = {
            line["step"] for line in past if line["line"] == "answer" and line["as_expected"]
        }
        self._taken = 0
        self._lost: deque[tuple[int, Case]] = deque()
        """Cases whose first sending was lost, and after how many others they are told again."""
        self._surprises = 0

    def run(self, make_sender: Callable[[], Sender], *, threads: int) -> int:
        """Send everything that is left; return how many answers were not as expected."""

        def work() -> None:
            sender = make_sender()
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
            if self._stop.is_set():
                return None
            self._taken += 1
            if self._lost and self._lost[0][0] <= self._taken:
                return self._lost.popleft()[1]
            case = next(self._cases, None)
            if case is None and self._lost:
                return self._lost.popleft()[1]
            return case

    def _tell(self, case: Case, sender: Sender) -> None:
        fate = self._faults.of(case.id)
        steps = self._steps(case, fate)
        for step in steps:
            if step.key in self._settled:
                continue
            lost = False
            if step.key not in self._sent:
                self._journal.append(step.as_line(), durable=True)
                self._sent[step.key] = step.as_line()
                lost = fate.lose and step is steps[0]
            if lost:
                self._lose(case, step)
                return
            if fate.slow:
                time.sleep(fate.slow)
            outcome = sender.deliver(step, stop=self._stop)
            as_expected = outcome.as_expected(step)
            self._note(step, outcome, as_expected, last=as_expected and step is steps[-1])
            if not as_expected:
                # What follows in this case assumes that this was answered.
                with self._next:
                    self._surprises += 1
                return

    def _lose(self, case: Case, step: Step) -> None:
        self._note(step, Outcome(None, "lost"), as_expected=False, last=False)
        with self._next:
            self._lost.append((self._taken + LOST_FOR_CASES, case))

    def _note(self, step: Step, outcome: Outcome, as_expected: bool, last: bool) -> None:
        line: Line = {
            "line": "answer",
            "step": step.key,
            "status": outcome.status,
            "error": outcome.error,
            "as_expected": as_expected,
            "last": last,
        }
        if outcome.said is not None:
            line["said"] = outcome.said
        # A lost line of an answer only means that the delivery is sent once more.
        self._journal.append(line, durable=False)

    def _steps(self, case: Case, fate: Fate) -> list[Step]:
        """Plan a case; what the journal holds of it stands, to the byte and to the instant."""
        begun = self._sent.get(f"{case.id}.0")
        planned_at = datetime.fromisoformat(begun["planned_at"]) if begun else self._planned_at
        return [
            Step.of_line(self._sent[step.key]) if step.key in self._sent else step
            for step in self._plan(case, planned_at, fate)
        ]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a program the options that all rounds take."""
    parser.add_argument("--provider", required=True, choices=sorted(CHANNELS))
    parser.add_argument("--channel", required=True, choices=sorted(set(CHANNELS.values())))
    parser.add_argument("--notices", required=True, type=Path)
    parser.add_argument("--journal", required=True, type=Path)
    parser.add_argument("--threads", default=4, type=int)
    parser.add_argument(
        "--plain",
        action="store_true",
        help="every notice is paid once and in full; what goes wrong is given by the shares below",
    )
    faults.add_options(parser)


def read_options(
    parser: argparse.ArgumentParser, arguments: list[str] | None
) -> argparse.Namespace:
    """Return the options of a call; ends the program where they contradict each other."""
    options = parser.parse_args(arguments)
    if CHANNELS[options.provider] != options.channel:
        parser.error(f"{options.provider} collects by {CHANNELS[options.provider]}")
    return options


def play(
    options: argparse.Namespace,
    *,
    plan: Plan,
    make_sender: Callable[[], Sender],
    noted: Mapping[str, str | int] | None = None,
) -> int:
    """Play the payers of one provider to the end.

    Args:
        options: Of `read_options`.
        plan: What is sent for a case.
        make_sender: Makes what sends it, for each thread.
        noted: What the program must know again when it is started again: it is in the start line.

    Returns:
        The program's exit status: 0, 1 after answers that no provider may get, or 2 if the call
        was wrong.
    """
    try:
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
        dealt = (deal_plainly if options.plain else deal)(notices, seed=options.seed)
        cases = [case for case in dealt if case.provider == options.provider]
        planned_at = clock()
        paid = sum(case.behaviour is not Behaviour.UNPAID for case in cases)
        journal.append(
            {
                "line": "start",
                **story,
                "planned_at": planned_at.isoformat(),
                "cases": paid,
                **(noted or {}),
            },
            durable=True,
        )
        played = Round(
            cases,
            journal,
            past,
            plan=plan,
            faults=faults.from_options(options),
            planned_at=planned_at,
        )
        surprises = played.run(make_sender, threads=options.threads)
        # Without this line the program broke off, whatever its exit status was.
        journal.append({"line": "end", "surprises": surprises}, durable=True)
    if surprises:
        sys.stderr.write(f"{options.provider}: {surprises} answers were not as expected.\n")
    return 1 if surprises else 0
