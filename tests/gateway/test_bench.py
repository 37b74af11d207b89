from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from gateway.bench.issue import SEALED, bench_issue
from gateway.bench.load import STORED, NotTaken, shoot
from gateway.bench.measure import interleaved, per_second
from gateway.bench.pages import bench_pages
from gateway.bench.posting import bench_posting
from gateway.bench.webhooks import PGBENCH_SCRIPT, bench_webhooks


def test_ours_and_the_limit_take_turns_and_their_medians_are_compared() -> None:
    turns: list[str] = []
    ours = iter([1.0, 30.0, 2.0])
    limit = iter([10.0, 4.0, 5.0])
    told: list[tuple[int, int]] = []

    def rate(who: str, rates: object) -> float:
        turns.append(who)
        return next(rates)  # type: ignore[call-overload,no-any-return]

    measured = interleaved(
        "x",
        ours=lambda: rate("ours", ours),
        limit=lambda: rate("limit", limit),
        unit="things/s",
        rounds=3,
        progress=lambda done, of: told.append((done, of)),
    )
    assert turns == ["ours", "limit", "limit", "ours", "ours", "limit"]
    assert told[-1] == (6, 6)
    assert measured.as_json() == {
        "name": "x",
        "ours": 2.0,
        "limit": 5.0,
        "ratio": 0.4,
        "unit": "things/s",
        "rounds": 3,
    }


def test_a_rate_is_what_was_done_in_a_second() -> None:
    assert per_second(lambda: 0) == 0
    assert per_second(lambda: 10**9) > 10**9


def test_notices_are_printed_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    measured = bench_pages(3, rounds=1, progress=lambda _done, _of: None)
    assert (measured.unit, measured.rounds) == ("pages/s", 1)
    assert measured.ours > 0
    assert measured.limit > 0


def test_invoices_are_issued_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    told: list[tuple[int, int]] = []
    measured, memory = bench_issue(
        [50], rounds=1, progress=lambda done, of: told.append((done, of)), ways=[SEALED]
    )
    assert (measured.name, measured.unit) == ("issue sealed, 50 people", "invoices/s")
    assert measured.ours > 0
    assert measured.limit > 0
    assert 10 < memory.ours < memory.limit == 150
    assert told == [(1, 2), (2, 2)]


def test_deliveries_are_taken_in_proved_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    rate, p99, few_p99, server, store, sender = bench_webhooks(
        rounds=1, seconds=0.3, progress=lambda _done, _of: None
    )
    assert rate.unit == "deliveries/s"
    assert (p99.limit, few_p99.limit, sender.limit) == (50, 10, 100)
    for each in (rate, p99, few_p99, server, store, sender):
        assert each.ours > 0
        assert each.limit > 0


def test_an_inbox_is_posted_proved_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    measured = bench_posting(300, rounds=1, seconds=0.2, progress=lambda _done, _of: None)
    assert (measured.name, measured.unit) == ("posting, 300 deliveries", "deliveries/s")
    assert measured.ours > 0
    assert measured.limit > 0


@pytest.mark.parametrize(
    ("status", "body"), [(202, STORED), (503, STORED), (202, b'{"detail":"Later."}!')]
)
def test_the_load_counts_only_what_is_stored(status: int, body: bytes) -> None:
    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever).start()
        try:
            if (status, body) == (202, STORED):
                shot = shoot(
                    server.server_port, b"k" * 32, first=1, most=20, connections=3, seconds=30
                )
                assert shot.answered == 20
                assert 0 < shot.p50_ms <= shot.p99_ms
            else:
                with pytest.raises(NotTaken, match="answered"):
                    shoot(server.server_port, b"", first=1, most=1, connections=1, seconds=30)
        finally:
            server.shutdown()


def test_the_limit_by_hand_is_the_limit_that_is_measured() -> None:
    frozen = (Path(__file__).parents[1] / "golden" / "pgbench-delivery.sql").read_text("utf-8")
    assert frozen.endswith(PGBENCH_SCRIPT)
    assert frozen.removesuffix(PGBENCH_SCRIPT).count("pgbench -n -M prepared -c 32 -j 2") == 1
