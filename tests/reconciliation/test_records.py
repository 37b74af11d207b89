"""The institution's files: read strictly, applied once, refused where they cannot be trusted."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest

from gateway.csvfiles import BadLine, ImportResult
from gateway.db import execute, snapshot, transaction
from gateway.errors import Unusable
from reconciliation.records import COLUMNS, TEXT_MAX, import_records
from tests.reconciliation.factories import NOW, a_file, a_line, a_reference, asked, how_many

pytestmark = pytest.mark.usefixtures("database")

CNSS = 123_456_789


def load(path: Path) -> ImportResult:
    return import_records(path, now=NOW)


def counts(result: ImportResult) -> tuple[int, int, int, int]:
    assert result.read == result.loaded + result.unchanged + len(result.rejected)
    return result.read, result.loaded, result.unchanged, len(result.rejected)


def test_a_good_file_loads_and_the_same_file_again_changes_nothing(tmp_path: Path) -> None:
    path = a_file(
        tmp_path / "records.csv",
        a_line(record_id="R1"),
        a_line(record_id="R2", amount="-0.50", name="", cin="", period="2026-Q4"),
        trailer=(2, "163.02", 2 * CNSS),
    )

    first, second = load(path), load(path)

    assert first.as_json() == {"read": 2, "loaded": 2, "unchanged": 0, "rejected": []}
    assert second.as_json() == {"read": 2, "loaded": 0, "unchanged": 2, "rejected": []}
    assert how_many("record_file", "lines = 2") == 1
    with transaction() as session:
        stored = execute(
            session,
            "SELECT cin, name, period, amount_minor, reverses_id FROM institution_record"
            " WHERE record_id = 'R2'",
        ).one()
    assert tuple(stored) == (None, None, "2026-Q4", -50, None)


def test_the_same_records_in_another_file_are_unchanged(tmp_path: Path) -> None:
    line = a_line(record_id="R1", reference=a_reference(7))
    load(a_file(tmp_path / "1.csv", line))
    reference = line["reference"]
    spelt_otherwise = line | {
        "amount": "0163.52",
        "reference": f"{reference[:4]} {reference[4:8]} {reference[8:]}",
    }

    result = load(a_file(tmp_path / "2.csv", spelt_otherwise, a_line()))

    assert counts(result) == (2, 1, 1, 0)
    assert asked() == []


def test_columns_stand_in_any_order_and_only_four_must(tmp_path: Path) -> None:
    columns = ("posted_on", "amount", "record_id", "reference")
    path = a_file(tmp_path / "r.csv", a_line(), a_line(), columns=columns, trailer=(2, "327.04", 0))
    assert counts(load(path)) == (2, 2, 0, 0)


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("mark", [False, True])
def test_byte_order_mark_and_semicolon_are_read(tmp_path: Path, delimiter: str, mark: bool) -> None:
    path = a_file(tmp_path / "r.csv", a_line(), a_line(), delimiter=delimiter, mark=mark)
    assert counts(load(path)) == (2, 2, 0, 0)


def test_a_reference_that_cannot_be_read_is_kept_as_given(tmp_path: Path) -> None:
    load(a_file(tmp_path / "r.csv", a_line(record_id="R1", reference="cotisation nov.")))
    with transaction() as session:
        kept = execute(session, "SELECT reference_given, reference FROM institution_record").one()
    assert tuple(kept) == ("cotisation nov.", None)


BAD: dict[str, tuple[dict[str, str], str]] = {
    "no id": ({"record_id": ""}, "record_id is empty"),
    "an id that cannot be seen": (
        {"record_id": "R\u200f1"},
        "record_id holds a character that cannot be seen",
    ),
    "no such day": ({"posted_on": "2026-02-30"}, "posted_on is not a day"),
    "a day by the week": ({"posted_on": "2026-W47-3"}, "posted_on is not a day"),
    "a day without hyphens": ({"posted_on": "20261119"}, "posted_on is not a day"),
    "a month 13": ({"period": "2026-13"}, "period is neither"),
    "a period in words": ({"period": "novembre"}, "period is neither"),
    "a long name": ({"name": "x" * (TEXT_MAX + 1)}, f"name is longer than {TEXT_MAX}"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_set_aside_and_its_neighbours_load(tmp_path: Path, case: str) -> None:
    fields, reason = BAD[case]
    lines = (a_line(), a_line(**fields), a_line())
    # The trailer counts the bad line too.
    path = a_file(tmp_path / "r.csv", *lines, trailer=(3, "490.56", 3 * CNSS))

    result, again = load(path), load(path)

    assert counts(result) == (3, 2, 0, 1)
    assert result.rejected[0].line == 3
    assert reason in result.rejected[0].reason
    assert counts(again) == (3, 0, 2, 1)
    assert how_many("institution_record") == 2


@pytest.mark.parametrize("amount", ["", "abc", "163,52", "1e3", "163.525", "NaN", "٣", "+1"])
def test_an_amount_that_is_none_refuses_the_whole_file(tmp_path: Path, amount: str) -> None:
    path = a_file(tmp_path / "r.csv", a_line(), a_line(record_id="", amount=amount), delimiter=";")
    with pytest.raises(Unusable, match=r"^r\.csv, line 3: the amount .*the whole file is refused"):
        load(path)
    assert how_many("institution_record") == how_many("record_file") == 0


@pytest.mark.parametrize("amount", ["0", "0.00", "-0"])
def test_a_record_of_nothing_is_set_aside_and_its_neighbours_load(
    database: str, tmp_path: Path, amount: str
) -> None:
    path = a_file(tmp_path / "r.csv", a_line(amount=amount), a_line())
    result = load(path)
    assert counts(result) == (2, 1, 0, 1)
    assert result.rejected == [BadLine(2, "the amount is zero")]


@pytest.mark.parametrize("broken", [b"R9,1,2\n", b'R9,"open,1\n', b"R9,\xff,,,,,1.00,,,\n"])
def test_a_line_whose_fields_cannot_be_told_apart_refuses_the_whole_file(
    tmp_path: Path, broken: bytes
) -> None:
    path = a_file(tmp_path / "r.csv", a_line())
    path.write_bytes(path.read_bytes() + broken)
    with pytest.raises(Unusable, match=r"line 3: no amount can be read \("):
        load(path)
    assert how_many("institution_record") == 0


TRAILERS: dict[str, tuple[tuple[object, ...], str]] = {
    "count": ((3, "327.04", 2 * CNSS), r"says 3 data lines, the file has 2"),
    "amounts": ((2, "327.05", 2 * CNSS), r"says 327\.05 as the sum of amounts.* has 327\.04"),
    "numbers": ((2, "327.04", 5), rf"says 5 as the sum of CNSS.* has {2 * CNSS}"),
    "too short": ((2, "327.04"), r"a trailer has a count and two sums"),
    "too long": ((2, "327.04", 2 * CNSS, "x"), r"a trailer has a count and two sums"),
    "unreadable": ((2, "327,04", 2 * CNSS), r"cannot be read"),
    "not a count": (("two", "327.04", 2 * CNSS), r"cannot be read"),
}


@pytest.mark.parametrize("case", TRAILERS)
def test_a_trailer_that_does_not_agree_refuses_the_whole_file(tmp_path: Path, case: str) -> None:
    trailer, message = TRAILERS[case]
    path = a_file(tmp_path / "r.csv", a_line(), a_line(), trailer=trailer)
    with pytest.raises(Unusable, match=rf"^r\.csv, line 4: .*{message}.*refused\.$"):
        load(path)
    assert how_many("institution_record") == how_many("record_file") == 0


def test_a_trailer_may_be_padded_and_its_sum_far_beyond_any_amount(tmp_path: Path) -> None:
    most = "10000000000.00"
    path = a_file(
        tmp_path / "r.csv",
        a_line(amount=most),
        a_line(amount=most, cnss_number=""),
        trailer=(2, "20000000000", CNSS, "", "", ""),
    )
    assert counts(load(path)) == (2, 2, 0, 0)


def test_nothing_may_follow_the_trailer(tmp_path: Path) -> None:
    path = a_file(tmp_path / "r.csv", a_line(), trailer=(1, "163.52", CNSS))
    whole = path.read_bytes()
    for more in (whole.splitlines(keepends=True)[1], whole.splitlines(keepends=True)[2], b"x\n"):
        path.write_bytes(whole + more)
        with pytest.raises(Unusable, match="line 4: there is more after the trailer of line 3"):
            load(path)
    assert how_many("institution_record") == 0
    path.write_bytes(whole + b"\r\n\n")
    assert counts(load(path)) == (1, 1, 0, 0)


def test_the_first_of_two_contents_stands_and_a_person_is_asked(tmp_path: Path) -> None:
    first = a_line(record_id="R1", reference=a_reference(1), name="BENNANI SALMA")
    other = first | {
        "reference": a_reference(2),
        "amount": "20.00",
        "name": "ALAOUI OMAR",
        "cin": "ZZ999",
        "cnss_number": "987654321",
    }
    load(a_file(tmp_path / "1.csv", first))

    path = a_file(tmp_path / "2.csv", other, a_line())
    result = load(path)

    assert counts(result) == (2, 1, 0, 1)
    assert [(bad.line, bad.reason) for bad in result.rejected] == [
        (2, "its record_id is known with another reference, cnss_number, cin, name, amount")
    ]
    assert asked() == [("conflicting_record", "record:R1")]
    with transaction() as session:
        detail = execute(session, "SELECT detail FROM coded_exception").scalar_one()
        stands = execute(
            session, "SELECT amount_minor FROM institution_record WHERE record_id = 'R1'"
        ).scalar_one()
    assert stands == 16_352
    assert detail["known"] == {"reference": first["reference"], "amount": "163.52"}
    assert detail["set_aside"] == {"reference": other["reference"], "amount": "20.00"}
    assert not {"ALAOUI", "BENNANI", "ZZ999", "987654321"} & set(str(detail).split("'"))


def test_a_conflict_that_a_person_closed_is_not_opened_by_the_same_file(tmp_path: Path) -> None:
    load(a_file(tmp_path / "1.csv", a_line(record_id="R1")))
    path = a_file(tmp_path / "2.csv", a_line(record_id="R1", reference="EL AMRANI FATIMA"))
    load(path)
    with transaction() as session:
        detail = execute(session, "SELECT detail FROM coded_exception").scalar_one()
        assert detail["set_aside"] == {"reference": None}
        execute(session, "UPDATE coded_exception SET resolved_at = now(), resolution = 'a mistake'")

    again = load(path)

    assert counts(again) == (1, 0, 0, 1)
    assert asked() == []


def test_two_contents_within_one_file_conflict_and_equal_lines_do_not(tmp_path: Path) -> None:
    line = a_line(record_id="R1")
    path = a_file(tmp_path / "r.csv", line, line, line | {"amount": "1"}, line | {"period": ""})

    result = load(path)

    assert counts(result) == (4, 1, 1, 2)
    assert [bad.line for bad in result.rejected] == [4, 5]
    assert asked() == [("conflicting_record", "record:R1")]
    assert how_many("institution_record", "amount_minor = 16352 AND period = '2026-11'") == 1


@pytest.mark.parametrize("missing", ["record_id", "reference", "amount", "posted_on"])
def test_a_header_without_a_needed_column_is_refused(tmp_path: Path, missing: str) -> None:
    columns = tuple(column for column in COLUMNS if column != missing)
    with pytest.raises(Unusable, match=f"line 1: the header lacks the column {missing}"):
        load(a_file(tmp_path / "r.csv", a_line(), columns=columns))


def test_a_file_that_is_not_there_is_one_plain_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(Unusable, match=r"cannot be read: .*\.$"):
            load(path)


def test_fifty_thousand_lines_load_with_their_progress_told(tmp_path: Path) -> None:
    lines = [a_line(record_id=f"R{n}") for n in range(50_000)]
    path = a_file(tmp_path / "r.csv", *lines, trailer=(50_000, "8176000.00", 50_000 * CNSS))
    told: list[int] = []

    result = import_records(path, now=NOW, progress=told.append)

    assert counts(result) == (50_000, 50_000, 0, 0)
    assert told == sorted(told)
    assert told[-1] == 50_000
    assert how_many("institution_record", "reference IS NOT NULL") == 50_000


def test_two_imports_at_once_load_each_record_once(tmp_path: Path) -> None:
    lines = [a_line(record_id=f"R{n}") for n in range(2_000)]
    paths = [
        a_file(tmp_path / "1.csv", *lines),
        a_file(tmp_path / "2.csv", *reversed(lines)),
        a_file(tmp_path / "3.csv", *lines),
    ]
    results: list[ImportResult] = []
    threads = [Thread(target=lambda p=path: results.append(load(p))) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(counts(result) for result in results) == [
        (2_000, 0, 2_000, 0),
        (2_000, 0, 2_000, 0),
        (2_000, 2_000, 0, 0),
    ]
    assert how_many("record_file") == 2


@pytest.mark.parametrize(
    "found",
    [
        "FROM invoice i JOIN institution_record found ON found.reference = i.reference",
        "FROM institution_record r JOIN invoice found ON found.reference = r.reference",
    ],
)
def test_rows_of_one_reference_are_found_by_an_index(found: str) -> None:
    with snapshot() as session:
        # Few rows are here: only ways that look at every one of them are left out.
        for way in ("seqscan", "hashjoin", "mergejoin"):
            execute(session, f"SET LOCAL enable_{way} = off")
        other = found.split()[2]
        plan = execute(session, f"EXPLAIN SELECT found.id {found} WHERE {other}.id = 1")
        lines = "\n".join(plan.scalars())
    assert "Index Cond: ((reference)::text = " in lines, lines
