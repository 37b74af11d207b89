"""`POST /webhooks/{provider}` on the real application and database: stored, then answered."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any, Final, TypeVar, cast

import httpx
import psycopg
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.types import ASGIApp

from gateway import process
from gateway.embedded.processes import free_port
from gateway.providers.standard_webhooks import StandardWebhooks, StandardWebhooksSettings
from gateway.references import format_reference, with_check_digits
from gateway.settings import settings
from gateway.wirejson import UnreadableJson, is_json, read_json
from tests.factories import (
    NOON,
    SECRET,
    a_provider,
    an_answerer,
    an_event,
    broken_promises,
    rows_of,
    seal,
    signed,
    some_invoices,
    the_books,
)
from webhooks import intake as intake_module
from webhooks.inbox import Desk, drain
from webhooks.intake import Arrival, Intake, StoreUnavailable
from webhooks.routes import BODY_BYTES_MAX, webhook_routes

_T = TypeVar("_T")
Client = httpx.AsyncClient
OTHER_SECRET: Final = "whsec_" + "A" * 44
STORED: Final = "SELECT delivery_id, body, state FROM webhook_delivery ORDER BY id"
VARIANTS: Final = "SELECT delivery_id, body, readable FROM webhook_variant ORDER BY id"


@pytest.fixture
def web(database: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the database of a home with two providers, at noon."""
    home.mkdir(exist_ok=True)
    (home / "providers.toml").write_text(
        "".join(
            f'[[provider]]\nname = "{name}"\nkind = "standard-webhooks"\nsecrets = ["{secret}"]\n'
            for name, secret in (("cashplus", SECRET), ("kiosk", OTHER_SECRET))
        )
    )
    monkeypatch.setenv("WASL_CLOCK", f"={NOON.isoformat()}")
    settings.cache_clear()
    return database


@asynccontextmanager
async def client_of(app: ASGIApp, lifespan: Any) -> AsyncIterator[Client]:
    async with (
        lifespan,
        Client(transport=httpx.ASGITransport(app), base_url="http://wasl.test") as client,
    ):
        yield client


def talking(talk: Callable[[Client], Awaitable[_T]]) -> _T:
    """Run a conversation with the application that this process's environment makes."""
    # Its worker reads the broker's address when it is imported.
    from gateway.app import create_app

    async def run() -> _T:
        app = create_app()
        async with client_of(app, app.router.lifespan_context(app)) as client:
            return await talk(client)

    return asyncio.run(run())


def talking_to_intake(database_url: str, talk: Callable[[Client], Awaitable[_T]]) -> _T:
    """Run a conversation with an intake that stores at this address."""

    async def nobody_rings() -> None:
        raise ConnectionError

    async def run() -> _T:
        intake = Intake(database_url, nobody_rings)
        routes = webhook_routes({"cashplus": a_provider()}, intake, an_answerer())

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            await intake.start()
            yield
            await intake.stop()

        async with client_of(Starlette(routes=routes), lifespan()) as client:
            return await talk(client)

    return asyncio.run(run())


async def post(
    client: Client, body: bytes, headers: dict[str, str] | None = None, provider: str = "cashplus"
) -> httpx.Response:
    return await client.post(f"/webhooks/{provider}", content=body, headers=headers or signed(body))


def posting(body: bytes, headers: dict[str, str] | None = None) -> Callable[[Client], Any]:
    return lambda client: post(client, body, headers)


def drained() -> int:
    return drain(
        Desk(process.providers(), process.signing_key(), process.business_clock()), batches_max=20
    )


# -- stored, then answered ------------------------------------------------------------------------


def test_a_delivery_is_on_disk_byte_for_byte_before_it_is_answered(web: str) -> None:
    body = b' {"type": "x.y",\t"note": "\xd8\xaf\xd9\x81\xd8\xb9", "n": 1.0e0}\r\n'

    async def talk(client: Client) -> tuple[int, list[Any]]:
        answer = await post(client, body, signed(body, delivery_id="msg_1"))
        return answer.status_code, rows_of(web, STORED)

    assert talking(talk) == (202, [("msg_1", body, "waiting")])
    assert rows_of(web, "SELECT received_at, body_sha256 = sha256(body) FROM webhook_delivery") == [
        (NOON, True)
    ]


def test_an_unknown_provider_is_404(web: str) -> None:
    body = an_event("1")
    answer = talking(lambda client: post(client, body, provider="nobody"))
    assert answer.status_code == 404
    assert rows_of(web, STORED) == []


def _of_size(size: int) -> bytes:
    return b'{"type":"x","note":"' + b"n" * (size - 22) + b'"}'


def test_the_largest_body_is_taken_and_one_byte_more_is_413_told_or_not(web: str) -> None:
    large, too_large = _of_size(BODY_BYTES_MAX), _of_size(BODY_BYTES_MAX + 1)
    assert len(large) == BODY_BYTES_MAX

    async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(body), 65_536):
            yield body[at : at + 65_536]

    async def talk(client: Client) -> list[int]:
        answers = [
            await post(client, large),
            await post(client, too_large),
            await client.post(
                "/webhooks/cashplus", content=in_pieces(large), headers=signed(large)
            ),
            await client.post(
                "/webhooks/cashplus", content=in_pieces(too_large), headers=signed(too_large)
            ),
        ]
        assert "content-length" not in answers[3].request.headers
        return [answer.status_code for answer in answers]

    assert talking(talk) == [202, 413, 202, 413]
    assert [body for _, body, _ in rows_of(web, STORED)] == [large, large]


BODY: Final = an_event("1")


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"x-none": "1"}, id="no headers"),
        pytest.param(signed(BODY, secret=OTHER_SECRET), id="another secret"),
        pytest.param(signed(BODY + b" "), id="another body"),
        pytest.param(signed(BODY, at=NOON - timedelta(seconds=301)), id="too old"),
        pytest.param(signed(BODY, at=NOON + timedelta(seconds=301)), id="from the future"),
        pytest.param(signed(BODY) | {"webhook-id": "msg_other"}, id="another id"),
        pytest.param(signed(BODY) | {"webhook-id": ""}, id="an empty id"),
        pytest.param(signed(BODY, delivery_id="x" * 257), id="an id that is too long"),
        pytest.param(signed(BODY) | {"webhook-timestamp": "soon"}, id="no time"),
        pytest.param(signed(BODY) | {"webhook-signature": "v1,AAAA"}, id="a short signature"),
        pytest.param(signed(BODY) | {"webhook-signature": "v1a,AAAA"}, id="a kind without a key"),
    ],
)
def test_what_is_not_authentic_is_400_and_nothing_of_it_is_kept(
    web: str, headers: dict[str, str]
) -> None:
    assert talking(posting(BODY, headers)).status_code == 400
    assert (rows_of(web, STORED), rows_of(web, VARIANTS)) == ([], [])


def test_the_honest_delivery_beside_them_is_taken(web: str) -> None:
    assert talking(posting(BODY, signed(BODY))).status_code == 202


# -- authentic, and not readable ------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"{", b'"\xff"', b"\xff\xfe{}", b'{"a": NaN}', b"[" * 100_000, b'{"a":1}{}'],
    ids=lambda body: repr(body[:12]),
)
def test_an_authentic_body_that_is_not_json_is_400_and_kept_for_a_person(
    web: str, body: bytes
) -> None:
    async def talk(client: Client) -> list[int]:
        headers = signed(body, delivery_id="msg_1")
        return [(await post(client, body, headers)).status_code for _ in range(2)]

    assert talking(talk) == [400, 400]
    assert rows_of(web, STORED) == []
    assert rows_of(web, VARIANTS) == [("msg_1", body, False)]
    drained()
    assert the_books().exceptions == [("unreadable_delivery", "delivery:cashplus/msg_1")]


@pytest.mark.parametrize("number", ["1e999", "9" * 5_000, "-1E-9999", "0.1e+400"])
def test_a_number_of_any_size_beside_the_money_does_not_keep_it_from_being_booked(
    web: str, number: str
) -> None:
    (reference,) = some_invoices()
    body = an_event(reference, payer_note=7).replace(b": 7", b": " + number.encode())
    assert talking(posting(body)).status_code == 202
    assert drained() == 1
    assert the_books().invoices == [(reference, 16352, 16352, "paid")]


def test_a_readable_body_after_an_unreadable_one_under_its_id_is_booked(web: str) -> None:
    (reference,) = some_invoices()
    cut_off, whole = an_event(reference)[:-5], an_event(reference)

    async def talk(client: Client) -> list[int]:
        return [
            (await post(client, body, signed(body, delivery_id="msg_1"))).status_code
            for body in (cut_off, whole, cut_off)
        ]

    assert talking(talk) == [400, 202, 400]
    drained()
    assert the_books().invoices == [(reference, 16352, 16352, "paid")]
    assert rows_of(web, VARIANTS) == [("msg_1", cut_off, False)]
    assert [code for code, _ in the_books().exceptions] == ["unreadable_delivery"]


@given(
    st.one_of(
        st.binary(max_size=30),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
            max_leaves=8,
        ).map(lambda said: json.dumps(said).encode()),
        st.lists(
            st.sampled_from(
                [
                    *(bytes([byte]) for byte in b'{}[]":,01.eE+-\\u /\t\x00\x0b\x7f\x80\xff'),
                    *(
                        b'"a"',
                        b"null",
                        b"NaN",
                        b"Infinity",
                        b"\\ud800",
                        b"\xd8\xaf",
                        b"\xed\xa0\x80",
                    ),
                    *(
                        b"\xed\xa0\x80",
                        b"\xef\xbb\xbf",
                        b"1e999",
                        b"9" * 5_000,
                        b"[" * 300,
                        b"]" * 300,
                    ),
                ]
            ),
            max_size=8,
        ).map(b"".join),
    )
)
@settings_of_hypothesis(max_examples=300, deadline=None)
def test_what_is_taken_for_json_is_what_can_be_read(body: bytes) -> None:
    try:
        read_json(body)
    except UnreadableJson:
        assert not is_json(body)
    else:
        assert is_json(body)


# -- the same again -------------------------------------------------------------------------------


def test_the_same_delivery_again_is_202_and_one_row(web: str) -> None:
    async def talk(client: Client) -> list[int]:
        headers = signed(BODY, delivery_id="msg_1")
        later = signed(BODY, delivery_id="msg_1", at=NOON + timedelta(seconds=60))
        return [(await post(client, BODY, h)).status_code for h in (headers, headers, later)]

    assert talking(talk) == [202, 202, 202]
    assert rows_of(web, STORED) == [("msg_1", BODY, "waiting")]
    assert rows_of(web, VARIANTS) == []


REFERENCE: Final = with_check_digits(1_234_567_890)


@pytest.mark.parametrize(
    ("other", "conflict"),
    [
        ({"payer_note": "again"}, False),
        ({"paid_at": "2026-11-18T11:00:00Z"}, False),
        ({"channel": "kiosk"}, False),
        ({"reference": format_reference(REFERENCE)}, False),
        ({"amount": "163.520"}, True),
        ({"amount": "163.53"}, True),
        ({"amount": 163.52}, True),
        ({"currency": "EUR"}, True),
        ({"reference": with_check_digits(1_234_567_891)}, True),
        ({"kind": "payment.reversed"}, True),
        ({"kind": "payment.failed"}, True),
        ({"provider_payment_id": "P2"}, True),
    ],
    ids=str,
)
def test_another_body_under_a_known_id_is_a_conflict_only_where_money_differs(
    web: str, other: dict[str, Any], conflict: bool
) -> None:
    first = an_event(REFERENCE, provider_payment_id="P1")
    values: dict[str, Any] = {"reference": REFERENCE, "provider_payment_id": "P1", **other}
    second = an_event(values.pop("reference"), **values)

    async def talk(client: Client) -> list[int]:
        return [
            (await post(client, body, signed(body, delivery_id="msg_1"))).status_code
            for body in (first, second, second)
        ]

    assert talking(talk) == [202, 202, 202]
    assert rows_of(web, STORED) == [("msg_1", first, "waiting")]
    assert rows_of(web, VARIANTS) == [("msg_1", second, True)]
    drained()
    conflicts = [c for c in the_books().exceptions if c[0] == "conflicting_delivery"]
    assert conflicts == [("conflicting_delivery", "delivery:cashplus/msg_1")] * conflict
    assert [row[1:4] for row in the_books().payments] == [("P1", "booked", 16352)]


def test_hundreds_of_posts_at_once_leave_each_id_exactly_one_row(web: str) -> None:
    references = some_invoices(120)
    bodies = {
        f"msg_{n}": an_event(reference, provider_payment_id=f"P{n}")
        for n, reference in enumerate(references)
    }

    async def talk(client: Client) -> list[int]:
        waiting = []
        for turn in range(4):
            for at, body in bodies.items():
                # In the last turn half of them come with another amount.
                changed = turn == 3 and int(at.removeprefix("msg_")) % 2
                sent = body.replace(b"163.52", b"163.53") if changed else body
                waiting.append(post(client, sent, signed(sent, delivery_id=at)))
        return [answer.status_code for answer in await asyncio.gather(*waiting)]

    assert set(talking(talk)) == {202}
    stored = rows_of(web, STORED)
    assert sorted(at for at, _, _ in stored) == sorted(bodies)
    variants = rows_of(web, VARIANTS)
    assert len(variants) == 60
    held = {(at, bytes(body)) for at, body, _ in [*stored, *variants]}
    assert held == set(bodies.items()) | {
        (at, body.replace(b"163.52", b"163.53"))
        for at, body in bodies.items()
        if int(at.removeprefix("msg_")) % 2
    }
    assert drained() == 120 + 60
    assert len(the_books().transfers) == 120
    assert len(the_books().exceptions) == 60
    seal()
    assert broken_promises(deliveries=True) == []


def test_a_row_that_the_database_refuses_does_not_harm_its_neighbours(database: str) -> None:
    ids = ["msg_1", "no\x00text", "msg_2"]

    async def nobody_rings() -> None:
        raise ConnectionError

    async def stored() -> list[BaseException | None]:
        intake = Intake(database, nobody_rings)
        await intake.start()
        arrivals = [Arrival("cashplus", delivery_id, BODY, True, NOON) for delivery_id in ids]
        told = await asyncio.gather(*map(intake.store, arrivals), return_exceptions=True)
        await intake.stop()
        return told

    told = asyncio.run(stored())
    assert [told[0], told[2]] == [None, None]
    assert isinstance(told[1], StoreUnavailable)
    assert [row[0] for row in rows_of(database, STORED)] == ["msg_1", "msg_2"]


def test_what_nobody_foresaw_holds_neither_its_batch_nor_the_next(database: str) -> None:
    async def nobody_rings() -> None:
        return None

    async def stored() -> list[BaseException | None]:
        intake = Intake(database, nobody_rings)
        await intake.start()
        good = Arrival("cashplus", "msg_1", BODY, True, NOON)
        # Ids that cannot be put in order stand for a bug: each flusher is given some.
        bad = good._replace(delivery_id=cast("str", 7))
        told = []
        for batch in [[bad, good]] * intake_module.FLUSHERS + [[good]]:
            async with asyncio.timeout(10):
                told += await asyncio.gather(*map(intake.store, batch), return_exceptions=True)
        await intake.stop()
        return told

    *those, last = asyncio.run(stored())
    assert [type(each) for each in those] == [StoreUnavailable] * 2 * intake_module.FLUSHERS
    assert last is None


def test_a_commit_is_on_disk_and_no_statement_outlives_those_who_wait(database: str) -> None:
    name = database.rpartition("/")[2]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')

    async def said() -> list[str]:
        intake = Intake(database, asyncio.Event().wait)  # type: ignore[arg-type]
        pool = await intake._connections()
        names = ("synchronous_commit", "statement_timeout")
        found = [await pool.fetchval(f"SHOW {each}") for each in names]
        await intake.stop()
        return found

    assert asyncio.run(said()) == ["on", f"{intake_module.STORE_SECONDS_MAX:.0f}s"]


@pytest.mark.usefixtures("web")
def test_what_is_taken_in_front_is_counted_as_of_its_route() -> None:
    async def talk(client: Client) -> str:
        await post(client, BODY)
        await post(client, BODY, {"x-none": "1"})
        await client.get("/webhooks/cashplus")
        return (await client.get("/metrics")).text

    counted = [line for line in talking(talk).splitlines() if "/webhooks/{provider}" in line]
    of = 'wasl_http_requests_total{method="%s",route="/webhooks/{provider}",status="%s"} 1.0'
    for method, status in (("POST", "202"), ("POST", "400"), ("GET", "405")):
        assert of % (method, status) in counted
    assert 'wasl_http_request_seconds_count{route="/webhooks/{provider}"} 3.0' in counted
    last = 'wasl_http_request_seconds_bucket{le="+Inf",route="/webhooks/{provider}"} 3.0'
    assert last in counted


class Broken(StandardWebhooks):
    """An adapter with a bug."""

    def authenticate(self, *_: Any, **__: Any) -> str:
        raise KeyError("msg_secret")


def test_a_bug_of_an_adapter_is_500_without_its_detail(
    web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken("cashplus", StandardWebhooksSettings.model_validate({"secrets": [SECRET]}))
    monkeypatch.setattr(process, "providers", cache(lambda: {"cashplus": broken}))

    async def talk(client: Client) -> tuple[int, str, str]:
        answer = await post(client, BODY)
        return answer.status_code, answer.text, (await client.get("/metrics")).text

    status, text, metrics = talking(talk)
    assert (status, text) == (500, '{"detail":"Something went wrong on our side."}')
    assert 'route="/webhooks/{provider}",status="500"} 1.0' in metrics
    assert rows_of(web, STORED) == []


def test_one_id_is_two_deliveries_where_the_providers_are_two(web: str) -> None:
    async def talk(client: Client) -> list[int]:
        theirs = signed(BODY, delivery_id="msg_1", secret=OTHER_SECRET)
        return [
            (await post(client, BODY, signed(BODY, delivery_id="msg_1"))).status_code,
            (await post(client, BODY, theirs, provider="kiosk")).status_code,
        ]

    assert talking(talk) == [202, 202]
    assert len(rows_of(web, STORED)) == 2


# -- the database is away -------------------------------------------------------------------------


@contextmanager
def deaf_server() -> Iterator[str]:
    """An address where somebody takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"postgresql://w@127.0.0.1:{server.getsockname()[1]}/wasl"


@contextmanager
def babbling_server() -> Iterator[str]:
    """An address where something answers that is not PostgreSQL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1024)
                    connection.sendall(b"N")
                    connection.recv(1024)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = Thread(target=babble)
        thread.start()
        try:
            yield f"postgresql://w@127.0.0.1:{server.getsockname()[1]}/wasl"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def nobody() -> Iterator[str]:
    yield f"postgresql://w@127.0.0.1:{free_port()}/wasl"


@pytest.mark.parametrize("server", [nobody, deaf_server, babbling_server])
def test_without_a_database_the_sender_is_told_in_time_to_come_again(
    server: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "STORE_SECONDS_MAX", 0.7)

    async def talk(client: Client) -> list[httpx.Response]:
        return list(await asyncio.gather(*(post(client, BODY) for _ in range(5))))

    with server() as address:
        began = time.monotonic()
        answers = talking_to_intake(address, talk)
        assert time.monotonic() - began < 5
    assert [answer.status_code for answer in answers] == [503] * 5
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)


def test_a_database_that_comes_back_in_time_is_waited_for(database: str) -> None:
    """A proxy that refuses at first: the delivery is stored by a later try, and answered once."""
    port = free_port()
    target = httpx.URL(database.replace("postgresql", "http"))
    assert target.port is not None

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(target.host, target.port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                sink.write(data)

        try:
            await asyncio.gather(pump(reader, ours), pump(theirs, writer))
        finally:
            ours.transport.abort()
            writer.transport.abort()

    async def talk(client: Client) -> int:
        waiting = asyncio.create_task(post(client, BODY, signed(BODY, delivery_id="msg_1")))
        await asyncio.sleep(3 * intake_module.RETRY_SECONDS)
        assert not waiting.done()
        async with await asyncio.start_server(relay, "127.0.0.1", port):
            return (await waiting).status_code

    through = database.replace(f":{target.port}/", f":{port}/")
    assert talking_to_intake(through, talk) == 202
    assert rows_of(database, STORED) == [("msg_1", BODY, "waiting")]


@pytest.mark.usefixtures("web")
def test_readiness_says_whether_the_database_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk(client: Client) -> list[tuple[int, dict[str, Any]]]:
        answers = [await client.get("/healthz"), await client.get("/readyz")]
        return [(answer.status_code, answer.json()) for answer in answers]

    assert talking(talk) == [
        (200, {"status": "alive"}),
        (200, {"ready": True, "database": "ok", "redis": "ok"}),
    ]
    with nobody() as address:
        monkeypatch.setenv("WASL_DATABASE_URL", address)
        settings.cache_clear()
        process.connect_database.cache_clear()
        alive, ready = talking(talk)
    assert alive == (200, {"status": "alive"})
    assert (ready[0], ready[1]["ready"]) == (503, False)


def test_an_answer_says_in_json_what_is_wrong(web: str) -> None:
    answer = talking(posting(BODY, {"x-none": "1"}))
    assert answer.headers["content-type"] == "application/json"
    assert "webhook-id" in json.loads(answer.content)["detail"]
