"""`reconciliation.reading` for a million rows in DuckDB: usual forms in SQL, the rest in Python.

Both say the same, and tests hold them together. SQL decides only what it is sure to decide as the
functions of `reading` do: clean digits, and references in groups, with `RF74`, or in other digits.
Every other text goes through those functions, once for each that is different.

A caller fills `raw_payment` and `raw_record` (n BIGINT, id, reference, cnss_number, cin, name,
a BIGINT, d DATE, provider_reference), texts as they were given, NULL or empty where not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal

import duckdb

from gateway.references import BIDI, SEPARATORS
from reconciliation.names import sql_tokens, tokens
from reconciliation.reading import (
    ALONE,
    CNSS_DIGITS,
    COUNTED,
    PROVIDER_REFERENCE_MIN,
    WRITTEN_OTHERWISE,
    cin_in,
    cnss_number_in,
    read_cin,
    read_cnss_number,
    read_text,
)

Side = Literal["payment", "record"]

TEXTS_AT_ONCE: Final = 20_000
"""How many texts are in Python's memory at a time."""

_UNREAD: Final = -1
_NORMALISED_MAX: Final = 64
_ODD: Final = "?" * 13
_FILLERS: Final = " ".join(digit * 4 for digit in "0123456789")
_LOW, _HIGH = CNSS_DIGITS
_SPACES: Final = "\u00a0\u2007\u2009\u202f"
_ROUND: Final = " \t" + _SPACES
_COMPACT: Final = "replace(replace(replace(text, ' ', ''), '-', ''), '\t', '')"
_REMOVED: Final = "".join((*sorted(BIDI), *sorted(SEPARATORS))) + _ROUND
_OTHER_DIGITS: Final = "".join(
    chr(zero + digit) for zero in (0x660, 0x6F0, 0xFF10) for digit in range(10)
)
_FOLDED: Final = f"'{_OTHER_DIGITS}{_REMOVED}', '{'0123456789' * 3}'"


def read_keys(con: duckdb.DuckDBPyConnection, side: Side) -> None:
    """Make `payment_key` or `record_key` (n, k, how, a) from the raw rows of a side.

    Leaves a temporary table of what Python read, `payment_text` or `record_text`, which `read_rows`
    adds to.
    """
    con.execute(
        f"""
        CREATE TABLE {side}_key AS
        SELECT n, CASE WHEN code >= 0 THEN code >> 2 END AS k,
            CASE WHEN code >= 0 THEN code & 3 WHEN code IS NULL THEN {ALONE} ELSE {_UNREAD} END
                ::TINYINT AS how, a
        FROM ({_codes(f"raw_{side}")})
        """
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {side}_text (reference VARCHAR, k BIGINT, how TINYINT,"
        " ks BIGINT[], digits VARCHAR, cnss VARCHAR, cin VARCHAR)"
    )
    unread = con.execute(f"SELECT count(*) FROM {side}_key WHERE how = {_UNREAD}").fetchone()
    assert unread is not None
    if not unread[0]:
        return
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE unread AS SELECT n, reference FROM raw_{side}"
        f" SEMI JOIN (SELECT n FROM {side}_key WHERE how = {_UNREAD}) USING (n)"
    )
    _read_texts(con, side, "unread")
    con.execute(
        f"UPDATE {side}_key SET k = said.k, how = said.how FROM"
        f" (SELECT n, k, how FROM unread JOIN {side}_text USING (reference)) said"
        f" WHERE said.n = {side}_key.n"
    )
    con.execute("DROP TABLE unread")


def _codes(raw: str) -> str:
    """Return a query for (n, code, a): code is `k * 4 + how`; NULL: no reference; -1: ask Python.

    Each stage works on what the stages before left. The first settles nearly every row, so it is
    the cheapest test that is certain: of twelve bytes that make a number of twelve digits, those
    with an exponent end in 00, which no reference does, and those in another base begin with 0.
    Twelve bytes or less hold no reference in any other way.
    """
    return f"""
    SELECT n, a, CASE
            WHEN k IS NOT NULL THEN k * 4
            WHEN bare IS NULL THEN NULL
            WHEN strlen(text) > {_NORMALISED_MAX} THEN {_UNREAD}
            WHEN {_verifies("number")}
                THEN number * 4 + (trim(text, '{_ROUND}') <> bare)::BIGINT * {WRITTEN_OTHERWISE}
            WHEN strlen(bare) <= 12 AND bare = compact OR bare = text THEN NULL
            ELSE {_UNREAD} END AS code
    FROM (
        SELECT *, CASE WHEN strlen(bare) = 12 THEN TRY_CAST(bare AS BIGINT) END AS number
        FROM (
            SELECT n, a, k, text, compact, CASE
                WHEN text IS NULL THEN NULL
                WHEN NOT regexp_full_match(compact, '([Rr][Ff]74)?[0-9]*') THEN '{_ODD}'
                WHEN compact[1] IN ('R', 'r') THEN compact[5:]
                ELSE compact END AS bare
            FROM (
                SELECT n, a, k, text, CASE
                    WHEN text IS NULL THEN NULL
                    WHEN strlen(text) = length(text) THEN {_COMPACT}
                    ELSE translate(text, {_FOLDED}) END AS compact
                FROM (
                    SELECT n, a, k,
                        CASE WHEN k IS NULL AND strlen(reference) > 12 THEN reference END AS text
                    FROM (
                        SELECT n, a, reference,
                            CASE WHEN {_verifies("number")} AND reference >= '1' THEN number END k
                        FROM (
                            SELECT n, a, reference, CASE WHEN strlen(reference) = 12
                                THEN TRY_CAST(reference AS BIGINT) END AS number
                            FROM {raw}
                        )
                    )
                )
            )
        )
    )
    """


def _is_plain(text: str, pattern: str) -> str:
    """Return whether SQL need not ask Python: of this form, and not at all like a filler."""
    is_filler = f"contains('{_FILLERS}', {text}[-4:])"
    return f"(regexp_full_match({text}, '{pattern}') AND NOT {is_filler})"


def _verifies(number: str) -> str:
    """Return SQL that says whether a number, of twelve characters at most, is a reference."""
    return f"({number} % 97 = 1 AND {number} % 100 BETWEEN 2 AND 98 AND {number} >= 100000000000)"


def read_rows(con: duckdb.DuckDBPyConnection, side: Side) -> None:
    """Make `payment_row` or `record_row` of the rows (n) of `free_payment` or `free_record`.

    `read_keys` was called before for this side.
    """
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE read_row AS
        SELECT n, id, raw.a, d, name, k, how, coalesce(reference, '') AS reference,
            coalesce(cnss_number, '') AS cnss_number, coalesce(cin, '') AS cin,
            provider_reference,
            CASE WHEN k IS NULL AND {_is_plain("reference", "[0-9]{6,14}")}
                AND NOT contains('{COUNTED}', reference[-5:]) THEN reference END AS plain,
            {_is_plain("cnss_number", f"[0-9]{{{_LOW},{_HIGH}}}")} AS is_plain_cnss,
            {_is_plain("cin", "[A-Z]{1,3}[0-9]{4,9}")} AS is_plain_cin
        FROM raw_{side} raw
        JOIN (SELECT n, k, how FROM {side}_key SEMI JOIN free_{side} USING (n)) USING (n)
        """
    )
    # Numbers of a person are looked for in a text that is not just a reference or part of one.
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE unread AS
        SELECT reference FROM read_row
        WHERE reference <> '' AND (k IS NULL OR how NOT IN ({ALONE}, {WRITTEN_OTHERWISE}))
            AND (plain IS NULL OR strlen(plain) = 9)
        """
    )
    _read_texts(con, side, "unread")
    _read_each(con, "read_cnss", "cnss_number", "NOT is_plain_cnss", read_cnss_number)
    _read_each(con, "read_cin", "cin", "NOT is_plain_cin", read_cin)
    _read_names(con)
    con.execute(
        f"""
        CREATE TABLE {side}_row AS
        SELECT n, id, r.k, r.how, said.ks, coalesce(said.digits, plain) AS digits, a, d,
            CASE WHEN length(trim(provider_reference, '{_ROUND}')) >= {PROVIDER_REFERENCE_MIN}
                THEN trim(provider_reference, '{_ROUND}') END AS provref,
            CASE WHEN is_plain_cnss THEN r.cnss_number
                ELSE coalesce(read_cnss.said, said.cnss) END AS cnss,
            CASE WHEN is_plain_cin THEN r.cin ELSE coalesce(read_cin.said, said.cin) END AS cin,
            tokens
        FROM read_row r
        LEFT JOIN {side}_text said ON said.reference = r.reference
        LEFT JOIN read_cnss ON read_cnss.text = r.cnss_number
        LEFT JOIN read_cin ON read_cin.text = r.cin
        LEFT JOIN read_name USING (name)
        """
    )
    con.execute("DROP TABLE unread; DROP TABLE read_row; DROP TABLE read_cnss; DROP TABLE read_cin")


def _read_texts(con: duckdb.DuckDBPyConnection, side: Side, unread: str) -> None:
    """Add what Python reads in the texts of `unread` to the texts of a side."""
    for some in _batches(
        con,
        f"SELECT DISTINCT reference FROM {unread} ANTI JOIN {side}_text USING (reference)",
    ):
        read = [read_text(text) for text in some]
        con.execute(
            f"INSERT INTO {side}_text SELECT unnest($1::VARCHAR[]), unnest($2::BIGINT[]),"
            " unnest($3::TINYINT[]), unnest($4::BIGINT[][]), unnest($5::VARCHAR[]),"
            " unnest($6::VARCHAR[]), unnest($7::VARCHAR[])",
            [
                some,
                [each.k for each in read],
                [each.how for each in read],
                [list(each.ks) or None for each in read],
                [each.digits for each in read],
                [cnss_number_in(text) for text in some],
                [cin_in(text) for text in some],
            ],
        )


def _read_each(
    con: duckdb.DuckDBPyConnection,
    table: str,
    column: str,
    where: str,
    read: Callable[[str], str | None],
) -> None:
    """Make a table (text, said) of what Python reads in a column of `read_row`."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE {table} (text VARCHAR, said VARCHAR)")
    for some in _batches(
        con, f"SELECT DISTINCT {column} FROM read_row WHERE {column} <> '' AND {where}"
    ):
        con.execute(
            f"INSERT INTO {table} SELECT unnest($1::VARCHAR[]), unnest($2::VARCHAR[])",
            [some, [read(text) for text in some]],
        )


def _read_names(con: duckdb.DuckDBPyConnection) -> None:
    """Add the names of `read_row` to a table (name, tokens); the sides have many in common."""
    con.execute("CREATE TEMP TABLE IF NOT EXISTS read_name (name VARCHAR, tokens VARCHAR[])")
    con.execute(
        "CREATE OR REPLACE TEMP TABLE unread_name AS SELECT DISTINCT name FROM read_row"
        " ANTI JOIN read_name USING (name) WHERE name <> ''"
    )
    words = sql_tokens("name", "duckdb", is_ascii=True)
    # Said once: such a long expression takes longer to plan than to work out.
    con.execute(
        "INSERT INTO read_name SELECT name, nullif(words, []::VARCHAR[]) FROM"
        f" (SELECT name, {words} AS words FROM unread_name WHERE strlen(name) = length(name))"
    )
    # DuckDB looks letters up slowly: twice the time of Python.
    for some in _batches(con, "SELECT name FROM unread_name WHERE strlen(name) <> length(name)"):
        con.execute(
            "INSERT INTO read_name SELECT unnest($1::VARCHAR[]), unnest($2::VARCHAR[][])",
            [some, [list(tokens(name)) or None for name in some]],
        )
    con.execute("DROP TABLE unread_name")


def _batches(con: duckdb.DuckDBPyConnection, query: str) -> Iterator[list[str]]:
    """Yield the texts of a query, some at a time; the connection may be used in between."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE batch AS {query}")
    count = con.execute("SELECT count(*) FROM batch").fetchone()
    assert count is not None
    for first in range(0, count[0], TEXTS_AT_ONCE):
        texts = con.execute(
            "SELECT * FROM batch WHERE rowid BETWEEN $1 AND $2", [first, first + TEXTS_AT_ONCE - 1]
        )
        yield [text for (text,) in texts.fetchall()]
    con.execute("DROP TABLE batch")
