"""What a row's texts say: by hand, and for any text the same in DuckDB as in Python."""

from __future__ import annotations

import random
from collections.abc import Sequence

import duckdb
import pytest

from gateway.references import with_check_digits
from reconciliation.names import tokens
from reconciliation.reading import (
    Text,
    cin_in,
    cnss_number_in,
    digits_in,
    read_cin,
    read_cnss_number,
    read_provider_reference,
    read_text,
    references_in,
)
from reconciliation.reading_tables import read_keys, read_rows

A, B = 148275036141, 100000000190


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("148275036141", Text(A)),
        (" 148275036141\t", Text(A)),
        ("1482 7503 6141", Text(A, how=1)),
        ("1482-7503-6141", Text(A, how=1)),
        ("RF74 1482 7503 6141", Text(A, how=1)),
        ("rf74148275036141", Text(A, how=1)),
        ("\u2066١٤٨٢ ٧٥٠٣ ٦١٤١\u2069", Text(A, how=1)),
        ("１４８２７５０３６１４１", Text(A, how=1)),
        ("1482\u00a07503\u202f6141", Text(A, how=1)),
        ("AMO 2026-10 REF 1000 0000 0190", Text(B, how=2)),
        ("AMO 2026-10 148275036141", Text(A, how=2)),
        ("REF148275036141/AMO", Text(A, how=2)),
        ("1482.7503.6141", Text(A, how=2)),
        ("Réf : RF74 1482 7503 6141, merci", Text(A, how=2)),
        ("148275036141 pour 1482 7503 6141", Text(A, how=2)),
        ("1482 7503 6141 / 100000000190", Text(ks=(B, A))),
        ("1482 7503 6141 1000 0000 0190", Text(ks=(B, A))),
        ("148275036141+100000000190", Text(ks=(B, A))),
        ("148275036141\n100000000190", Text(ks=(B, A))),
        # Not a reference of ours, and no part of one.
        ("RF18 5390 0754 7034", Text()),
        ("RF18 1482 7503 6141", Text()),
        ("RF18148275036141", Text()),
        ("148275\n036141", Text()),
        ("", Text()),
        ("12345", Text()),
        ("AMO 2026-10", Text()),
        ("merci", Text()),
        # What does not verify is kept as digits; letters are no digits and join nothing.
        ("148275036142", Text(digits="148275036142")),
        ("RF74148275036142", Text(digits="148275036142")),
        ("048275036141", Text(digits="048275036141")),
        ("100000003100", Text(digits="100000003100")),
        ("148275O36141", Text(digits="148275")),
        ("148275²36141", Text(digits="148275")),
        ("AMO 2026-10 REF 1000 0000 019", Text(digits="10000000019")),
        ("10/2026 148275036142 300.00 DH", Text(digits="148275036142")),
        ("2026-11-18 1482-7503-614", Text(digits="14827503614")),
        ("123456 654321", Text(digits="123456654321")),
        ("123456, 654321x 7777777", Text()),
        ("1" * 15, Text()),
        # What a form is given that wants a number.
        ("000000000000", Text()),
        ("123456789012", Text()),
        ("987 654", Text()),
    ],
)
def test_a_text_is_read(text: str, said: Text) -> None:
    assert read_text(text) == said


def test_references_are_whole_groups() -> None:
    """Digits of a longer number are no reference, however they are cut."""
    assert references_in("9148275036141") == ()
    assert references_in("91482 7503 6141") == ()
    assert references_in("9 148275036141") == (A,)
    assert digits_in("9148275036141") == "9148275036141"


def test_of_overlapping_digits_those_that_fit_best_are_read() -> None:
    """Between two references in groups stand twelve digits that verify by chance."""
    first, chance, second = 916656876137, 568761371131, 113138300408
    assert references_in("9166 5687 6137 1131 3830 0408") == (second, first)
    assert references_in("9166 5687 6137 1131") == (chance, first)


@pytest.mark.parametrize(
    ("text", "cnss", "cin"),
    [
        ("CNSS 123456789", "123456789", None),
        ("Immat. n° 123456789 AMO", "123456789", None),
        ("123456789", None, None),  # it does not verify, so it may be the rest of a reference
        ("104512340", "104512340", None),
        ("AMO 104512340 nov", "104512340", None),
        ("AB123456", None, "AB123456"),
        ("ab 123456", None, "AB123456"),
        ("CIN: BE 12345 loyer", None, "BE12345"),
        ("paye AB123456 et CD654321", None, None),
        ("du 123456 au", None, None),
        ("CNSS 000000000 AB000000", None, None),
        ("148275036141", None, None),
    ],
)
def test_numbers_of_a_person_in_a_text(text: str, cnss: str | None, cin: str | None) -> None:
    assert (cnss_number_in(text), cin_in(text)) == (cnss, cin)


def test_numbers_of_a_person_in_their_fields() -> None:
    assert read_cnss_number(" 123 456 789 ") == "123456789"
    assert read_cnss_number("١٢٣٤٥٦٧٨٩") == "123456789"
    assert read_cnss_number("12345678") == "12345678"
    assert read_cnss_number("123456789.0") == read_cnss_number("123456789,00") == "123456789"
    for text in ("", "999999999", "1234", "12345678O", "N/A", "-", "123\n456789"):
        assert read_cnss_number(text) is None, text
    assert read_cin("ab 123.456") == "AB123456"
    assert read_cin("ＡＢ１２３４５６") == "AB123456"
    for text in ("", "NEANT", "X00000", "AB", "بك123456", "A" * 13):
        assert read_cin(text) is None, text
    assert read_provider_reference(" TX1234 ") == "TX1234"
    assert read_provider_reference("TX123") is None


# -- the same in DuckDB ---------------------------------------------------------------------------

PIECES = ["RF74", "RF", "R F 7", "AMO 2026-10 ", "CNSS ", "AB123456", "123456789", "104512340"]
PIECES += [
    " ",
    "-",
    "/",
    "\n",
    "\t",
    "\u00a0",
    "\u2007",
    "\u200f",
    "\u2011",
    ".",
    "²",
    "O",
    "e3",
    "٠٩",
]


def _piece(rng: random.Random) -> str:
    reference = with_check_digits(rng.randint(10**9, 10**10 - 1))
    match rng.randrange(8):
        case 0:
            return reference
        case 1:
            return f"{reference[:4]} {reference[4:8]} {reference[8:]}"
        case 2:
            return reference.translate({48 + digit: 0x660 + digit for digit in range(10)})
        case 3:
            return reference[: rng.randint(5, 11)] + "7"
        case 4:
            return "".join(rng.choices("0123456789 -٠٩", k=rng.randint(1, 14)))
        case _:
            return rng.choice(PIECES)


# Twelve characters that DuckDB takes for a number, and that are none of ours.
ODD = ["1234567890e2", "195         ", " 98         ", "1_0000_00190", "1.00000019e9"]
ODD += [
    "0x174876e85d",
    "+48275036141",
    "48275036141.",
    "148275036141" + " " * 60,
    "R F74 1482 7503 6141",
]


def test_tables_say_the_same() -> None:
    rng = random.Random(7)  # noqa: S311
    some = ODD + [
        "".join(_piece(rng) for _ in range(rng.choice((1, 1, 2, 3)))) for _ in range(4000)
    ]
    with duckdb.connect() as con:
        _raw(con, [(text, "", "", "", "") for text in some])
        _assert_read(con, some)


PERSONS = [
    ("", "123456789", "AB123456", "Mohammed Alaoui", "TX12345"),
    ("CNSS 123456789", "", "", "", "TX123456 "),
    ("CNSS 123456789 AB123456", "987654321", "", "محمد العلوي", ""),
    ("104512340", "", "cd 12345", "Ait 77", "\u00a0TX1234"),
    ("AMO 2026-10 REF 1000 0000 0190 CIN AB123456", "999999999", "X0000000", "77", "TX"),
    ("1482 7503 6142", "123 456 789", "AB12345O", "H. Alaoui", "12345678"),
]


def test_rows_say_what_python_says() -> None:
    with duckdb.connect() as con:
        _raw(con, PERSONS)
        _assert_read(con, [text for text, *_ in PERSONS], persons=False)
        rows = con.execute("SELECT cnss, cin, tokens, provref FROM record_row ORDER BY n")
        for (text, cnss, cin, name, provider), row in zip(PERSONS, rows.fetchall(), strict=True):
            assert row == (
                read_cnss_number(cnss) or cnss_number_in(text),
                read_cin(cin) or cin_in(text),
                list(tokens(name)) or None,
                read_provider_reference(provider),
            )


def _raw(con: duckdb.DuckDBPyConnection, rows: Sequence[tuple[str, str, str, str, str]]) -> None:
    con.execute(
        "CREATE TABLE raw_record (n BIGINT, id VARCHAR, reference VARCHAR, cnss_number VARCHAR,"
        " cin VARCHAR, name VARCHAR, a BIGINT, d DATE, provider_reference VARCHAR)"
    )
    columns = [list(column) for column in zip(*rows, strict=True)]
    con.execute(
        "INSERT INTO raw_record SELECT generate_subscripts($1, 1), 'R', unnest($1::VARCHAR[]),"
        " unnest($2::VARCHAR[]), unnest($3::VARCHAR[]), unnest($4::VARCHAR[]), 100,"
        " DATE '2026-11-18', unnest($5::VARCHAR[])",
        columns,
    )


def _assert_read(con: duckdb.DuckDBPyConnection, texts: list[str], *, persons: bool = True) -> None:
    read_keys(con, "record")
    con.execute("CREATE TABLE free_record AS SELECT n FROM raw_record")
    read_rows(con, "record")
    keys = con.execute("SELECT k, how FROM record_key ORDER BY n").fetchall()
    rows = con.execute("SELECT k, how, ks, digits, cnss, cin FROM record_row ORDER BY n").fetchall()
    for text, key, (k, how, ks, digits, *person) in zip(texts, keys, rows, strict=True):
        said = read_text(text)
        assert key == (said.k, said.how), text
        assert (k, how, tuple(ks or ()), digits) == (said.k, said.how, said.ks, said.digits), text
        if persons:
            assert person == [cnss_number_in(text), cin_in(text)], text
