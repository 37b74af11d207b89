"""Places and numbers of Morocco: known ones in one form, odd ones with a warning, none refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum.ma import ice as stdnum_ice

from gateway.api.access import recognise
from gateway.db import execute, transaction
from gateway.dues.tariff import tariff
from gateway.models import Role
from gateway.people.imports import WARNINGS_MAX, EnrolmentResult, import_contributors
from gateway.people.reading import Wrong
from gateway.registers.numbers import cin_is_usual, cnss_number_checks, read_ice, read_rib
from gateway.registers.phones import phone_is_possible, read_phone
from gateway.registers.places import as_region, chambers, read_place
from gateway.staff import create_key
from tests.factories import NOON, a_contributor

HEADER = (
    "cnss_number,family_name,given_name,category,registered_on,"
    "cin,phone,region,province,commune,chamber,ice"
)


def test_every_region_has_its_chamber_and_no_source_was_seen_for_it() -> None:
    assert chambers().verified is False
    kept = {read_place(f"{n:02d}", "", "", f"{n:02d}").chamber for n in range(1, 13)}
    assert len(kept) == 12


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("Fès-Meknès", "Fès-Meknès"),
        ("FES MEKNES", "Fès-Meknès"),
        ("فاس-مكناس", "Fès-Meknès"),
        ("03", "Fès-Meknès"),
        ("الدار البيضاء سطات", "Casablanca-Settat"),
        (" oriental ", "Oriental"),
        ("Atlantis", "Atlantis"),
        ("", ""),
    ],
)
def test_a_region_has_one_spelling(written: str, kept: str) -> None:
    assert as_region(written) == kept


@pytest.mark.parametrize(
    ("written", "kept", "odd"),
    [
        (("03", "fes", "Fès", "chambre d’artisanat de fès meknès"), "03.231.01.0", []),
        (("", "طنجة أصيلة", "طنجة", ""), "01.511.01.0", []),
        (("06", "Aïn-Chock", "casablanca", ""), "06.141.01.0", []),
        (("", "", "01.511.01.0", ""), "01.511.01.0", []),
        # Two communes are called so, in two provinces.
        (("", "", "Ajdir", ""), "Ajdir", ["commune"]),
        (("", "Taza", "Ajdir", ""), "03.561.03.01", []),
        (("01", "Taza", "Ajdir", "03"), "03.561.03.01", ["province", "chamber"]),
        (("Atlantis", "Lemuria", "Mu", "Ys"), "Mu", ["region", "province", "chamber", "commune"]),
    ],
)
def test_a_place_is_known_or_warned_of(
    written: tuple[str, str, str, str], kept: str, odd: list[str]
) -> None:
    place = read_place(*written)
    assert place.commune == kept
    assert [column for column, _ in place.warnings] == odd


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_what_is_kept_is_kept_again(region: str, province: str, commune: str, ours: str) -> None:
    once = read_place(region, province, commune, ours)
    again = read_place(
        once.region or "", once.province or "", once.commune or "", once.chamber or ""
    )
    assert again == once


def test_check_digits() -> None:
    # e-BDS: 1 then 2+4+6+8 twice, 3+5+7 once.
    assert cnss_number_checks("123456785")
    assert not cnss_number_checks("123456782")
    assert not cnss_number_checks("223456785")
    assert not cnss_number_checks("100000000")
    # The account of the example in many bank letters: 011 780 0000012100023456 and its key.
    body = "0117800000012100023456"
    key = 97 - int(body) * 100 % 97
    assert read_rib(f"{body}{key:02d}") == f"{body}{key:02d}"
    assert int(f"{body}{key:02d}") % 97 == 0  # the same, said in another way
    assert cin_is_usual("AB123456")
    assert not cin_is_usual("ABC12345")


@given(st.integers(0, 10**13 - 1), st.integers(0, 99))
def test_an_ice_is_judged_as_another_library_does(body: int, check: int) -> None:
    written = f"{body:013d}{check:02d}"
    try:
        assert read_ice(written) == written
        taken = True
    except ValueError:
        taken = False
    assert taken is stdnum_ice.is_valid(written)


@pytest.mark.parametrize(
    "wrong", ["001234567000063", "12345678901234", "00123456700006x", "٠" * 15]
)
def test_an_ice_that_does_not_verify_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="ice "):
        read_ice(wrong)


@pytest.mark.parametrize("wrong", ["0" * 24, "1" * 23, "0117800000012100023456xx"])
def test_a_rib_that_does_not_verify_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="rib "):
        read_rib(wrong)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("", None),
        ("06.12-34 56 78", "+212612345678"),
        ("00212512345678", "+212512345678"),
        ("+212(0)612345678", "+212612345678"),
        ("٠٦١٢٣٤٥٦٧٨", "+212612345678"),
        ("+33 6 12 34 56 78", "+33612345678"),
        ("0033612345678", "+33612345678"),
        ("+3361234567", "+3361234567"),
    ],
)
def test_a_telephone_number_has_one_form(written: str, kept: str | None) -> None:
    assert read_phone(written) == kept


@pytest.mark.parametrize("wrong", ["12", "0412345678", "06123456789", "+1 800 FLOWERS", "+"])
def test_what_is_no_telephone_number_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="phone is neither a Moroccan number nor one with its"):
        read_phone(wrong)


def test_a_length_that_a_country_does_not_use_is_odd() -> None:
    assert not phone_is_possible("+3361234567")
    assert phone_is_possible("+33612345678")


def load(tmp_path: Path, *lines: str) -> EnrolmentResult:
    file = tmp_path / "people.csv"
    file.write_text("\n".join([HEADER, *lines]), encoding="utf-8")
    return import_contributors(file, tariff(), now=NOON)


def test_an_import_warns_of_what_is_odd_and_loads_it(database: str, tmp_path: Path) -> None:
    good = "123456785,Tazi,Omar,artisan-untaxed,2022-01-01"
    odd = "999999999,Zniber,Houda,artisan-untaxed,2022-01-01"
    answer = load(
        tmp_path,
        f"{good},AB1234,0612345678,fes meknes,FES,Fès,03,001234567000062",
        f"{odd},QWE98765,+3361234567,Atlantis,Taza,Ajdir,03,",
        f"{odd.replace('999999999', '123456784')},,,,,,,001234567000061",
    )
    assert (answer.read, answer.loaded, answer.warned) == (3, 2, 4)
    (rejected,) = answer.rejected
    assert (rejected.line, rejected.reason.split()[0]) == (4, "ice")
    assert [(each.line, each.reason.split()[0]) for each in answer.warnings] == [
        (3, "region"),
        (3, "cnss_number"),
        (3, "cin"),
        (3, "phone"),
    ]
    said = " ".join(each.reason for each in answer.warnings)
    assert not {"Zniber", "QWE98765", "Atlantis"} & set(said.split())
    with transaction() as session:
        rows = execute(
            session,
            "SELECT region, province, commune, chamber, ice FROM contributor ORDER BY cnss_number",
        ).all()
    assert rows[0] == (
        "Fès-Meknès",
        "Fès",
        "03.231.01.0",
        "Chambre d'artisanat Fès-Meknès",
        "001234567000062",
    )
    assert rows[1][:3] == ("Atlantis", "Taza", "03.561.03.01")


def test_an_import_warns_of_odd_days_bases_and_papers(database: str, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    lines = (
        "cnss_number,family_name,given_name,category,registered_on,category_since,category_base,cin",
        "123456785,Tazi,Omar,artisan-untaxed,1890-01-01,,,AB1234",
        "123456784,Tazi,Omar,artisan-untaxed,2022-01-01,2021-01-01,400.00,",
        "123456793,Tazi,Omar,artisan-untaxed,2022-01-01,,,AB1234",
        "123456777,Tazi,Omar,artisan-untaxed,2035-01-01,,,",
        "123456769,Tazi,Omar,artisan-untaxed,2022-01-01,2030-01-01,,",
    )
    file.write_text("\n".join(lines), encoding="utf-8")
    answer = import_contributors(file, tariff(), now=NOON)
    about = [(each.line, each.reason) for each in answer.warnings if "verify" not in each.reason]
    assert [(line, reason.split()[0]) for line, reason in about] == [
        (2, "registered_on"),
        (2, "cin"),
        (3, "category_base"),
        (3, "category_since"),
        (4, "cin"),
    ]
    assert [(each.line, each.reason) for each in answer.rejected] == [
        (5, "registered_on is more than a year ahead: compare its year"),
        (6, "category_since is more than a year ahead: compare its year"),
    ]


def test_warnings_are_counted_beyond_what_is_listed() -> None:
    result = EnrolmentResult()
    for line in range(2, 2 * WARNINGS_MAX):
        result.warn(line, [Wrong("cin", "odd")] * 2)
    assert (len(result.warnings), result.warned) == (WARNINGS_MAX, 4 * WARNINGS_MAX - 4)


def test_a_chamber_sees_its_region_however_either_was_spelt(database: str, tmp_path: Path) -> None:
    with transaction() as session:
        before = a_contributor(session, region="FES MEKNES").id
        key = create_key(session, Role.CHAMBER, now=NOON, scope="فاس-مكناس")
        old = create_key(session, Role.CHAMBER, now=NOON, scope="Fès-Meknès")
        execute(
            session, "UPDATE api_key SET scope = 'Fes Meknes' WHERE id = :id", {"id": old[5:21]}
        )
    load(tmp_path, "123456785,Tazi,Omar,artisan-untaxed,2022-01-01,,,03,,,,")

    for each in (key, old):
        scope = recognise(_request_with(each)).scope
        with transaction() as session:
            rows = execute(
                session, "SELECT id FROM contributor WHERE region = :scope", {"scope": scope}
            )
            seen = set(rows.scalars())
        assert len(seen) == 2
        assert before in seen


def _request_with(key: str) -> Any:
    from starlette.requests import Request

    header = (b"authorization", f"Bearer {key}".encode())
    return Request({"type": "http", "headers": [header], "client": ("127.0.0.1", 1)})
