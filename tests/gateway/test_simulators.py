"""The simulated outside world: deterministic, continued to the byte, and an honest judge."""

from __future__ import annotations

import ast
import csv
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from gateway.clock import clock_from, day_of
from gateway.money import format_amount, parse_amount
from gateway.references import is_reference, with_check_digits
from gateway.simulators import clock, institution, payers
from gateway.simulators.dealing import CHANNELS, SHOWN_ONCE, SIGNED, Behaviour, Case, deal
from gateway.simulators.deliveries import Attack, Step, plan
from gateway.simulators.journal import Journal, JournalDamaged, Line, read_journal
from gateway.simulators.notices import Notice, centimes, dirhams, read_notices
from gateway.simulators.register import cnss_number, register
from gateway.simulators.signing import secret_bytes, signature
from gateway.simulators.tally import Tally, payments_told, tally

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
STILL = "=2026-11-21T12:00:00Z"


def some_notices(count: int, *, first_payload: int = 1_000_000_000) -> list[Notice]:
    """Return notices of the same people whatever the references are."""
    return [
        Notice(
            reference=with_check_digits(first_payload + 7919 * n),
            amount_minor=39_000 if n % 3 == 0 else 16_352,
            cnss_number=cnss_number(1 + n * 37),
            period="2026-Q4" if n % 3 == 0 else "2026-11",
            due_on=date(2026, 12, 31) if n % 3 == 0 else date(2026, 11, 30),
        )
        for n in range(count)
    ]


def write_notices(path: Path, notices: list[Notice]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["reference", "amount", "cnss_number", "period", "due_on"])
        for n in notices:
            row = [n.reference, dirhams(n.amount_minor), n.cnss_number, n.period, n.due_on]
            out.writerow(row)
    return path


def write_people(path: Path, notices: list[Notice]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["cnss_number", "cin", "family_name", "given_name"])
        for number, notice in enumerate(notices):
            out.writerow([notice.cnss_number, f"AB{100_000 + number}", "El Fassi", "Ghita"])
    return path


class Gate:
    """A stand-in for the product: judges signatures itself, and can be made to fail.

    Its answers follow the rule for deliveries: not authentic or not readable 400, else 202.
    """

    def __init__(self, now: datetime | None) -> None:
        self.now = now
        self.received: list[tuple[str, bytes, int]] = []
        """Delivery id, body and answer of everything that was answered below 500."""
        self.fail_every = 0
        self.drop_every = 0
        self.always: int | None = None
        self.delay = 0.0
        self._count = 0
        self._lock = threading.Lock()

    def judge(self, headers: dict[str, str], body: bytes) -> int:
        delivery_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
        now = (self.now or datetime.now(UTC)).timestamp()
        content = f"{delivery_id}.{timestamp}.".encode() + body
        key = secret_bytes(SECRET)
        wanted = "v1," + _base64(hmac.new(key, content, hashlib.sha256).digest())
        if headers.get("webhook-signature") != wanted or abs(now - int(timestamp)) > 300:
            return 400
        try:
            json.loads(body.decode())
        except ValueError:
            return 400
        return 202

    def fault(self) -> str | None:
        with self._lock:
            self._count += 1
            if self.fail_every and self._count % self.fail_every == 0:
                return "fail"
            if self.drop_every and self._count % self.drop_every == 0:
                return "drop"
        return None

    @property
    def ids(self) -> set[str]:
        return {delivery_id for delivery_id, _, _ in self.received}


def _base64(raw: bytes) -> str:
    import base64

    return base64.b64encode(raw).decode("ascii")


@contextmanager
def serving(gate: Gate) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = self.rfile.read(length)
            if len(body) < length:  # Who sent it was killed in the middle: it never came.
                self.close_connection = True
                return
            time.sleep(gate.delay)
            fault = gate.fault()
            if fault == "drop":
                self.close_connection = True
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = 503 if fault else gate.always or gate.judge(headers, body)
            if status < 500:
                gate.received.append((headers["webhook-id"], body, status))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/webhooks/any"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate on a clock that stands still, on which the payers run as well."""
    monkeypatch.setenv("SIGNING_KEY", SECRET)
    monkeypatch.setenv("WASL_CLOCK", STILL)
    return Gate(NOON)


def options(provider: str, url: str, notices: Path, journal: Path, seed: int = 7) -> list[str]:
    words = {
        "--provider": provider,
        "--channel": CHANNELS[provider],
        "--secret-env": "SIGNING_KEY",
        "--url": url,
        "--notices": str(notices),
        "--journal": str(journal),
        "--seed": str(seed),
    }
    return [word for pair in words.items() for word in pair]


def planned(notices: list[Notice], provider: str, *, seed: int = 7) -> list[Step]:
    cases = [case for case in deal(notices, seed=seed) if case.provider == provider]
    return [step for case in cases for step in plan(case, planned_at=NOON)]


def case_of(behaviour: Behaviour) -> Case:
    return next(c for c in deal(some_notices(60), seed=1) if c.behaviour is behaviour)


# -- the register --------------------------------------------------------------------------------


def test_the_register_is_the_same_for_the_same_seed_and_only_for_it() -> None:
    on = date(2026, 11, 21)
    first = list(register(contributors=50, seed=3, on=on))
    assert first == list(register(contributors=50, seed=3, on=on))
    assert first != list(register(contributors=50, seed=4, on=on))


def test_the_register_is_plausible() -> None:
    on = date(2024, 5, 1)
    people = list(register(contributors=2_000, seed=3, on=on))
    assert len({p["cnss_number"] for p in people}) == len({p["cin"] for p in people}) == 2_000
    for person in people:
        digits = [int(d) for d in person["cnss_number"]]
        s = (digits[1] + digits[3] + digits[5] + digits[7]) * 2
        s += digits[2] + digits[4] + digits[6]
        assert len(digits) == 9
        assert digits[0] == 1
        assert digits[8] == (10 - s % 10) % 10
        assert date(2022, 1, 1) <= date.fromisoformat(person["registered_on"]) <= on
        assert person["left_on"] == ""
        assert (person["category"] == "cpu") == (person["category_base"] != "")
        if person["category_base"]:
            assert parse_amount(person["category_base"]) >= 0
    assert {p["region"] for p in people} == {f"{n:02d}" for n in range(1, 13)}
    artisans = sum(p["category"] == "artisan-untaxed" for p in people)
    assert 0.65 < artisans / 2_000 < 0.75


# -- dealing and planning ------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32), shift=st.integers(1, 10**6), order=st.randoms())
def test_dealing_depends_on_seed_and_person_and_never_on_references(
    seed: int, shift: int, order: object
) -> None:
    notices = some_notices(40)
    others = some_notices(40, first_payload=1_000_000_000 + shift)
    order.shuffle(others)  # type: ignore[attr-defined]
    here, there = deal(notices, seed=seed), deal(others, seed=seed)
    assert [(c.id, c.provider, c.behaviour) for c in here] == [
        (c.id, c.provider, c.behaviour) for c in there
    ]
    for ours, theirs in zip(here, there, strict=True):
        ids = [(s.key, s.delivery_id, s.payment_id) for s in plan(ours, planned_at=NOON)]
        assert ids == [(s.key, s.delivery_id, s.payment_id) for s in plan(theirs, planned_at=NOON)]


def test_another_seed_deals_otherwise() -> None:
    notices = some_notices(300)
    dealt = [[(c.notice, c.behaviour) for c in deal(notices, seed=seed)] for seed in (1, 2)]
    assert dealt[0] != dealt[1]


def test_the_first_ranks_show_every_behaviour() -> None:
    dealt = Counter(c.behaviour for c in deal(some_notices(len(SHOWN_ONCE)), seed=5))
    assert dealt == Counter(set(Behaviour) - {Behaviour.UNPAID})


def test_a_few_hundred_notices_show_everything_in_the_right_shares() -> None:
    cases = deal(some_notices(4_000), seed=5)
    dealt = Counter(c.behaviour for c in cases)
    assert set(dealt) == set(Behaviour)
    assert 0.22 < dealt[Behaviour.UNPAID] / 4_000 < 0.28
    planted = [c for c in cases if any(s.planted for s in plan(c, planned_at=NOON))]
    assert 0.05 < len(planted) / 4_000 < 0.15
    assert set(Counter(c.provider for c in cases)) == set(CHANNELS) - {"stripe", "wallet-push"}


@pytest.mark.parametrize("behaviour", Behaviour)
def test_a_step_survives_the_journal_to_the_byte(behaviour: Behaviour) -> None:
    if behaviour is Behaviour.UNPAID:
        case = next(c for c in deal(some_notices(300), seed=1) if c.behaviour is behaviour)
        assert plan(case, planned_at=NOON) == []
        return
    for step in plan(case_of(behaviour), planned_at=NOON):
        assert Step.of_line(json.loads(json.dumps(step.as_line()))) == step


def test_ids_and_bodies_hold_no_personal_number() -> None:
    for case in deal(some_notices(500), seed=9):
        number = case.notice.cnss_number
        for step in plan(case, planned_at=NOON):
            assert number not in f"{step.delivery_id} {step.payment_id} {step.key}"
            assert number.encode() not in step.body


def test_nothing_but_the_implausible_date_lies_in_the_future() -> None:
    for case in deal(some_notices(2_000), seed=9):
        for step in plan(case, planned_at=NOON):
            paid_at = datetime.fromisoformat(step.paid_at)
            assert (paid_at > NOON) == (case.behaviour is Behaviour.FUTURE)
            assert paid_at >= NOON - timedelta(days=21)
            if not step.refused:
                assert datetime.fromisoformat(json.loads(step.body)["timestamp"]) <= NOON


def test_a_wrong_digit_never_verifies() -> None:
    for number in range(200):
        case = case_of(Behaviour.WRONG_DIGIT)
        notice = replace(case.notice, reference=some_notices(200)[number].reference)
        (step,) = plan(replace(case, notice=notice), planned_at=NOON)
        assert not is_reference(step.reference)
        differing = zip(step.reference, notice.reference, strict=True)
        assert sum(a != b for a, b in differing) == 1


def test_what_is_told_of_a_case_adds_up() -> None:
    for case in deal(some_notices(2_000), seed=11):
        steps = plan(case, planned_at=NOON)
        for step in steps:
            if step.refused or case.behaviour in {Behaviour.BAD_AMOUNT, Behaviour.EURO}:
                assert step.booked_minor in {None, 0}
        net = sum({s.payment_id: s.booked_minor or 0 for s in steps}.values())
        due = case.notice.amount_minor
        match case.behaviour:
            case Behaviour.SHORT:
                assert 0 < net < due
            case Behaviour.OVER:
                assert net > due
            case Behaviour.TWICE:
                assert net == 2 * due
            case (
                Behaviour.UNPAID
                | Behaviour.FAILED
                | Behaviour.REVERSED
                | Behaviour.EURO
                | Behaviour.BAD_AMOUNT
                | Behaviour.NOT_JSON
                | Behaviour.NOT_UTF8
            ):
                assert net == 0
            case _:
                assert net == due


# -- signing, clock, money -----------------------------------------------------------------------


@given(body=st.text(), second=st.integers(1_600_000_000, 2_000_000_000))
def test_the_signature_is_that_of_the_standard_library_of_webhooks(body: str, second: int) -> None:
    ours = signature(secret_bytes(SECRET), "msg_1", second, body.encode())
    theirs = Webhook(SECRET).sign("msg_1", datetime.fromtimestamp(second, UTC), body)
    assert ours == theirs


def test_the_signature_is_that_of_the_published_vector() -> None:
    made = signature(
        secret_bytes(SECRET),
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("setting", [STILL, "2026-11-18T11:06:40Z", "2026-03-01T09:00:00+01:00"])
def test_the_simulators_clock_is_the_products(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WASL_CLOCK", setting)
    monkeypatch.setenv("WASL_CLOCK_ANCHOR", repr(time.time() - 3_600))
    ours, theirs = clock.business_clock(), clock_from(setting)
    assert abs(ours() - theirs()) < timedelta(seconds=5)
    assert clock.day_of(ours()) == day_of(ours())


@given(st.integers(-(10**12), 10**12))
def test_the_simulators_write_money_as_the_product_does(minor: int) -> None:
    assert dirhams(minor) == format_amount(minor)
    assert centimes(dirhams(minor)) == minor


def test_the_simulators_import_nothing_of_the_product() -> None:
    for path in Path(payers.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                ours = name.startswith("gateway.simulators")
                assert ours or name.split(".")[0] in sys.stdlib_module_names, (path, name)


# -- the journal ---------------------------------------------------------------------------------


def test_a_journal_cut_at_any_byte_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for number in range(3):
            journal.append({"line": "send", "n": number, "text": "é\udcff"}, durable=True)
    whole = path.read_bytes()
    lines = read_journal(path)
    assert [line["n"] for line in lines] == [0, 1, 2]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = lines[: whole[:cut].count(b"\n")]
        assert read_journal(path) == kept
        with Journal(path) as journal:
            journal.append({"line": "more"}, durable=False)
        assert read_journal(path) == [*kept, {"line": "more"}]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"line":"start"}\n{"line":\n{"line":"end"}\n')
    with pytest.raises(JournalDamaged, match="line 2"):
        read_journal(path)


# -- payers --------------------------------------------------------------------------------------


def test_a_round_sends_everything_and_survives_faults(tmp_path: Path, gate: Gate) -> None:
    notices = some_notices(120)
    file, journal = write_notices(tmp_path / "n.csv", notices), tmp_path / "j" / "bank.jsonl"
    gate.fail_every, gate.drop_every = 7, 11
    with serving(gate) as url:
        assert payers.main(options("bank", url, file, journal)) == 0
    steps = planned(notices, "bank")
    told = tally([journal])
    assert told.surprises == 0
    assert told.deliveries == len(steps)
    assert gate.ids == {step.delivery_id for step in steps}
    assert told.planted == Counter(step.planted for step in steps if step.planted)
    lines = read_journal(journal)
    assert {line["step"]: Step.of_line(line) for line in lines if line["line"] == "send"} == {
        step.key: step for step in steps
    }


def test_every_behaviour_gets_the_answer_it_must(tmp_path: Path, gate: Gate) -> None:
    notices = some_notices(len(SHOWN_ONCE))
    file = write_notices(tmp_path / "n.csv", notices)
    journals = [tmp_path / f"{name}.jsonl" for name in SIGNED]
    with serving(gate) as url:
        for name, journal in zip(SIGNED, journals, strict=True):
            assert payers.main(options(name, url, file, journal)) == 0
    statuses = Counter(status for _, _, status in gate.received)
    assert statuses[400] == len(Attack) + 2  # and the two that cannot be read
    assert tally(journals).planted == Counter(
        {
            "overpaid": 1,
            "paid_twice": 1,
            "unknown_reference": 1,
            "wrong_currency": 1,
            "invalid_amount": 1,
            "conflicting_delivery": 1,
            "conflicting_payment": 1,
            "unreadable_delivery": 2,
            "implausible_date": 1,
        }
    )


def test_the_second_of_a_pair_follows_the_answer_to_the_first(tmp_path: Path, gate: Gate) -> None:
    journal = tmp_path / "j.jsonl"
    file = write_notices(tmp_path / "n.csv", some_notices(300))
    with serving(gate) as url:
        assert payers.main(options("cashplus", url, file, journal)) == 0
    answered: set[str] = set()
    for line in read_journal(journal):
        if line["line"] == "answer":
            answered.add(line["step"])
        elif line["line"] == "send":
            case, _, number = line["step"].rpartition(".")
            assert all(f"{case}.{before}" in answered for before in range(int(number)))


def cuts(whole: bytes) -> list[int]:
    """Return where to cut: about every line's beginning, middle and end."""
    points, at = [0, 1], 0
    for number, line in enumerate(whole.splitlines(keepends=True)):
        if number % 3 == 0:
            points += [at + len(line) // 2, at + len(line) - 1, at + len(line)]
        at += len(line)
    return points


def test_a_journal_cut_anywhere_is_continued_with_the_same_ids_and_bodies(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices = some_notices(60)
    file, journal = write_notices(tmp_path / "n.csv", notices), tmp_path / "j.jsonl"
    with serving(gate) as url:
        assert payers.main(options("kiosk", url, file, journal)) == 0
        whole, first = journal.read_bytes(), tally([journal])
        later = NOON + timedelta(hours=2)
        gate.now = later
        monkeypatch.setenv("WASL_CLOCK", "=" + later.isoformat())
        for cut in cuts(whole):
            journal.write_bytes(whole[:cut])
            kept = read_journal(journal)
            answered = {line["step"] for line in kept if line["line"] == "answer"}
            sent = {line["step"]: Step.of_line(line) for line in kept if line["line"] == "send"}
            gate.received.clear()
            assert payers.main(options("kiosk", url, file, journal)) == 0
            again = tally([journal])
            assert (again.expected, again.planted, again.deliveries, again.surprises) == (
                first.expected,
                first.planted,
                first.deliveries,
                0,
            )
            steps = planned(notices, "kiosk")
            assert gate.ids == {s.delivery_id for s in steps if s.key not in answered}
            bodies = [body for _, body, _ in gate.received]
            for key, step in sent.items():
                if key not in answered and step.attack is not Attack.TAMPERED:
                    assert step.body in bodies


def test_a_killed_round_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WASL_CLOCK", raising=False)
    notices = some_notices(200)
    file, journal = write_notices(tmp_path / "n.csv", notices), tmp_path / "j.jsonl"
    gate = Gate(None)
    gate.delay = 0.01
    with serving(gate) as url:
        command = [sys.executable, "-m", "gateway.simulators.payers"]
        command += options("cashplus", url, file, journal)
        environment = os.environ | {"SIGNING_KEY": SECRET}
        for _ in range(3):
            enough = len(gate.received) + 10
            with subprocess.Popen(command, env=environment) as child:
                while len(gate.received) < enough and child.poll() is None:
                    time.sleep(0.005)
                child.send_signal(signal.SIGKILL)
        assert subprocess.run(command, env=environment, check=False).returncode == 0
    steps = planned(notices, "cashplus")
    told = tally([journal])
    assert told.deliveries == len(steps)
    assert told.surprises == 0
    bodies: dict[str, set[bytes]] = {}
    for delivery_id, body, _ in gate.received:
        bodies.setdefault(delivery_id, set()).add(body)
    wanted: dict[str, set[str]] = {}
    for step in steps:
        variants = wanted.setdefault(step.delivery_id, set())
        variants.add(hashlib.sha256(step.body).hexdigest())
        if step.attack is Attack.TAMPERED:
            variants.add("tampered")
    assert {k: len(v) for k, v in bodies.items()} == {k: len(v) for k, v in wanted.items()}


def test_a_surprise_is_counted_and_cleared_by_a_later_round(tmp_path: Path, gate: Gate) -> None:
    file, journal = write_notices(tmp_path / "n.csv", some_notices(40)), tmp_path / "j.jsonl"
    with serving(gate) as url:
        gate.always = 404
        assert payers.main(options("cashplus", url, file, journal)) == 1
        told = tally([journal])
        assert told.surprises > 0
        assert told.deliveries == 0
        assert told.expected == {}
        assert "HTTP 404" in told.first_surprises[0]
        gate.always = None
        assert payers.main(options("cashplus", url, file, journal)) == 0
    assert tally([journal]).surprises == 0


def test_no_answer_is_a_surprise_in_the_end(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payers, "RETRY_SECONDS_MAX", 0.2)
    file, journal = write_notices(tmp_path / "n.csv", some_notices(12)), tmp_path / "j.jsonl"
    with serving(gate) as url:
        pass
    assert payers.main(options("cashplus", url, file, journal)) == 1
    assert "ConnectionRefusedError" in tally([journal]).first_surprises[0]


def test_a_program_that_broke_off_is_a_surprise(tmp_path: Path, gate: Gate) -> None:
    file, journal = write_notices(tmp_path / "n.csv", some_notices(40)), tmp_path / "j.jsonl"
    with serving(gate) as url:
        assert payers.main(options("cashplus", url, file, journal)) == 0
    whole = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(whole[:-1]))
    assert tally([journal]).surprises == 1


def test_the_journal_of_another_seed_is_refused(
    tmp_path: Path, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    file, journal = write_notices(tmp_path / "n.csv", some_notices(12)), tmp_path / "j.jsonl"
    with serving(gate) as url:
        assert payers.main(options("bank", url, file, journal)) == 0
        assert payers.main(options("bank", url, file, journal, seed=8)) == 2
    assert "another provider or seed" in capsys.readouterr().err


# -- the institution -----------------------------------------------------------------------------


def journals_of(notices: list[Notice], folder: Path) -> list[Path]:
    """Write the journals of rounds that were answered as expected, without sending anything."""
    paths = []
    for name, channel in CHANNELS.items():
        path = folder / f"{name}.jsonl"
        lines: list[Line] = [{"line": "start", "provider": name, "channel": channel, "seed": 7}]
        for step in planned(notices, name):
            lines.append(step.as_line())
            lines.append({"line": "answer", "step": step.key, "as_expected": True})
        lines.append({"line": "end", "surprises": 0})
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        paths.append(path)
    return paths


def records_of(
    folder: Path, notices: list[Notice]
) -> tuple[list[dict[str, str]], list[str], Tally]:
    """Run the institution; return its records, the trailer and what all journals tell."""
    journals = journals_of(notices, folder)
    words = ["--notices", str(write_notices(folder / "n.csv", notices))]
    words += ["--contributors", str(write_people(folder / "p.csv", notices))]
    words += ["--journals", *map(str, journals), "--seed", "7"]
    words += ["--out", str(folder / "r.csv"), "--journal", str(folder / "institution.jsonl")]
    assert institution.main(words) == 0
    with (folder / "r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    records = [dict(zip(rows[0], row, strict=True)) for row in rows[1:-1]]
    return records, rows[-1], tally([*journals, folder / "institution.jsonl"])


def test_the_trailer_agrees_with_the_records(tmp_path: Path) -> None:
    records, trailer, _ = records_of(tmp_path, some_notices(400))
    assert trailer == [
        "TRAILER",
        str(len(records)),
        format_amount(sum(parse_amount(r["amount"]) for r in records)),
        str(sum(int(r["cnss_number"]) for r in records)),
    ]


def test_the_institution_writes_the_same_file_again(tmp_path: Path) -> None:
    records_of(tmp_path, some_notices(400))
    before = [(tmp_path / name).read_bytes() for name in ("r.csv", "institution.jsonl")]
    records_of(tmp_path, some_notices(400))
    assert before == [(tmp_path / name).read_bytes() for name in ("r.csv", "institution.jsonl")]


def test_the_institution_plants_each_disagreement(tmp_path: Path) -> None:
    _, _, told = records_of(tmp_path, some_notices(400))
    for code in (
        "payment_without_record",
        "record_without_payment",
        "amount_differs",
        "conflicting_record",
    ):
        assert told.planted[code] == 1


def test_records_and_payments_differ_by_what_was_planted_and_nothing_else(tmp_path: Path) -> None:
    notices = some_notices(3_000)
    records, _, told = records_of(tmp_path, notices)
    first: dict[str, dict[str, str]] = {}
    for record in records:
        first.setdefault(record["record_id"], record)
    recorded: Counter[str] = Counter()
    for record in first.values():
        recorded[record["provider_reference"]] += parse_amount(record["amount"])
    known = {notice.reference for notice in notices}
    payments = {
        told.payment_id: told
        for path in tmp_path.glob("*.jsonl")
        if path.stem in CHANNELS
        for told in payments_told(read_journal(path)).values()
    }
    wrong: Counter[str] = Counter()
    for payment_id in {*recorded, *payments}:
        payment = payments.get(payment_id)
        if payment is None:
            wrong["record_without_payment"] += recorded[payment_id] != 0
        elif payment.reference in known and payment_id not in recorded:
            wrong["payment_without_record"] += payment.amount_minor > 0
        elif payment.reference in known:
            wrong["amount_differs"] += recorded[payment_id] != payment.net_minor
        else:
            assert payment_id not in recorded
    assert wrong == {code: told.planted[code] for code in wrong}
    contradicted = {r["record_id"] for r in records if r != first[r["record_id"]]}
    assert len(contradicted) == told.planted["conflicting_record"]
    repeated = Counter(tuple(r.values()) for r in records)
    assert max(repeated.values()) == 2


def test_a_reversed_payment_has_two_records(tmp_path: Path) -> None:
    notices = some_notices(60)
    records, _, _ = records_of(tmp_path, notices)
    case = next(c for c in deal(notices, seed=7) if c.behaviour is Behaviour.REVERSED)
    amounts = [r["amount"] for r in records if r["reference"] == case.notice.reference]
    due = dirhams(case.notice.amount_minor)
    assert sorted(amounts) == [f"-{due}", due]


def test_no_record_is_posted_in_the_future(tmp_path: Path) -> None:
    records, _, _ = records_of(tmp_path, some_notices(400))
    assert max(date.fromisoformat(r["posted_on"]) for r in records) <= day_of(NOON)


def test_notices_are_read_back(tmp_path: Path) -> None:
    notices = some_notices(5)
    assert read_notices(write_notices(tmp_path / "n.csv", notices)) == notices
