from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gateway.db import execute, transaction
from gateway.dues.tariff import tariff
from gateway.errors import Unusable
from gateway.people.contributors import change
from gateway.people.imports import import_contributors
from tests.factories import NOON

HEADER = "cnss_number,family_name,given_name,category,category_base,registered_on,left_on,phone,cin"
GOOD = "123456785,El Amrani,Fatima,artisan-untaxed,,2022-01-01,,0612345678,ab123456"


def load(tmp_path: Path, lines: Iterable[str], header: str = HEADER) -> dict[str, Any]:
    file = tmp_path / "contributors.csv"
    file.write_text("\n".join([header, *lines]), encoding="utf-8")
    return import_contributors(file, tariff(), now=NOON).as_json()


def stored() -> list[dict[str, Any]]:
    with transaction() as session:
        rows = execute(session, "SELECT * FROM contributor ORDER BY cnss_number").mappings()
        return [dict(row) for row in rows]


def test_a_person_is_enrolled_with_what_the_file_says(database: str, tmp_path: Path) -> None:
    answer = load(tmp_path, [GOOD])
    nothing: list[Any] = []
    assert answer == {
        "read": 1,
        "loaded": 1,
        "unchanged": 0,
        "rejected": nothing,
    }
    (person,) = stored()
    assert (person["phone"], person["cin"]) == ("+212612345678", "AB123456")
    assert (person["language"], person["left_on"]) == (None, None)


def test_the_same_file_again_changes_nothing(database: str, tmp_path: Path) -> None:
    load(tmp_path, [GOOD])
    before = stored()
    assert load(tmp_path, [GOOD])["unchanged"] == 1
    assert stored() == before


def test_other_content_brings_a_person_up_to_date(database: str, tmp_path: Path) -> None:
    load(tmp_path, [GOOD])
    answer = load(tmp_path, [GOOD.replace("artisan-untaxed,", "cpu,420.00")])
    assert (answer["loaded"], answer["unchanged"]) == (1, 0)
    (person,) = stored()
    assert (person["category_code"], person["category_base_minor"]) == ("cpu", 42000)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("123456785", "12345678", "nine digits"),
        ("123456785", "", "cnss_number is empty"),
        ("123456785", "١٢٣٤٥٦٧٨٥", "nine digits"),
        ("El Amrani", "", "family_name is empty"),
        ("artisan-untaxed", "baker", "none of the tariff's"),
        ("artisan-untaxed", "cpu", "needs one"),
        ("artisan-untaxed,", "cpu,4.205", "category_base"),
        ("artisan-untaxed,", "cpu,-4", "negative"),
        ("2022-01-01", "01/01/2022", "registered_on is not a day"),
        ("2022-01-01", "2022-02-30", "registered_on is not a day"),
        ("2022-01-01", "20220101", "registered_on is not a day"),
        ("2022-01-01", "2022-W01-1", "registered_on is not a day"),
        ("artisan-untaxed", "Tazi Omar", "none of the tariff's"),
        ("2022-01-01,", "2022-01-01,2021-12-31", "left_on is before"),
        ("0612345678", "12", "phone"),
        ("ab123456", "ab-1", "cin"),
        ("Fatima", "F" * 121, "given_name is longer"),
    ],
)
def test_a_bad_line_is_set_aside_and_its_neighbours_load(
    database: str, tmp_path: Path, old: str, new: str, word: str
) -> None:
    neighbour = GOOD.replace("123456785", "223456782")
    answer = load(tmp_path, [GOOD.replace(old, new, 1), neighbour])
    (rejected,) = answer["rejected"]
    assert rejected["line"] == 2
    assert word in rejected["reason"]
    assert [person["cnss_number"] for person in stored()] == ["223456782"]


def test_reasons_tell_nobody_who_it_is(database: str, tmp_path: Path) -> None:
    line = "99999,Zniber,Houda,baker,,x,y,0699,ZZZ-9"
    assert not {"99999", "Zniber", "Houda", "0699", "ZZZ"} & set(
        load(tmp_path, [line])["rejected"][0]["reason"].replace(",", " ").split()
    )


def test_a_number_twice_in_a_file(database: str, tmp_path: Path) -> None:
    answer = load(tmp_path, [GOOD, GOOD, GOOD.replace("Fatima", "Houda")])
    assert (answer["loaded"], answer["unchanged"]) == (1, 1)
    (rejected,) = answer["rejected"]
    assert rejected["line"] == 4
    assert "line 2" in rejected["reason"]
    assert stored()[0]["given_name"] == "Fatima"


def test_counts_add_up_and_a_large_file_is_read(database: str, tmp_path: Path) -> None:
    lines = [GOOD.replace("123456785", f"{500_000_000 + n}") for n in range(20_000)]
    lines[7_000] = "broken"
    answer = load(tmp_path, lines)
    assert answer["read"] == 20_000
    assert answer["loaded"] + answer["unchanged"] + len(answer["rejected"]) == answer["read"]
    assert answer["rejected"][0]["line"] == 7_002


def test_what_is_written_alike_is_one_text(database: str, tmp_path: Path) -> None:
    line = GOOD.replace("Fatima", unicodedata.normalize("NFD", "Zoé"))
    load(tmp_path, [line])
    assert stored()[0]["given_name"] == unicodedata.normalize("NFC", "Zoé")


def test_a_change_holds_up_no_invoice_and_no_import(database: str, tmp_path: Path) -> None:
    load(tmp_path, [GOOD])
    (person,) = stored()
    with transaction() as session:
        assert change(session, person["id"], {"region": "Oriental"}, tariff(), now=NOON)
        with transaction() as other:
            execute(other, "SELECT FROM category FOR UPDATE NOWAIT")
            # As the key of an invoice's contributor is looked at.
            execute(other, "SELECT FROM contributor FOR KEY SHARE NOWAIT")


def test_a_missing_column_is_a_sentence(database: str, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="registered_on"):
        load(tmp_path, [], header="cnss_number,family_name,given_name,category")
