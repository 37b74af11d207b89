from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pages.language import Address, accepted_language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "fr"),
        ("ar", "ar"),
        ("ar-MA,ar;q=0.9,fr;q=0.8", "ar"),
        ("fr-FR,fr;q=0.9,ar;q=0.8", "fr"),
        ("fr;q=0.2, ar;q=0.7", "ar"),
        ("ar;q=0", "fr"),
        ("ar;q=0.000,en", "fr"),
        ("en-US,en;q=0.9", "fr"),
        ("zgh, ar;q=0.3", "ar"),
        ("AR-ma", "ar"),
        ("ar;q=much", "fr"),
        ("ar;v=1", "fr"),
        ("de;q=1, fr;q=0.5, ar;q=0.500", "fr"),
        ("*", "fr"),
    ],
)
def test_the_browsers_favourite_of_ours_is_taken(header: str, language: str) -> None:
    assert accepted_language(header) == language


@given(st.text())
def test_any_header_means_some_language(header: str) -> None:
    assert accepted_language(header) in {"fr", "ar"}


def an_address(*, chosen: bool, **query: str) -> Address:
    return Address("/1482", tuple(query.items()), "ar", chosen)


def test_links_say_a_language_only_if_the_address_did() -> None:
    assert an_address(chosen=False).link("/verify") == "/verify"
    assert an_address(chosen=True).link("/verify") == "/verify?lang=ar"
    assert an_address(chosen=True).link("/verify", number="R26") == "/verify?number=R26&lang=ar"


def test_the_other_language_is_the_same_page_asked_the_same() -> None:
    address = an_address(chosen=True, reference="1 2&3", code="emv")
    assert address.in_language("fr") == "/1482?reference=1+2%263&code=emv&lang=fr"


@pytest.mark.parametrize(
    "path",
    ["//evil.example/x", "/\\evil.example", "\\\\evil.example", "https://evil.example", "", "x"],
)
def test_no_link_leads_to_another_site(path: str) -> None:
    address = Address(path, (), "fr", chosen=True)
    assert address.in_language("ar") == "/?lang=ar"
    assert address.link(path) == "/?lang=fr"


def test_a_flood_is_not_carried_along() -> None:
    assert an_address(chosen=True, reference="9" * 5_000).in_language("fr") == "/1482?lang=fr"


@given(path=st.text(), name=st.text(), value=st.text())
def test_any_page_has_a_link_in_plain_characters(path: str, name: str, value: str) -> None:
    link = Address(path, ((name, value),), "fr", chosen=True).in_language("ar")
    assert link.isascii()
    assert not set(link) & set(" \"'<>\n\r")
    assert re.match(r"/(?![/\\])", link)
