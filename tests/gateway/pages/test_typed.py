from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pages.typed import Slip, Typed, looks_like_a_reference, read_typed
from gateway.references import is_reference

REFERENCE = "148275036141"


@pytest.mark.parametrize(
    "text",
    [
        REFERENCE,
        "1482 7503 6141",
        "1482-7503-6141",
        "1482\u00a07503\u202f6141",
        "١٤٨٢ ٧٥٠٣ ٦١٤١",
        "۱۴۸۲۷۵۰۳۶۱۴۱",
        "\u200f\u20681482 7503 6141\u2069",
        "RF74 1482 7503 6141",
        "rf74148275036141",
        f"https://amo.example.ma/{REFERENCE}",
        f"  {REFERENCE}\t",
    ],
)
def test_every_way_to_write_a_reference_is_understood(text: str) -> None:
    assert read_typed(text) == Typed(REFERENCE)


@pytest.mark.parametrize(
    ("text", "slip"),
    [
        ("", Typed(slip=Slip.EMPTY)),
        (" \u200f ", Typed(slip=Slip.EMPTY)),
        ("-", Typed(slip=Slip.EMPTY)),
        ("14827503614", Typed(slip=Slip.LENGTH, digits=11)),
        ("1482 7503 6141 1", Typed(slip=Slip.LENGTH, digits=13)),
        ("١٤٨٢", Typed(slip=Slip.LENGTH, digits=4)),
        ("RF74 1482 7503", Typed(slip=Slip.LENGTH, digits=8)),
        ("148275O36141", Typed(slip=Slip.LETTERS, strangers="O")),
        ("148275²36141", Typed(slip=Slip.LETTERS, strangers="²")),
        ("14a82b75c03d", Typed(slip=Slip.LETTERS, strangers="a b c")),
        ("1482\x007503", Typed(slip=Slip.LETTERS)),
        ("148275\n036141", Typed(slip=Slip.LETTERS)),
        ("148275036142", Typed(slip=Slip.CHECK)),
        ("148275306141", Typed(slip=Slip.CHECK)),
        ("048275036141", Typed(slip=Slip.CHECK)),
        ("RF18 5390 0754 7034", Typed(slip=Slip.OTHER_RF)),
    ],
)
def test_what_is_wrong_is_named(text: str, slip: Typed) -> None:
    assert read_typed(text) == slip


@given(st.text())
def test_any_text_is_a_reference_that_verifies_or_one_slip(text: str) -> None:
    typed = read_typed(text)
    assert (typed.reference is None) == (typed.slip is not None)
    assert typed.reference is None or is_reference(typed.reference)


def test_any_wrong_digit_is_a_typing_error() -> None:
    for at in range(12):
        for digit in set("0123456789") - {REFERENCE[at]}:
            wrong = REFERENCE[:at] + digit + REFERENCE[at + 1 :]
            assert read_typed(wrong) == Typed(slip=Slip.CHECK)


@pytest.mark.parametrize("name", ["favicon.ico", "robots.txt", "wp-login.php", "a1", "2x", "", "-"])
def test_a_pages_name_is_no_reference(name: str) -> None:
    assert not looks_like_a_reference(name)


@pytest.mark.parametrize("text", ["14827503614", "148275O36141", "1482 7503", "١٤٨٢٧٥"])
def test_a_mistyped_reference_looks_like_one(text: str) -> None:
    assert looks_like_a_reference(text)
