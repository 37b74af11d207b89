from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.money import (
    AMOUNT_MINOR_MAX,
    UnreadableAmount,
    format_amount,
    parse_amount,
    round_to_minor,
)


@pytest.mark.parametrize(
    ("text", "minor"),
    [
        ("163.52", 16352),
        ("163.5", 16350),
        ("163", 16300),
        ("0.01", 1),
        ("0", 0),
        ("-0.05", -5),
        ("0163.52", 16352),
        ("10000000000.00", AMOUNT_MINOR_MAX),
    ],
)
def test_an_amount_is_read(text: str, minor: int) -> None:
    assert parse_amount(text) == minor


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1.",
        ".5",
        "1.234",
        "1,50",
        "1 000.00",
        "+1.00",
        "1e3",
        "NaN",
        "Infinity",
        "١٦٣.٥٢",
        "１.00",
        "²",
        "1.00\n",
        "--1",
        "10000000000.01",
        "9" * 40,
        "0x10",
        "1_000",
    ],
)
def test_what_would_be_a_guess_is_refused(text: str) -> None:
    with pytest.raises(UnreadableAmount):
        parse_amount(text)


@given(st.integers(-AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX))
def test_an_amount_printed_is_read_back(minor: int) -> None:
    assert parse_amount(format_amount(minor)) == minor


@given(st.text())
def test_any_text_is_an_amount_or_refused(text: str) -> None:
    try:
        minor = parse_amount(text)
    except UnreadableAmount:
        return
    assert Decimal(text) * 100 == minor


@pytest.mark.parametrize(
    ("dirhams", "minor"),
    [
        ("163.520448", 16352),
        ("0.005", 1),
        ("0.00499999999999999999999", 0),
        ("0.015", 2),
        ("2.675", 268),
        ("-0.005", -1),
    ],
)
def test_rounding_is_half_up_and_exact(dirhams: str, minor: int) -> None:
    assert round_to_minor(Decimal(dirhams)) == minor
