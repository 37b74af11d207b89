"""What each format's files are read as, and what is refused, by the published cases and by ours."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import date
from pathlib import Path
from typing import Any, Final

import mt940 as other_reader
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Unusable
from gateway.money import format_amount
from reconciliation.reading import references_in
from reconciliation.sources.agents_csv import read_agents_csv
from reconciliation.sources.dialects import Dialect
from reconciliation.sources.formats import Format, format_of
from reconciliation.sources.statements import SET_ASIDE_MAX, Kind, Statement, StatementLine, Why
from tests.reconciliation.sources.factories import (
    AGENT,
    CAMT,
    GOLDEN,
    MT940,
    RIB,
    a_detail,
    a_notification,
    a_statement,
    agents,
    an_entry,
    camt,
    mt940,
    read,
)

EXPECTED: Final = json.loads((GOLDEN / "settlement.json").read_text("utf-8"))


def one(data: bytes) -> Statement:
    (statement,) = read(data)
    return statement


def signed(statement: Statement) -> list[str]:
    return [format_amount(line.amount_minor) for line in statement.lines]


def aside(statement: Statement) -> list[tuple[Why, str]]:
    return [(each.why, each.reason) for each in statement.set_aside]


def references_of(line: StatementLine) -> set[int]:
    return {each for text in line.texts for each in references_in(text)}


def test_the_samples_are_those_that_the_expected_rows_are_of() -> None:
    for name, sha256 in EXPECTED["sha256"].items():
        assert hashlib.sha256((GOLDEN / name).read_bytes()).hexdigest() == sha256


# -- camt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CAMT.values(), ids=lambda path: path.name)
def test_the_four_camt_samples_give_the_same_rows(path: Path) -> None:
    statement = one(path.read_bytes())
    assert (statement.account, statement.number, statement.currency) == (
        RIB,
        "ST-20261120-01",
        "MAD",
    )
    if "053" in path.name:
        assert statement.opening_minor == 10_000_00
        assert statement.closing_minor == 10_161_15
    rows = EXPECTED["camt_rows_expected_for_all_four_camt_files"]
    assert len(statement.lines) == len(rows) == 4
    for line, row in zip(statement.lines, rows, strict=True):
        assert {
            "entry": str(line.entry),
            "entry_amount": format_amount(abs(line.entry_minor)),
            "dir": "CRDT" if line.entry_minor > 0 else "DBIT",
            "reversal": line.is_reversal,
            "booking": str(line.booked_on),
            "value": str(line.value_on),
            "bank_ref": line.bank_reference,
            "signed": format_amount(line.amount_minor),
        } == {key: row[key] for key in row.keys() & _COMPARED}
        ids = [row[key] for key in ("end_to_end", "tx_id") if key in row]
        assert list(line.payment_ids) == ids
        assert line.return_reason == row.get("return_reason")
        text = row.get("creditor_ref") or row.get("unstructured") or ""
        assert references_of(line) == set(references_in(text))
    kinds = [line.kind for line in statement.lines]
    assert kinds == [Kind.PAYMENT, Kind.PAYMENT, Kind.REVERSAL, Kind.FEE]
    assert "الإدريسي" not in repr(statement), "who paid is nobody's business here"


_COMPARED: Final = {
    *("entry", "entry_amount", "dir", "reversal", "booking", "value", "bank_ref", "signed"),
}

REFUSED: Final = {
    "camt052": "camt.052 is an interim report, nothing in it is final",
    "camt053.v2.all-balance-types": "opens with 1.01, moves 8.85 and closes with 4.04",
    "camt053.v2.five.decimals": "opens with 18.15, moves 8.85 and closes with 27.05",
    "camt053.v2.minimal": "of an account in EUR and has a balance in SEK",
    "camt053.v2.with-account-name": "has no opening booked balance",
    "camt053.v2.with-party-ids": "of an account in EUR and has a balance in SEK",
    "camt053.v2.wrong": "it holds no Stmt",
    "camt053.v3": "of an account in EUR and has a balance in SEK",
    "camt053.v4": "of an account in EUR and has a balance in SEK",
    "camt053.v8": "of an account in EUR and has a balance in SEK",
    "camt53.only-Dt-with-DtTm": "has no closing booked balance",
}
_NO_REFERENCE: Final = "a notification without AcctSvcrRef"
READ: Final[dict[str, list[tuple[list[str], list[str]]]]] = {
    # What each statement's lines come to, and why others are set aside.
    "camt053.v2.multi.statement": [(["8.85"], []), (["-7.00"], [])],
    "camt054.v2": [(["-200000.00"], [])],
    "camt054.v4": [(["-200000.00"], [])],
    "camt054.v8": [(["-200000.00"], [])],
    "camt054.v8-with-financial-institution": [(["-200000.00"], [])],
    "camt054.v2.with-account-name": [([], [_NO_REFERENCE])],
    "camt054.v8-with-UETR": [([], [_NO_REFERENCE])],
}


@pytest.mark.parametrize("path", sorted((GOLDEN / "genkgo").glob("*.xml")), ids=lambda p: p.name)
def test_each_public_file_is_read_or_refused_with_its_reason(path: Path) -> None:
    if (expected := READ.get(path.stem)) is not None:
        statements = read(path.read_bytes())
        assert [signed(each) for each in statements] == [amounts for amounts, _ in expected]
        for statement, (_, reasons) in zip(statements, expected, strict=True):
            assert len(statement.set_aside) == len(reasons)
            for each, reason in zip(statement.set_aside, reasons, strict=True):
                assert reason in each.reason
        return
    reason = next(why for name, why in REFUSED.items() if path.stem.startswith(name))
    with pytest.raises(Unusable, match=re.escape(reason)) as refusal:
        read(path.read_bytes(), path.name)
    assert re.match(rf"{re.escape(path.name)}, line \d+: .*; the whole file is refused\.$",
                    str(refusal.value))  # fmt: skip


def test_every_public_file_has_its_case() -> None:
    assert len(list((GOLDEN / "genkgo").glob("*.xml"))) == 26


def test_details_that_do_not_come_to_the_movement_leave_it_whole() -> None:
    for details, said in (
        ((a_detail("60.00"), a_detail("39.99")), 99_99),
        ((a_detail("60.00"), a_detail(None)), 60_00),
        ((a_detail(None), a_detail(None)), 0),
    ):
        (line,) = one(camt(a_statement(an_entry(details=details), closing="100.00"))).lines
        assert (line.amount_minor, line.transaction, line.details_minor) == (100_00, 0, said)
    two = (a_detail("60.00"), a_detail("40.00"))
    three = an_entry(details=two, batch_of=3)
    (line,) = one(camt(a_statement(three, closing="100.00"))).lines
    assert (line.transaction, line.batch_of, line.details_minor) == (0, 3, 100_00)
    statement = one(camt(a_statement(an_entry(details=two), closing="100.00")))
    assert signed(statement) == ["60.00", "40.00"]


def test_the_only_detail_of_a_movement_needs_no_amount() -> None:
    entry = an_entry(details=[a_detail(None, "P-1")])
    (line,) = one(camt(a_statement(entry, closing="100.00"))).lines
    assert (line.amount_minor, line.payment_ids, line.details_minor) == (100_00, ("P-1",), None)


def test_only_what_is_booked_is_money() -> None:
    entries = (an_entry(), an_entry("7.00", status="PDNG"), an_entry("8.00", status="INFO"))
    statement = one(camt(a_statement(*entries, closing="100.00")))
    assert signed(statement) == ["100.00"]
    assert [why for why, _ in aside(statement)] == [Why.NOT_BOOKED] * 2


def test_a_reversal_is_booked_as_its_indicator_says() -> None:
    entries = (an_entry("5.00", "DBIT", reversal="true"), an_entry("3.00", reversal="true"))
    statement = one(camt(a_statement(*entries, opening="10.00", closing="8.00")))
    assert signed(statement) == ["-5.00", "3.00"]
    assert [line.kind for line in statement.lines] == [Kind.REVERSAL, Kind.OTHER]


def test_decimals_behind_the_centimes_must_say_nothing() -> None:
    statement = one(camt(a_statement(an_entry("100.00000"), closing="100.0")))
    assert signed(statement) == ["100.00"]
    notice = one(camt(a_notification(an_entry("100.005"), an_entry("1.00", reference="BR-2"))))
    assert signed(notice) == ["1.00"]
    assert aside(notice) == [
        (
            Why.AMOUNT,
            "entry 1: its amount cannot be read as one with a currency and two decimals",
        )
    ]


def test_a_day_is_the_one_in_casablanca() -> None:
    late = an_entry().replace("<Dt>2026-11-20</Dt>", "<DtTm>2026-11-19T23:30:00.123456789Z</DtTm>")
    (line,) = one(camt(a_notification(late))).lines
    assert line.booked_on == date(2026, 11, 20)


def test_each_statement_is_kept_to_its_own_account() -> None:
    iban = f"MA64{RIB}"
    first = a_statement(an_entry(), closing="100.00").replace(
        f"<Othr><Id>{RIB}</Id></Othr>", f"<IBAN>{iban}</IBAN>"
    )
    second = a_statement(an_entry("2.00"), closing="2.00", account="9" * 24, number="ST-2")
    statements = read(camt(first, second))
    assert [(s.account, signed(s)) for s in statements] == [(RIB, ["100.00"]), ("9" * 24, ["2.00"])]


def test_what_a_movement_with_several_payments_says_of_all_is_said_of_none() -> None:
    details = (a_detail("60.00", text="100000000190"), a_detail("40.00"))
    for some, found in ((details, [{100000000190}, set()]), ((), [{148275036141}])):
        entry = an_entry(details=some, text="AMO 148275036141")
        lines = one(camt(a_statement(entry, closing="100.00"))).lines
        assert [references_of(line) for line in lines] == found


def test_a_batch_of_more_than_can_be_is_of_nobody_knows_how_many() -> None:
    batches = "<Btch><NbOfTxs>999999999</NbOfTxs></Btch></NtryDtls><NtryDtls>" * 3
    entry = an_entry(batch_of=1).replace("<NtryDtls>", f"<NtryDtls>{batches}")
    (line,) = one(camt(a_statement(entry, closing="100.00"))).lines
    assert line.batch_of is None


def test_an_amount_holds_nothing_but_itself() -> None:
    entry = an_entry("1<x/>00.00")
    ((why, said),) = aside(one(camt(a_notification(entry))))
    assert (why, "its amount cannot be read" in said) == (Why.AMOUNT, True)
    (line,) = one(camt(a_notification(an_entry("1<!-- x -->00.00")))).lines
    assert line.amount_minor == 100_00


@pytest.mark.parametrize("day", ["0001-01-01", "1899-12-31", "9999-12-31"])
def test_a_day_that_no_bank_writes_cannot_be_read(day: str) -> None:
    ((why, said),) = aside(one(camt(a_notification(an_entry(day=day)))))
    assert (why, said) == (Why.UNREADABLE, "entry 1: its day cannot be read")
    with pytest.raises(Unusable, match="of balance PRCD its day cannot be read"):
        read(camt(a_statement(closing="0.00", opened_on=day).replace("OPBD", "PRCD")))
    written = "/".join(reversed(day.split("-")))
    ((why, said),) = aside(one(agents(LINE.replace("19/11/2026", written), total="172,50",
                                      fees="2,00")))  # fmt: skip
    assert (why, said) == (Why.UNREADABLE, "date_operation is no day written as dd/mm/yyyy")


def test_a_page_of_a_statement_leads_between_its_balances() -> None:
    page = "<StmtPgntn><PgNb>1</PgNb><LastPgInd>false</LastPgInd></StmtPgntn>"
    first = a_statement(an_entry(), closing="100.00", more=page).replace("CLBD", "ITBD")
    assert one(camt(first)).number == "ST-1/1"
    with pytest.raises(Unusable, match="no closing booked balance"):
        read(camt(first.replace(page, "")))


CAMT_REFUSED: Final = {
    "does not add up": (a_statement(an_entry(), closing="100.01"), "do not add up"),
    "an unreadable amount": (
        a_statement(an_entry("1e2"), closing="100.00"),
        "entry 1: its amount cannot be read .* cannot be added up",
    ),
    "a negative amount": (a_statement(an_entry("-1"), closing="-1.00"), "entry 1: its amount"),
    "a movement in another currency": (
        a_statement(an_entry(currency="EUR"), closing="100.00"),
        "entry 1: its amount is in EUR, the account in MAD",
    ),
    "no account": (
        a_statement(closing="0.00").replace(RIB, ""),
        "a statement names no account",
    ),
    "an account without end": (
        a_statement(closing="0.00", account="9" * 200),
        "a statement names no account",
    ),
    "another direction": (
        a_statement(an_entry(sign="BOTH"), closing="100.00"),
        "whether it is a credit or a debit",
    ),
}


@pytest.mark.parametrize("case", CAMT_REFUSED)
def test_a_statement_that_cannot_be_trusted_is_refused(case: str) -> None:
    statement, reason = CAMT_REFUSED[case]
    with pytest.raises(Unusable, match=reason):
        read(camt(statement))


@pytest.mark.parametrize("version", ["01", "09", "13"])
def test_other_versions_are_refused_by_name(version: str) -> None:
    with pytest.raises(Unusable, match=f"version {version} is not read"):
        read(camt(a_statement(closing="0.00"), version=version))


@pytest.mark.parametrize(
    "doctype",
    [
        "<!DOCTYPE Document>",
        '<!DOCTYPE Document SYSTEM "http://127.0.0.1:1/x.dtd">',
        '<!DOCTYPE Document [<!ENTITY e SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE d [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;">]>',
    ],
)
def test_a_doctype_is_refused_and_nothing_is_fetched(doctype: str) -> None:
    entry = an_entry(text="&e;" if "ENTITY e" in doctype else "")
    with pytest.raises(Unusable, match=r"a DOCTYPE has no place|no whole XML document"):
        read(camt(a_statement(entry, closing="100.00"), head=doctype))


# -- MT940 ----------------------------------------------------------------------------------------


def test_the_mt940_sample_gives_the_expected_rows() -> None:
    statement = one(MT940.read_bytes())
    assert (statement.account, statement.number) == (RIB, "00231/001")
    assert (statement.opening_minor, statement.closing_minor) == (10_000_00, 10_161_15)
    rows = EXPECTED["mt940_expected"]
    for line, row in zip(statement.lines, rows, strict=True):
        assert format_amount(line.amount_minor) == row["correct_signed_amount"]
        assert (line.bank_reference, str(line.value_on)) == (
            row["bank_reference"],
            row["value_date"],
        )
        assert str(line.booked_on) == row["entry_date"]
        assert references_of(line) == set(references_in(row["details"])) | set(
            references_in(row["customer_reference"])
        )
    kinds = [line.kind for line in statement.lines]
    assert kinds == [Kind.PAYMENT, Kind.PAYMENT, Kind.REVERSAL, Kind.FEE]


@given(
    movements=st.lists(
        st.tuples(st.sampled_from(["C", "D", "RD"]), st.integers(1, 10**9), st.booleans()),
        max_size=6,
    )
)
@settings(max_examples=60, deadline=None)
def test_another_reader_says_the_same_where_it_is_right(
    movements: list[tuple[str, int, bool]],
) -> None:
    sums = [(1 if mark in {"C", "RD"} else -1) * minor for mark, minor, _ in movements]
    total = sum(sums)
    sign = "D" if total < 0 else "C"
    whole, cents = divmod(abs(total), 100)
    data = mt940(
        *(
            f"2611201120{mark}{'D' if funds else ''}{minor // 100},{minor % 100:02d}NTRFREF//B{at}"
            for at, (mark, minor, funds) in enumerate(movements)
        ),
        closing=f"{sign}261120MAD{whole},{cents:02d}",
    )
    theirs = other_reader.parse(data.decode())
    lines = one(data).lines
    assert [line.amount_minor for line in lines] == sums
    # It gives a reversal of a debit the debit's sign.
    assert [abs(int(each.data["amount"].amount * 100)) for each in theirs] == list(map(abs, sums))
    assert [each.data["bank_reference"] for each in theirs] == [x.bank_reference for x in lines]


@pytest.mark.parametrize(
    ("value", "entry", "booked_on"),
    [
        ("270102", "1231", date(2026, 12, 31)),
        ("261231", "0102", date(2027, 1, 2)),
        ("280301", "0229", date(2028, 2, 29)),
        ("261120", "", date(2026, 11, 20)),
    ],
)
def test_an_entry_day_is_of_the_nearest_year(value: str, entry: str, booked_on: date) -> None:
    (line,) = one(mt940(f"{value}{entry}C1,NTRFX//B", closing="C261231MAD1,")).lines
    assert line.booked_on == booked_on


def test_a_day_that_no_near_year_has_is_set_aside() -> None:
    """The 29th of February is not of the next leap year but one."""
    statement = one(mt940("2703010229C1,NTRFX//B", closing="C270301MAD1,"))
    assert (statement.lines, aside(statement)) == (
        (),
        [(Why.UNREADABLE, "the day of movement 1 cannot be read")],
    )


def test_messages_in_blocks_may_have_trailers_and_follow_at_once() -> None:
    head = b"{1:F01X0000000000}{2:O9401200261120X00000000002611201200N}{3:{108:X}}{4:\r\n"
    bodies = [
        mt940(f"2611201120C{n},NTRFX//B{n}", closing=f"C261120MAD{n},", number=f"{n}/1")[:-3]
        for n in (1, 2)
    ]
    trailer = b"-}{5:{MAC:00000000}{CHK:123456789ABC}}{S:{COP:S}}"
    for between in (b"\r\n", b"", b"$"):
        data = between.join([head + bodies[0] + trailer, head + bodies[1] + trailer])
        assert [signed(each) for each in read(data + b"\r\n")] == [["1.00"], ["2.00"]]
    with pytest.raises(Unusable, match="was cut"):
        read(head + bodies[0] + b"-}{5:{CHK")
    with pytest.raises(Unusable, match="was cut"):
        read(head + bodies[0] + b"-}{5:}" + head)


def test_a_text_of_many_lines_is_read_in_time_that_grows_with_it() -> None:
    text = "\r\n".join(["x" * 30] * 200_000)
    movement = f"2611201120C1,NTRFX//B\r\n:86:{text}"
    with pytest.raises(Unusable, match=r"line 6: field :86: is longer than"):
        read(mt940(movement, closing="C261120MAD1,"))


def test_reversals_have_the_sign_of_what_they_move() -> None:
    marks = ("RC", "RD", "C", "D")
    movements = [f"2611201120{mark}1,NTRFX//B{mark}" for mark in marks]
    statement = one(mt940(*movements, closing="C261120MAD0,"))
    assert signed(statement) == ["-1.00", "1.00", "1.00", "-1.00"]
    kinds = [line.kind for line in statement.lines]
    assert kinds == [Kind.REVERSAL, Kind.OTHER, Kind.PAYMENT, Kind.OTHER]


def test_the_payers_own_id_may_stand_in_the_text() -> None:
    for text in ("?20EREF+AGT-1?21SVWZ+x", "/EREF/AGT-1/REMI/x"):
        movement = f"2611201120C1,NTRFNONREF//B\r\n:86:166{text}"
        (line,) = one(mt940(movement, closing="C261120MAD1,")).lines
        assert line.payment_ids == ("AGT-1",)


def test_what_is_expected_is_not_booked() -> None:
    statement = one(
        mt940("2611201120EC5,NTRFX//B1", "2611201120ED5,NTRFX//B2", closing="C261120MAD0,")
    )
    assert (statement.lines, [why for why, _ in aside(statement)]) == ((), [Why.NOT_BOOKED] * 2)


def test_a_reference_that_a_bank_broke_over_two_lines_is_found() -> None:
    movement = f"2611201120C1,NTRFX//B\r\n:86:{'x' * 52} 1482 7503 6\r\n141 y"
    (line,) = one(mt940(movement, closing="C261120MAD1,")).lines
    assert len(movement.split(":86:")[1].split("\r\n", maxsplit=1)[0]) == 64
    assert references_of(line) == set()
    movement = f"2611201120C1,NTRFX//B\r\n:86:{'x' * 53} 1482 7503 6\r\n141 y"
    (line,) = one(mt940(movement, closing="C261120MAD1,")).lines
    assert references_of(line) == {148275036141}
    structured = "2611201120C1,NTRFX//B\r\n:86:166?00VIR?20AMO REF 1482 75?2103 6141?32NAME"
    (line,) = one(mt940(structured, closing="C261120MAD1,")).lines
    assert references_of(line) == {148275036141}


MT940_REFUSED: Final = {
    "a point for thousands": (
        mt940("2611201120C1.172,50NTRFX//B", closing="C261120MAD1172,50"),
        "line 5: movement 1 cannot be read",
    ),
    "three decimals": (
        mt940("2611201120C1,005NTRFX//B", closing="C261120MAD1,01"),
        "line 5: the amount of movement 1",
    ),
    "does not add up": (mt940("2611201120C1,NTRFX//B", closing="C261120MAD2,"), "do not add up"),
    "closes in another currency": (mt940(closing="C261120EUR0,"), "opens in MAD and closes in EUR"),
    "an interim report": (
        b":20:X\n:25:1\n:28C:1\n:60F:C261119MAD0,\n:34F:MAD0,\n:62F:C261119MAD0,\n-\n",
        "interim report",
    ),
    "MT942": (b"{1:F01X}{2:I942X}{4:\r\n:20:X\r\n-}\r\n", "MT942 is no statement"),
    "a NUL character": (mt940(number="1\x00", closing="C261120MAD0,"), "line 3: a NUL"),
    "a number without end": (mt940(number="1" * 200, closing="C261120MAD0,"), "too long"),
    "a number of two lines": (mt940(number="1\r\nx", closing="C261120MAD0,"), "cannot be a number"),
    "no closing balance": (b":20:X\n:25:1\n:28C:1\n:60F:C261119MAD0,\n", "the file was cut"),
    "a movement behind the closing balance": (
        mt940(closing="C261120MAD0,\r\n:61:2611201120C1,NTRFX//B"),
        "outside the balances",
    ),
}


@pytest.mark.parametrize("case", MT940_REFUSED)
def test_a_message_that_cannot_be_trusted_is_refused(case: str) -> None:
    data, reason = MT940_REFUSED[case]
    with pytest.raises(Unusable, match=reason):
        read(data)


# -- agents' CSV ----------------------------------------------------------------------------------


def test_the_agents_sample_gives_the_expected_rows() -> None:
    statement = one(AGENT.read_bytes())
    words: dict[str, Any] = {"payment": Kind.PAYMENT, "cancellation": Kind.REVERSAL}
    for line, row in zip(statement.lines, EXPECTED["csv_expected"]["rows"], strict=True):
        assert line.line == row["line"]
        assert references_of(line) == {int(row["ref"])}
        assert format_amount(line.amount_minor) == row["amount"]
        assert (line.payment_ids, line.kind) == ((row["tx"],), words[row["kind"]])
        if "at_local" in row:
            assert line.happened_at is not None
            assert line.happened_at.isoformat() == row["at_local"]
    assert (statement.from_on, statement.to_on) == (date(2026, 11, 19), date(2026, 11, 20))


LINE: Final = "19/11/2026;148275036141;172,50;T-1;PAIEMENT;2,00"
BAD_LINES: Final = {
    "a point": ("172.50", Why.AMOUNT, "montant cannot be read as an amount"),
    "three decimals": ("172,505", Why.AMOUNT, "montant cannot be read as an amount"),
    "no amount": ("", Why.AMOUNT, "montant cannot be read as an amount"),
    "an exponent": ("1e3", Why.AMOUNT, "montant cannot be read as an amount"),
    "Arabic digits": ("١٧٢,50", Why.AMOUNT, "montant cannot be read as an amount"),
    "groups of two": ("1 72,50", Why.AMOUNT, "montant cannot be read as an amount"),
    "two kinds of spaces": ("1 000\u00a0000", Why.AMOUNT, "montant cannot be read as an amount"),
    "nothing": ("0,00", Why.AMOUNT, "its amount is zero"),
    "the wrong sign": ("-172,50", Why.AMOUNT, "its amount has the wrong sign for a payment"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_amount_is_set_aside_and_is_never_zero(case: str) -> None:
    amount, why, reason = BAD_LINES[case]
    bad = LINE.replace("172,50", amount).replace("T-1", "T-2")
    # The trailer counts the bad line; what it leaves of the sum is said beside it.
    readable = {"nothing": "172,50", "the wrong sign": "0,00"}.get(case, "999,00")
    statement = one(agents(LINE, bad, total=readable, fees="4,00"))
    assert signed(statement) == ["172.50"]
    ((found, said),) = aside(statement)
    assert found is why
    assert said.startswith(reason)
    assert (case in {"nothing", "the wrong sign"}) or said.endswith(
        "the trailer leaves 826.50 of montant for what is not read"
    )


@pytest.mark.parametrize("mark", ["\u202f", "\u00a0", " "])
def test_thousands_may_be_parted_by_any_declared_space(mark: str) -> None:
    data = agents(LINE.replace("172,50", f"1{mark}234{mark}567,80"), total="1234567,80", fees="2,0")
    assert signed(one(data)) == ["1234567.80"]


@pytest.mark.parametrize(
    ("field", "value", "why", "reason"),
    [
        ("19/11/2026", "2026-11-19", Why.UNREADABLE, "no day written as dd/mm/yyyy"),
        ("19/11/2026", "31/02/2026", Why.UNREADABLE, "no day written as dd/mm/yyyy"),
        ("PAIEMENT", "VIREMENT", Why.UNREADABLE, "type is none of PAIEMENT, ANNULATION"),
        ("T-1", "", Why.UNREADABLE, "id_transaction is empty"),
    ],
)
def test_a_line_that_nobody_could_place_is_set_aside(
    field: str, value: str, why: Why, reason: str
) -> None:
    statement = one(agents(LINE.replace(field, value), total="172,50", fees="2,00"))
    ((found, said),) = aside(statement)
    assert (found, reason in said, statement.lines) == (why, True, ())


@pytest.mark.parametrize("time", ["1٠:00:00", "24:00:00", "10:00", "10:00:60"])
def test_a_time_is_read_as_declared_or_not_at_all(time: str) -> None:
    data = agents(LINE, total="172,50", fees="2,00").replace(b"10:00:00", time.encode())
    assert aside(one(data)) == [(Why.UNREADABLE, "heure is no time written as hh:mm:ss")]


def test_a_time_without_colons_has_all_its_digits() -> None:
    text = "paid_on,paid_at,reference,amount,provider_payment_id\n2026-11-18,{},,1.00,T\n"
    dialect = Dialect.model_validate(
        {
            **{"name": "x", "delimiter": ",", "decimal": ".", "day": "yyyy-mm-dd"},
            **{"time": "hhmmss", "source": "x", "verified": True},
            "columns": {
                **{"day": "paid_on", "time": "paid_at", "reference": "reference"},
                **{"amount": "amount", "transaction": "provider_payment_id"},
            },
        }
    )
    for time, read_as in (("090501", 1), ("90501", 0), ("9051", 0)):
        statement = read_agents_csv(text.format(time).encode(), "file", [dialect])
        assert len(statement.lines) == read_as


def test_a_file_of_nothing_but_bad_lines_is_refused() -> None:
    data = agents(LINE) + b"x\r\n" * (SET_ASIDE_MAX + 1)
    with pytest.raises(Unusable, match="line 100003: more than 100000 lines cannot be read"):
        read(data)


def test_another_currency_is_set_aside() -> None:
    data = agents(LINE, total="172,50", fees="2,00").replace(b"172,50;MAD;T", b"172,50;EUR;T")
    assert aside(one(data)) == [(Why.CURRENCY, "its currency is EUR, not MAD")]


CSV_REFUSED: Final = {
    "no trailer": (agents(LINE), "line 2: the file was cut: its last line is no TOTAL"),
    "another count": (
        agents(LINE, count=2, total="172,50", fees="2,00"),
        "line 3: the trailer says 2 data lines, the file has 1",
    ),
    "another sum": (
        agents(LINE, total="172,51", fees="2,00"),
        "line 3: the trailer says 172.51 as the sum of montant, the file has 172.50",
    ),
    "another sum of fees": (agents(LINE, total="172,50"), "as the sum of commission"),
    "more behind the trailer": (
        agents(LINE, total="172,50", fees="2,00") + b"x\n",
        "line 4: there is more after line 3",
    ),
    "no dialect": (b"a,b,c\n1,2,3\n", "line 1: no dialect fits this header"),
}


@pytest.mark.parametrize("case", CSV_REFUSED)
def test_a_file_that_does_not_agree_with_itself_is_refused(case: str) -> None:
    data, reason = CSV_REFUSED[case]
    with pytest.raises(Unusable, match=reason):
        read(data)


# -- all of them ----------------------------------------------------------------------------------

SAMPLES: Final = {path.name: path.read_bytes() for path in (AGENT, MT940, *CAMT.values())}


def test_formats_are_found_from_the_content() -> None:
    found = {name: format_of(data) for name, data in SAMPLES.items()}
    assert set(found.values()) == set(Format)
    assert found["mt940_mad.sta"] is Format.MT940
    assert format_of((CAMT["053", 2].read_bytes().decode()).encode("utf-16")) is Format.CAMT
    with pytest.raises(Unusable, match="the file is empty"):
        read(b" \n")


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_that_was_cut_anywhere_is_refused(name: str) -> None:
    data = SAMPLES[name]
    whole = read(data)
    for cut in range(len(data)):
        try:
            found = read(data[:cut])
        except Unusable:
            continue
        # Nothing but line ends, or zeros at the end of the very last sum, was lost.
        assert found == whole, cut
        assert cut >= len(data) - len(",00\r\n"), cut


@given(name=st.sampled_from(sorted(SAMPLES)), at=st.integers(0, 10_000), junk=st.binary(max_size=4))
@settings(max_examples=300, deadline=None)
def test_whatever_stands_in_a_file_it_is_read_or_refused(name: str, at: int, junk: bytes) -> None:
    data = SAMPLES[name]
    at %= len(data)
    spoilt = data[:at] + junk + data[at + len(junk) :]
    try:
        statements = read(spoilt)
    except Unusable:
        return
    for statement in statements:
        if statement.opening_minor is not None and statement.closing_minor is not None:
            # A line set aside for its day or its status is not in this sum: no more can be asked.
            moved = sum(line.amount_minor for line in statement.lines)
            assert statement.set_aside or statement.opening_minor + moved == statement.closing_minor
