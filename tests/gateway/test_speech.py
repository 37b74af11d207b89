from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dues.campaigns import campaigns
from gateway.dues.periods import parse_period
from gateway.dues.principal import principal
from gateway.dues.tariff import tariff
from gateway.models import Channel, LineKind, Periodicity
from gateway.words.catalogs import LANGUAGES, Language, Untranslated
from gateway.words.speech import speech

FR, AR = speech("fr"), speech("ar")


def test_money_is_written_as_people_write_it() -> None:
    assert FR.money(123450) == "1\u202f234,50\u00a0DH"
    assert AR.money(45587) == "455,87\u00a0درهم"
    assert FR.amount(-5) == "\u22120,05"


def test_figures_of_a_rule_are_written_as_money_is() -> None:
    assert FR.figure("17.92") == "17,92"
    assert FR.figure("50000.00") == "50\u202f000,00"
    assert AR.figure("191") == "191"


@given(st.integers(-(10**12), 10**12), st.sampled_from(LANGUAGES))
def test_an_amount_never_breaks_and_can_be_read_back(minor: int, language: Language) -> None:
    written = speech(language).money(minor)
    assert " " not in written
    digits = written.split("\u00a0")[0].replace("\u202f", "").replace("\u2212", "-")
    assert round(float(digits.replace(",", ".")) * 100) == minor or abs(minor) > 10**11


def test_months_have_their_moroccan_names() -> None:
    assert AR.period("2026-11") == "نونبر\u00a02026"
    assert AR.day(date(2026, 8, 3)) == "3\u00a0غشت\u00a02026"
    assert FR.day(date(2026, 11, 1)) == "1er\u00a0novembre\u00a02026"
    assert FR.period("2026-Q4") == "4e trimestre 2026"


def test_instants_are_told_in_casablanca_also_in_ramadan() -> None:
    assert FR.instant(datetime(2026, 11, 18, 11, 6, tzinfo=UTC)).endswith("12:06")
    assert FR.instant(datetime(2026, 2, 25, 11, 6, tzinfo=UTC)).endswith("11:06")
    assert FR.day_of(datetime(2026, 11, 17, 23, 30, tzinfo=UTC)).startswith("18")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_rule_of_the_tariff_can_be_said(language: Language) -> None:
    said = speech(language)
    for category in tariff().category:
        scale = category.scale
        edges = [0, 50_000, 10**9] if scale else [None]
        monthly = category.periodicity is Periodicity.MONTH
        period = parse_period("2026-11" if monthly else "2026-Q4")
        for base in edges:
            line = principal(tariff(), category, base_minor=base, period=period)
            rule = said.rule(line.facts, "untold")  # type: ignore[union-attr]
            assert rule != "untold"
            assert "annual" not in rule
            assert "." not in rule
        assert said.category(category.code) != category.code


@pytest.mark.parametrize("language", LANGUAGES)
def test_rules_of_other_tariffs_can_be_said_too(language: Language) -> None:
    figures = dict.fromkeys(("coefficient", "smig", "hours", "rate", "edge", "months"), "4711.5")
    edges = {f"{kind}-{edge}" for kind in ("band", "share") for edge in ("below", "up-to", "from")}
    for form in edges | {"late-months"}:
        said = speech(language).rule({"form": form, "base": "annual profit", **figures}, "untold")
        assert "4\u202f711,5" in said
        assert "annual" not in said


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_remission_names_the_campaign_and_what_it_remits_only(language: Language) -> None:
    shares = {"principal": "0", "penalty": "100", "fee": "50"}
    for campaign in campaigns().campaign:
        if campaign.whose != "self-employed":
            continue
        facts = {"form": "remission", "campaign": campaign.code, **shares}
        said = speech(language).rule(facts, "untold")
        assert campaign.code not in said
        assert ("100" in said, "50" in said) == (True, True)
        assert "0\u00a0%" not in said.replace("100\u00a0%", "").replace("50\u00a0%", "")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_kind_and_channel_has_its_words(language: Language) -> None:
    said = speech(language)
    assert len({said.line(kind, "2026-11") for kind in LineKind}) == len(LineKind)
    assert len({said.channel(channel) for channel in (*Channel, None)}) == len(Channel) + 1


def test_a_text_without_its_translation_is_an_error() -> None:
    with pytest.raises(Untranslated, match="Nobody wrote this"):
        FR.say("Nobody wrote this")
