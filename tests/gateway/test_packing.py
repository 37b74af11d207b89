"""What is packed here must be what the server reads: it says so itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone

import psycopg
import pytest
from sqlalchemy.exc import DataError, IntegrityError, OperationalError

from gateway.db import copy_blocks, execute, transaction
from gateway.packing import (
    bigint,
    bigints,
    blocks,
    columns,
    field,
    instant,
    jsonb,
    text,
    texts,
    word,
)
from tests.factories import rows_of

INSTANTS = [
    datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 11, 18, 13, 0, 0, 1, tzinfo=timezone(timedelta(hours=1))),
    datetime(2000, 1, 1, tzinfo=UTC),
    None,
]
NUMBERS = [2**63 - 1, -(2**63), 0, None]
WORDS = ["", "é\u0660\U0001f600", "x" * 300, None]
COPY = "COPY packed (a, b, c, d, e, f) FROM STDIN (FORMAT BINARY)"


def row(number: int | None, said: str | None, at: datetime | None) -> bytes:
    packed = (
        bigint(number),
        text(said),
        word(said),
        instant(at),
        jsonb(b'{"a": null}'),
        field(b"x"),
    )
    return columns(6) + b"".join(packed)


@pytest.fixture
def packed(database: str) -> str:
    with psycopg.connect(database) as connection:
        connection.execute(
            "CREATE TABLE packed (a bigint CHECK (a <> 5), b text, c text, d timestamptz, e jsonb,"
            " f bytea)"
        )
    return database


def test_rows_and_arrays_arrive_as_they_were_meant(packed: str) -> None:
    rows = [row(*each) for each in zip(NUMBERS, WORDS, INSTANTS, strict=True)] * 200
    with transaction() as session:
        copy_blocks(session, COPY, blocks(rows))
        copy_blocks(session, COPY, blocks([]))
        for numbers, names in (([], []), (NUMBERS[:-1], WORDS[:-1])):
            found = execute(
                session,
                "SELECT CAST(:numbers AS bigint[]), CAST(:names AS text[])",
                {"numbers": bigints(numbers), "names": texts(names)},  # type: ignore[arg-type]
            ).one()
            assert tuple(found) == (numbers, names)
    arrived = rows_of(packed, "SELECT a, b, c, d, e, f FROM packed")
    meant = [
        (number, said, said, at, {"a": None}, b"x")
        for number, said, at in zip(NUMBERS, WORDS, INSTANTS, strict=True)
    ]
    assert arrived == meant * 200


def test_what_goes_wrong_in_a_copy_is_told_as_of_any_statement(packed: str) -> None:
    """Whoever drains asks by it whether a delivery is at fault, or the database is away."""

    def copy(rows: Callable[[int], Iterable[bytes]]) -> None:
        with transaction() as session:
            pid = execute(session, "SELECT pg_backend_pid()").scalar_one()
            copy_blocks(session, COPY, blocks(rows(pid)))

    def cut_off(pid: int) -> Iterator[bytes]:
        yield row(1, "", None)
        with psycopg.connect(packed) as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])

    with pytest.raises(DataError):
        copy(lambda _: [row(1, "\x00", None)])
    with pytest.raises(IntegrityError):
        copy(lambda _: [row(5, "", None)])
    with pytest.raises(OperationalError):
        copy(cut_off)
    assert rows_of(packed, "SELECT count(*) FROM packed") == [(0,)]
