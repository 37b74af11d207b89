"""Quiet hours and parts: what is shipped, and what must hold whatever a file says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import INSTITUTION_ZONE
from gateway.errors import Unusable
from gateway.messages import texts
from gateway.messages.rules import (
    SEVEN_BITS_ALONE,
    SEVEN_BITS_JOINED,
    UCS2_ALONE,
    UCS2_JOINED,
    QuietHours,
    message_rules,
    parts,
)
from gateway.messages.texts import Facts, period_told
from gateway.settings import settings
from gateway.words.catalogs import Language

NIGHT = QuietHours.model_validate(
    {"from": "20:00", "until": "09:00", "source": "this test", "verified": False}
)


def local(hour: int, minute: int = 0, day: int = 18) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=INSTITUTION_ZONE).astimezone(UTC)


@pytest.mark.parametrize(
    ("now", "sent"),
    [
        (local(12), local(12)),
        (local(19, 59), local(19, 59)),
        (local(20), local(9, day=19)),
        (local(23, 30), local(9, day=19)),
        (local(3, day=19), local(9, day=19)),
        (local(9, day=19), local(9, day=19)),
    ],
)
def test_nothing_is_sent_at_night(now: datetime, sent: datetime) -> None:
    assert NIGHT.after(now) == sent


@given(
    begin=st.times(),
    until=st.times(),
    minute=st.integers(0, 366 * 24 * 60),
)
def test_the_end_of_quiet_hours_is_never_quiet_nor_more_than_a_day_off(
    begin: time, until: time, minute: int
) -> None:
    """Ramadan's change of the clock included: a time of day may come twice, or not at all."""
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    hours = QuietHours.model_validate(
        {"from": f"{begin:%H:%M}", "until": f"{until:%H:%M}", "source": "x", "verified": False}
    )
    sent = hours.after(now)
    assert now <= sent <= now + timedelta(hours=25)
    assert hours.after(sent + timedelta(hours=1)) >= sent


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("a" * SEVEN_BITS_ALONE, 1),
        ("a" * (SEVEN_BITS_ALONE + 1), 2),
        ("a" * (2 * SEVEN_BITS_JOINED), 2),
        ("a" * (2 * SEVEN_BITS_JOINED + 1), 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("ç" * UCS2_ALONE, 1),
        ("ç" * (UCS2_ALONE + 1), 2),
        ("م" * (2 * UCS2_JOINED), 2),
        ("😀" * 35, 1),
        # Of 67 places a part has, a character of two leaves one empty.
        ("😀" * 66, 2),
        ("😀" * 67, 3),
        ("Confirmé à payer, Réf.", 1),
    ],
)
def test_parts_as_an_operator_counts_them(text: str, count: int) -> None:
    assert parts(text) == count


def a_message(language: Language) -> Facts:
    return Facts(
        language=language,
        house="CNSS",
        who="F. Z. E." if language == "fr" else "ف. ز. ع.",
        reference="148275036141",
        amount_minor=163_52,
        rest_minor=1_234_50,
        link="https://pay.example.ma/148275036141",
        day=date(2026, 11, 30),
        period=period_told("2026-08", language),
        count=3,
    )


def a_paid_one(language: Language) -> Facts:
    at = datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC)
    return replace(a_message(language), code="R26-000000001", paid_at=at, day=None)


def everything(language: Language) -> list[str]:
    due, paid = a_message(language), a_paid_one(language)
    one = replace(due, count=1)
    return [
        *(say(due) for say in (texts.notice, texts.due_soon, texts.late)),
        texts.late(one),
        texts.paid(paid),
        texts.given_back(paid),
    ]


def test_french_goes_in_one_part_and_arabic_in_two() -> None:
    assert {parts(text) for text in everything("fr")} == {1}
    assert {parts(text) for text in everything("ar")} == {2}


def test_arabic_runs_from_the_right_and_keeps_a_reference_in_its_order() -> None:
    """Groups of digits would change places there, and a Latin beginning turns the line."""
    for text in everything("ar"):
        assert text.startswith("\u200f")
        assert "148275036141" in text


def test_a_payment_is_confirmed_in_the_order_people_know() -> None:
    said = texts.paid(a_paid_one("fr"))
    order = ["R26-000000001", "Confirmé", "163,52 DH", "F. Z. E.", "18/11/2026", "12:06"]
    places = [said.index(each) for each in order]
    assert places == sorted(places)
    assert "1482 7503 6141" in said
    assert said.endswith("1234,50 DH.")


@pytest.mark.parametrize(
    ("shipped", "wrong", "named"),
    [
        ('from = "20:00"', 'from = "25:00"', r"line 6, at quiet_hours.from: '25:00' is no time"),
        ('from = "20:00"', 'from = "8"', 'at quiet_hours.from: write it as "20:00"'),
        ("until_days = 100", "until_days = 3", "at late.until_days: it is not more than 3 days"),
        (
            "until_days = 100",
            "until_days = 100\nweeks = 1",
            "at late.weeks: there is no such setting",
        ),
    ],
)
def test_a_file_of_ones_own_is_read_and_its_mistakes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: str, wrong: str, named: str
) -> None:
    text = resources.files("gateway").joinpath("messages.toml").read_text("utf-8")
    assert shipped in text
    file = tmp_path / "messages.toml"
    file.write_text(text.replace(shipped, wrong), "utf-8")
    monkeypatch.setenv("WASL_MESSAGES", str(file))
    settings.cache_clear()
    message_rules.cache_clear()
    try:
        with pytest.raises(Unusable, match=named):
            message_rules()
    finally:
        settings.cache_clear()
        message_rules.cache_clear()
