from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import redis
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import Session

from gateway.billing.presentment import Presentment
from gateway.db import snapshot
from gateway.embedded.processes import free_port
from gateway.pages import throttle
from gateway.pages.clients import Client, networks_of
from gateway.pages.lookup import presented
from gateway.pages.throttle import MISSES_MAX, Bound, Counters
from gateway.settings import settings
from tests.gateway.pages import states
from tests.gateway.pages.conftest import a_client, forget
from tests.gateway.pages.states import text_of

WINDOW_SECONDS = throttle.WINDOW_MINUTES * 60


def misses(n: int) -> Iterator[str]:
    return (f"/{states.nobodys(each)}" for each in range(n))


def test_who_missed_five_times_waits_and_is_told_how_long(app: FastAPI) -> None:
    client, reference = a_client(app), states.an_invoice()
    for path in misses(MISSES_MAX):
        assert client.get(path).status_code == 404
    for path in (f"/{states.nobodys()}", f"/{reference}", f"/{reference}.pdf", "/verify/R26-1"):
        answer = client.get(path)
        assert answer.status_code == 429 or path.endswith("R26-1")
    answer = client.get(f"/{reference}")
    assert 0 < int(answer.headers["retry-after"]) <= WINDOW_SECONDS
    assert "Réessayez dans 15 minutes." in text_of(answer)
    assert "163,52" not in text_of(answer)
    # It may have been paid long ago: the page speaks of itself only.
    assert "Cette page n’a rien encaissé et n’a rien changé." in text_of(answer)
    assert "Rien n’a été payé" not in text_of(answer)
    assert "payer maintenant" not in text_of(answer)
    assert "بعد 15 دقيقة" in text_of(client.get(f"/{reference}?lang=ar"))
    assert client.get("/verify/R26-000000001").status_code == 429
    # The form, typing errors, and everybody else go on.
    assert client.get("/").status_code == 200
    assert client.get("/148275036142").status_code == 422
    assert a_client(app, "196.200.0.2").get(f"/{reference}").status_code == 200


def test_nothing_is_looked_up_for_who_waits(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    client = a_client(app)
    for path in misses(MISSES_MAX):
        client.get(path)

    def no_look_up() -> None:
        raise AssertionError("looked up")

    monkeypatch.setattr("gateway.pages.lookup.snapshot", no_look_up)
    for path in (f"/{states.nobodys()}", f"/{states.nobodys()}.svg", "/verify/R26-000000001"):
        assert client.get(path).status_code == 429


def test_every_way_to_guess_counts(app: FastAPI) -> None:
    client, nobody = a_client(app), states.nobodys()
    paths = [f"/{nobody}{end}" for end in ("", ".svg", ".svg?code=emv", ".pdf")]
    for path in [*paths, "/verify/R26-000000001"]:
        assert client.get(path).status_code == 404
    assert client.get(f"/{nobody}/receipt").status_code == 429


def test_typing_errors_and_other_addresses_count_nothing(app: FastAPI) -> None:
    client = a_client(app)
    for _ in range(MISSES_MAX + 1):
        assert client.get("/148275036142").status_code == 422
        assert client.post("/", data={"reference": "1482"}).status_code == 422
        assert client.get("/favicon.ico").status_code == 404
        assert client.get("/verify/hello").status_code == 422
    assert client.get(f"/{states.nobodys()}").status_code == 404


def test_of_many_guesses_at_once_five_are_answered(app: FastAPI) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = pool.map(lambda path: a_client(app).get(path).status_code, misses(24))
    assert sorted(answers).count(404) == MISSES_MAX


def test_a_hit_among_too_many_misses_at_once_is_not_told(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, count = states.an_invoice(), 16
    paths = [f"/{reference}", *misses(count - 1)]
    all_looked = threading.Barrier(count)

    @contextmanager
    def together() -> Iterator[Session]:
        all_looked.wait(30)
        with snapshot() as session:
            yield session

    def misses_take_longer(session: Session, asked: str) -> Presentment | None:
        if asked != reference:
            time.sleep(0.1)
        return presented(session, asked)

    monkeypatch.setattr("gateway.pages.lookup.snapshot", together)
    monkeypatch.setattr("gateway.pages.payer.presented", misses_take_longer)
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda path: a_client(app).get(path).status_code, paths))
    assert answers[0] == 429
    assert answers.count(404) == MISSES_MAX


def test_hits_at_once_are_all_told(app: FastAPI) -> None:
    paths = [f"/{states.an_invoice()}", f"/{states.paid()}"] * 8
    assert a_client(app).get(f"/{states.nobodys()}").status_code == 404
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda path: a_client(app).get(path).status_code, paths))
    assert set(answers) == {200}


def test_a_customer_of_many_networks_is_bounded(app: FastAPI) -> None:
    most = MISSES_MAX * throttle.AROUND_TIMES
    for n, path in enumerate(misses(most)):
        assert a_client(app, f"2001:db8:1:{n:x}::1").get(path).status_code == 404
    nobody = f"/{states.nobodys()}"
    assert a_client(app, "2001:db8:1:ffff::1").get(nobody).status_code == 429
    assert a_client(app, "2001:db8:2::1").get(nobody).status_code == 404


def test_a_network_is_one_client(app: FastAPI) -> None:
    for last, path in enumerate(misses(MISSES_MAX)):
        assert a_client(app, f"2001:db8:1:2::{last:x}").get(path).status_code == 404
    nobody = f"/{states.nobodys()}"
    assert a_client(app, "2001:db8:1:2:ffff::1").get(nobody).status_code == 429
    assert a_client(app, "2001:db8:1:3::1").get(nobody).status_code == 404


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("196.200.0.1", "196.200.0.2", False),
        ("::ffff:196.200.0.1", "196.200.0.1", True),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1", True),
        ("196.200.0.1:5678", "196.200.0.1", True),
        ("196.200.0.1:5678", "196.200.0.2:5678", False),
        ("[2001:db8::1]:5678", "2001:db8::2", True),
        ("[2001:db8::1]", "2001:db8::2", True),
    ],
)
def test_networks(one: str, other: str, same: bool) -> None:
    assert (networks_of(one)[0] == networks_of(other)[0]) is same


@given(st.text())
def test_whatever_an_address_is_it_is_counted(host: str) -> None:
    own, around = networks_of(host)
    assert isinstance(own, str)
    assert isinstance(around, str)


# -- the bounds themselves ------------------------------------------------------------------------


def somebody(name: str, around: str | None = None, *, v6: bool = False) -> Client:
    return Client(name, around or f"around {name}", v6)


def a_bound(*, each: int = 5, overall: int = 300) -> Bound:
    return Bound(Counters(None), "test", each=each, overall=overall)


def test_beyond_the_overall_bound_whoever_missed_waits() -> None:
    bound = a_bound(overall=3)
    for n in range(3):
        assert bound.seconds_to_wait(somebody(f"client {n}")) == 0
        assert bound.count(somebody(f"client {n}")) == 0
    assert 0 < bound.seconds_to_wait(somebody("client 0")) <= WINDOW_SECONDS
    # Who never missed is served, and waits once he has.
    assert bound.seconds_to_wait(somebody("somebody")) == 0
    assert bound.count(somebody("somebody")) == 0
    assert bound.seconds_to_wait(somebody("somebody")) > 0


def test_beyond_the_overall_bound_a_neighbour_of_who_missed_waits() -> None:
    bound = a_bound(overall=2)
    for n in range(2):
        assert bound.count(somebody(f"client {n}", "street")) == 0
    assert bound.seconds_to_wait(somebody("client 2", "street")) > 0
    assert bound.seconds_to_wait(somebody("client 2", "another street")) == 0


def test_a_wide_network_of_one_customer_has_a_bound_of_its_own() -> None:
    bound = a_bound(each=2)
    counted = [bound.count(somebody(f"{n}", "provider", v6=True)) for n in range(21)]
    assert counted[:20] == [0] * 20
    assert counted[20] > 0
    assert 0 < bound.seconds_to_wait(somebody("new", "provider", v6=True)) <= WINDOW_SECONDS
    assert bound.seconds_to_wait(somebody("new", "other", v6=True)) == 0
    # Neighbours in IPv4 are strangers to each other.
    assert [bound.count(somebody(f"{n}", "street")) for n in range(30)] == [0] * 30


def test_the_window_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    bound, real = a_bound(each=2), time.time
    assert [bound.count(somebody("a")) for _ in range(2)] == [0, 0]
    assert bound.count(somebody("a")) > 0
    monkeypatch.setattr(time, "time", lambda: real() + WINDOW_SECONDS + 1)
    assert bound.seconds_to_wait(somebody("a")) == 0
    assert bound.count(somebody("a")) == 0


# -- Redis ----------------------------------------------------------------------------------------


def test_redis_holds_no_address(app: FastAPI) -> None:
    address = "196.200.0.1"
    a_client(app, address).get(f"/{states.nobodys()}")
    url = settings().redis_url
    assert url is not None
    with redis.Redis.from_url(url.get_secret_value()) as counters:
        keys = [key.decode() for key in counters.scan_iter()]
    assert len(keys) == 3
    assert all(key.startswith("wasl:") for key in keys)
    # Never less than two bytes of it: a digest may hold any three digits by chance.
    told = (address, "196.200", "196-200", bytes([196, 200, 0, 1]).hex(), states.nobodys())
    assert not [key for key in keys if any(word in key for word in told)]


def test_two_processes_count_together(app: FastAPI) -> None:
    for path in misses(MISSES_MAX):
        assert a_client(app).get(path).status_code == 404
        forget()
    assert a_client(app).get(f"/{states.nobodys()}").status_code == 429


def test_without_redis_each_process_counts_and_no_page_is_slow(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = states.an_invoice()
    with socket.socket() as silent:
        # Takes connections and never answers: worse than one that refuses.
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        for port in (silent.getsockname()[1], free_port()):
            monkeypatch.setenv("WASL_REDIS_URL", f"redis://127.0.0.1:{port}/0")
            settings.cache_clear()
            forget()
            client = a_client(app)
            client.get(f"/{reference}")  # the one that finds out
            began = time.monotonic()
            for path in misses(MISSES_MAX):
                assert client.get(path).status_code == 404
            assert client.get(f"/{reference}").status_code == 429
            assert time.monotonic() - began < 2


def test_redis_is_asked_again_after_a_pause(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = throttle.counters()
    asked = 0

    def away(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        raise redis.ConnectionError

    shared = counters._shared
    assert shared is not None
    with monkeypatch.context() as patch:
        patch.setattr(shared.storage, "get_moving_window", away)
        patch.setattr(shared.storage, "acquire_entry", away)
        for _ in range(3):
            assert throttle.misses().count(somebody("a")) == 0
        assert asked == 1
    monkeypatch.setattr(throttle, "monotonic", lambda: time.monotonic() + 60)
    assert throttle.misses().seconds_to_wait(somebody("a")) == 0
    assert throttle.misses().count(somebody("a")) == 0
    assert asked == 1


@pytest.mark.parametrize("url", ["nonsense", "http://x", "redis://[", ""])
def test_an_address_that_is_none_of_redis_stops_nothing(url: str) -> None:
    bound = Bound(Counters(url), "test", each=1, overall=10)
    assert bound.count(somebody("a")) == 0
    assert bound.count(somebody("a")) > 0
