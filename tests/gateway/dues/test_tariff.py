from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from gateway.dues.periods import parse_period
from gateway.dues.principal import DueLine, principal
from gateway.dues.tariff import Tariff, read_tariff, tariff
from gateway.errors import Unusable
from gateway.figures import _Places
from gateway.people.reading import COLUMNS, WrongPerson, read_person

FILES = resources.files("gateway")
SHIPPED = FILES.joinpath("tariff.toml").read_text("utf-8")


def changed(*pairs: tuple[str, str]) -> Tariff:
    text = SHIPPED
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return read_tariff(text)


def owed(law: Tariff, code: str, period: str, base_minor: int | None = None) -> DueLine:
    line = principal(law, law.of(code), base_minor=base_minor, period=parse_period(period))
    assert isinstance(line, DueLine)
    return line


# -- what is shipped ------------------------------------------------------------------------------


def test_what_is_from_memory_or_in_conflict_is_marked() -> None:
    law = tariff()
    assert all(figure.verified for figure in (*law.rate, *law.smig, *law.smag))
    assert not any(
        figure.verified for figure in (*law.hours_per_month, *law.indexation, *law.rounding)
    )
    assert not law.of("artisan-untaxed").first.verified
    assert [band.verified for band in law.of("cpu").scale[0].band] == [True] + [False] * 7
    assert [band.verified for band in law.of("accounts-real").scale[-1].band] == [True] * 4 + [
        False
    ]
    assert not law.of("accounts-no-return").coefficient[-1].verified
    assert not any(category.collector[0].verified for category in map(law.of, _DUTIES))
    assert not any(rate.verified for rate in law.penalty_rule_of("cpu").rate)


_DUTIES = ("cpu", "auto-entrepreneur")


def test_cpu_and_auto_entrepreneurs_have_one_scale() -> None:
    prices = [
        [(band.edge, band.below, band.amount) for band in tariff().of(code).scale[0].band]
        for code in _DUTIES
    ]
    assert prices[0] == prices[1]


def test_only_cpu_prevails_and_the_rest_owe_the_highest_only() -> None:
    assert [c.code for c in tariff().category if c.prevails] == ["cpu"]
    assert tariff().several_activities[-1].value == "highest-only"


def test_rights_are_told_as_of_a_day() -> None:
    now = tariff().rights_rule("cpu", date(2026, 11, 18))
    assert (now.gap_months, now.wait_months, now.stage_months, now.grace_months) == (6, 3, 1, 0)
    assert not now.verified
    assert "12" in now.source  # what the bill said
    assert tariff().rights_rule("cpu", date(2023, 6, 1)).wait_months == 0


def test_the_due_day_is_data() -> None:
    law = changed(('value = "last-day-of-period"', 'value = "first-day-of-period"'))
    month, quarter = parse_period("2026-11"), parse_period("2026-Q4")
    assert law.due_on("artisan-untaxed", month) == date(2026, 11, 1)
    assert law.due_on("cpu", quarter) == date(2026, 12, 31)
    assert tariff().due_on("artisan-untaxed", month) == date(2026, 11, 30)
    assert tariff().due_day("cpu", quarter).verified
    assert not tariff().due_day("artisan-untaxed", month).verified


# -- settings of the law --------------------------------------------------------------------------


def test_dues_may_stay_on_the_smig_of_the_first_period() -> None:
    law = changed(("follows_smig = true", "follows_smig = false"))
    assert owed(law, "artisan-untaxed", "2026-11").amount_minor == 13_514
    assert owed(law, "fishing-boat-owner", "2026-11").amount_minor == 13_514
    assert "SMIG 14.81" in owed(law, "artisan-untaxed", "2026-11").rule


def test_rounding_is_as_the_file_says() -> None:
    exact = changed(('mode = "half-up"', 'mode = "down"'))
    assert owed(exact, "accounts-real", "2022-01", 0).amount_minor == 57_660  # 576.6043…
    assert owed(exact, "artisan-untaxed", "2023-09").amount_minor == 14_864  # 148.6472…
    dirhams = changed(('to = "0.01"', 'to = "1.00"'))
    assert owed(dirhams, "artisan-untaxed", "2021-12").amount_minor == 13_500


def test_a_category_may_name_rules_of_its_own() -> None:
    law = changed(
        ('title = "Adoul"\n', 'title = "Adoul"\npenalty_rule = "none"\n'),
        (
            "[[rights_rule]]\n",
            '[[penalty_rule]]\ncode = "none"\nmethod = [{ from = 2021-01-01,'
            ' value = "simple-begun-months", source = "x", verified = true }]\n'
            'rate = [{ from = 2021-01-01, value = "0", source = "x", verified = true }]\n\n'
            "[[rights_rule]]\n",
        ),
    )
    assert law.penalty_rates("adoul")(date(2026, 1, 1)) == 0
    assert law.penalty_rates("notary")(date(2026, 1, 1)) == tariff().penalty_rates("notary")(
        date(2026, 1, 1)
    )


def test_a_base_outside_every_band_is_refused_and_not_told() -> None:
    open_top = '  { amount = "3600.00", source = "CGI art. 73-II-B-6°, from memory'
    closed = open_top.replace("{ amount", '{ up_to = "90000.00", amount')
    law = changed((open_top, closed))
    assert owed(law, "cpu", "2026-Q4", 9_000_000).amount_minor == 360_000
    with pytest.raises(Unusable, match=r"outside every band, of which the last ends at 90000\.00"):
        owed(law, "cpu", "2026-Q4", 9_000_001)
    person = dict.fromkeys(COLUMNS, "") | {
        "cnss_number": "123456782",
        "family_name": "Tazi",
        "given_name": "Omar",
        "category": "cpu",
        "category_base": "123456.78",
        "registered_on": "2024-01-01",
    }
    with pytest.raises(WrongPerson, match="outside every band") as refused:
        read_person(person, law, on=date(2026, 11, 18))
    assert "123456" not in str(refused.value)
    assert read_person(person, tariff(), on=date(2026, 11, 18))
    assert law.of("auto-entrepreneur").refuse_base(9_000_001) is None
    assert law.of("cpu").refuse_base(-1) == "the annual principal duty is negative"


# -- what is refused, and where -------------------------------------------------------------------

SMIG_2022 = 'from = 2022-09-01\nuntil = 2023-08-31\nhourly = "15.55"'
RATE, PENALTY = (f'from = 2021-01-01\nvalue = "{rate}"' for rate in ("0.0637", "0.01"))
ARTISAN = 'from = 2021-12-01\nvalue = "0.75"'


SCALE = (
    '{ from = 2021-01-01, base = "profit", band = ['
    '{ up_to = "1.00", amount = "1.00", source = "x", verified = true }] }'
)


@pytest.mark.parametrize(
    ("old", "new", "line", "word"),
    [
        (SMIG_2022, SMIG_2022.replace("09-01", "08-31", 1), "from = 2022-08-31", "ends on 2022"),
        (SMIG_2022, SMIG_2022.replace("09-01", "09-03", 1), "from = 2022-09-03", "are missing"),
        (SMIG_2022, SMIG_2022.replace("until = 2023-08-31\n", ""), "[[smig]]", "`until` is miss"),
        (SMIG_2022, SMIG_2022.replace("2023-08-31", "2022-01-01"), "2022-01-01", "before it begin"),
        (ARTISAN, ARTISAN.replace("\n", "\nuntil = 2029-12-31\n"), "2029-12-31", "has no end"),
        (ARTISAN, ARTISAN.replace("2021-12-01", "2022-01-01"), "2022-01-01", "owed from 2021-12"),
        (RATE, RATE.replace("2021-01", "2021-08"), "2021-08", "doctor-general is owed"),
        (PENALTY, PENALTY.replace("2021", "2022"), "2022-01", "artisan-untaxed is owed from 2021"),
        ('up_to = "1000.00"', 'up_to = "100.00"', 'up_to = "100.00"', "must rise"),
        ('up_to = "1000.00"', 'below = "500.00"', 'below = "500.00", amount = "390', "must rise"),
        ('up_to = "1000.00"', 'up_to = "0.00"', 'up_to = "0.00"', "greater than 0"),
        ('{ up_to = "50000.00", amount', "{ amount", '"2250.00"', "upper edge is missing"),
        ('coefficient = "3",', 'amount = "300.00",', 'amount = "300.00"', "either amounts or"),
        ('coefficient = "3",', 'coefficient = "3", amount = "3.00",', '"3.00"', "either an"),
        ('below = "500.00"', 'below = "500.00", up_to = "500.00"', "up_to", "one upper edge"),
        ('penalty_rule = "amo"', 'penalty_rule = "ammo"', '"ammo"', "no penalty_rule 'ammo'"),
        ('title = "Adoul"', 'title = "Adoul"\nrights_rule = "x"', '"x"', "no rights_rule 'x'"),
        ('code = "notary"', 'code = "adoul"', 'code = "adoul"', "already"),
        ('value = "2021-Q4"', 'value = "2021-12"', "2021-12", "not a quarter"),
        ('value = "2021-Q4"', 'value = "2021"', "2021", "not a period"),
        ('value = "0.0637"', "value = 0.0637", "value = 0.0637", "between quotes"),
        ('value = "0.0637"', 'value = "NaN"', "NaN", "not a decimal"),
        ('value = "0.0637"', 'value = "0"', 'value = "0"', "above 0"),
        ('value = "0.75"', 'value = "-0.75"', "-0.75", "above 0"),
        ('source = "décret 2-18-623"\n', "", "[[rate]]", "missing"),
        ("follows_smig = true", "follows_smig = true\nguess = 1", "guess", "no such setting"),
        ('mode = "half-up"', 'mode = "up"', 'mode = "up"', "half-up"),
        ('code = "artist"', f'code = "artist"\nscale = [{SCALE}]', "[[category]]", "give either"),
        ('code = "artist"', 'code = "artist"\ncode = "x"', 'code = "x"', "not TOML"),
    ],
)  # fmt: skip
def test_a_tariff_that_would_be_a_guess_is_refused_with_its_line(
    old: str, new: str, line: str, word: str
) -> None:
    assert old in SHIPPED
    text = SHIPPED.replace(old, new, 1)
    with pytest.raises(Unusable) as refused:
        read_tariff(text, "law.toml")
    said = str(refused.value)
    assert re.search(word, said, re.I)
    assert said.startswith("law.toml is ")
    at = re.search(r"line (\d+)", said)
    assert at is not None
    assert line in text.splitlines()[int(at[1]) - 1]


def test_a_file_without_categories_is_refused() -> None:
    head = SHIPPED[: SHIPPED.index("[[category]]")]
    with pytest.raises(Unusable, match="category: it is missing"):
        read_tariff(head)
    with pytest.raises(Unusable, match=r"line 2, at category: it is empty"):
        read_tariff("# none\ncategory = []\n" + head)


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for at, inner in enumerate(value):
            yield from leaves(inner, (*path, at))
    else:
        yield path


@pytest.mark.parametrize("name", ["tariff.toml", "institution.toml"])
def test_each_key_of_a_file_is_found_in_its_line(name: str) -> None:
    text = FILES.joinpath(name).read_text("utf-8")
    places, lines = _Places(text), text.splitlines()
    found = [(path, places.line_of(path)) for path in leaves(tomllib.loads(text))]
    assert len(found) > 20
    for path, line in found:
        assert re.search(rf"\b{path[-1]} =", lines[line - 1]), path


def test_lines_are_counted_through_everything_that_toml_allows() -> None:
    text = '''# [[no]] "
a = """ ["
x = 1 """ # ]
b.c = [ # {
  [1, 2], { "d e" = 'f]' , g = "\\"]" },

  3 ]
[h."i.j"]
k = 1979-05-27 07:32:00
[[l]]
[[l.m]]
n = \'\'\'a
\'\'\'
[[l.m]]
n = 2
[[l]]
[l.o]
p = { q = { r = true } }
'''
    places = _Places(text)
    lines = {
        ("a",): 2,
        ("b", "c"): 4,
        ("b", "c", 0, 1): 5,
        ("b", "c", 1, "d e"): 5,
        ("b", "c", 1, "g"): 5,
        ("b", "c", 2): 7,
        ("h", "i.j", "k"): 9,
        ("l", 0, "m", 0, "n"): 12,
        ("l", 0, "m", 1, "n"): 15,
        ("l", 1, "o", "p", "q", "r"): 18,
        ("l", 1, "absent"): 16,
        ("nothing",): 1,
    }
    assert {path: places.line_of(path) for path in lines} == lines
    assert set(leaves(tomllib.loads(text))) <= places._found.keys()


def test_a_law_of_its_own_is_read_from_the_named_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    law = tmp_path / "law.toml"
    law.write_text(SHIPPED.replace('version = "', 'version = "mine-'), encoding="utf-8")
    monkeypatch.setenv("WASL_TARIFF", str(law))
    tariff.cache_clear()
    try:
        assert tariff().version.startswith("mine-")
        tariff.cache_clear()
        law.write_bytes(b"\xff")
        with pytest.raises(Unusable, match=r"law\.toml cannot be read: it is not UTF-8"):
            tariff()
    finally:
        monkeypatch.undo()
        tariff.cache_clear()
