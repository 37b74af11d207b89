"""Columns between the databases: what arrives is what was sent, however many rows there are."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest
from sqlmodel import Session

from gateway.db import execute, transaction
from gateway.packing import bigint, smallint, text
from reconciliation import duckcolumns
from reconciliation.duckcolumns import columns_of, pack_rows, send_rows, take_in
from reconciliation.duckfiles import pull_rows, read_file
from reconciliation.evidence import name_free

pytestmark = pytest.mark.usefixtures("database")

EDGES = [2**63 - 1, -(2**63), -1, 0, 255, 1_234_567_890_123]


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckcolumns, "_PACKED", 1)
    monkeypatch.setattr(duckcolumns, "_TAKEN_IN", 3)
    monkeypatch.setattr(duckcolumns, "_SENT", 4)


def a_table(session: Session) -> None:
    execute(
        session,
        "CREATE TEMPORARY TABLE line (n bigint, run bigint, a bigint, score smallint, rule text)"
        " ON COMMIT DROP",
    )


def send(session: Session, values: list[int], rule: str) -> None:
    numbers = np.arange(1, len(values) + 1)
    fields = (bigint(7), np.array(values, np.int64), smallint(-3), text(rule))
    send_rows(session, "line", pack_rows(numbers, *fields))


@pytest.mark.parametrize("count", [0, 1, 4, 6])
@pytest.mark.usefixtures("few_at_a_time")
def test_rows_arrive_as_they_were_packed(count: int) -> None:
    with transaction() as session:
        a_table(session)
        send(session, EDGES[:count], "é\u0660")
        rows = execute(session, "SELECT * FROM line ORDER BY n").all()
    assert rows == [(n, 7, a, -3, "é\u0660") for n, a in enumerate(EDGES[:count], 1)]


@pytest.mark.usefixtures("few_at_a_time")
def test_columns_arrive_as_the_server_has_them() -> None:
    with transaction() as session, duckdb.connect() as con:
        a_table(session)
        send(session, EDGES, "")
        con.execute("CREATE TABLE taken (n BIGINT, a BIGINT, b BIGINT)")
        take_in(
            con.cursor(),
            "INSERT INTO taken SELECT n, a, b FROM block",
            session,
            "SELECT n, a, CASE WHEN n > :from THEN 100 % n END AS b FROM line",
            {"from": 3},
            ("n", "a", "b"),
        )
        # The session is free for other things again.
        assert execute(session, "SELECT count(*) FROM line").scalar_one() == len(EDGES)
        taken = columns_of(con, "SELECT * FROM taken ORDER BY n")
    assert taken["n"].tolist() == [1, 2, 3, 4, 5, 6]
    assert taken["a"].tolist() == EDGES
    # What is NULL comes as 0.
    assert taken["b"].tolist() == [0, 0, 0, 0, 0, 4]


@pytest.mark.timeout(30)
@pytest.mark.usefixtures("few_at_a_time")
def test_what_cannot_be_taken_in_is_told_and_the_session_is_not_left_waiting() -> None:
    def in_vain() -> None:
        with transaction() as session, duckdb.connect() as con:
            a_table(session)
            send(session, EDGES, "")
            insert, query = "INSERT INTO nowhere FROM block", "SELECT n, a FROM line"
            take_in(con.cursor(), insert, session, query, {}, ("n", "a"))

    with pytest.raises(duckdb.Error, match="nowhere"):
        in_vain()


@pytest.mark.parametrize("packed", [1, 12])
def test_texts_arrive_as_the_server_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: int
) -> None:
    monkeypatch.setattr("reconciliation.duckfiles._PACKED", packed)
    texts = ['a "b", c', "", None, "two\nlines\r\n", "\\N", "أ ب", "'", ",", '"', " "]
    columns = {"n": "BIGINT", "said": "VARCHAR", "is_first": "BOOLEAN", "day": "DATE"}
    with transaction() as session, duckdb.connect() as con:
        execute(session, "CREATE TEMPORARY TABLE said (n bigint, said text) ON COMMIT DROP")
        execute(
            session,
            "INSERT INTO said SELECT n, said FROM unnest(CAST(:said AS text[])) WITH ORDINALITY"
            " AS each (said, n)",
            {"said": texts},
        )
        path = tmp_path / "said.csv"
        query = (
            "SELECT n, said, n = :first AS is_first,"
            " CASE WHEN n > 1 THEN DATE '2026-11-23' END AS day FROM said"
        )
        pull_rows(session, query, columns, path, {"first": 1})
        rows = con.execute(
            f"SELECT n, said, is_first, CAST(day AS VARCHAR) FROM"
            f" {read_file(path, columns, texts=True)} ORDER BY n"
        ).fetchall()
    # An empty text comes as NULL: of a person's number or name both say that it is not known.
    assert rows == [
        (n, said or None, n == 1, "2026-11-23" if n > 1 else None)
        for n, said in enumerate(texts, 1)
    ]


def test_no_rows_are_no_file_of_one_empty_row(tmp_path: Path) -> None:
    with transaction() as session, duckdb.connect() as con:
        path = tmp_path / "none.csv"
        pull_rows(session, "SELECT 1 AS n WHERE false", {"n": "BIGINT"}, path)
        assert con.execute(f"SELECT * FROM {read_file(path, {'n': 'BIGINT'})}").fetchall() == []


def test_who_has_no_reference_seeks_none() -> None:
    """`NULL NOT IN (nothing)` is true."""
    with duckdb.connect() as con:
        for side, k in (("payment", "NULL"), ("record", "195348216062")):
            con.execute(f"CREATE TABLE free_{side} AS SELECT 7::BIGINT AS n")
            con.execute(
                f"CREATE TABLE {side}_key AS SELECT 7::BIGINT AS n, {k}::BIGINT AS k, 5 AS a"
            )
        free = name_free(con)
    assert [each.tolist() for each in free.payments.values()] == [[7], [0], [0]]
    assert [each.tolist() for each in free.records.values()] == [
        [7],
        [195348216062],
        [195348216062],
    ]
