"""Files that are applied once and whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

from gateway import process
from gateway.cli import wasl
from gateway.cli.shared import Refused
from gateway.csvfiles import ImportResult
from gateway.db import execute, transaction
from gateway.errors import Unusable
from gateway.privacy.subject import subject_of
from gateway.settings import settings
from reconciliation.sources.dialects import dialects
from reconciliation.sources.formats import Format
from reconciliation.sources.personal import Settlements
from reconciliation.sources.settlements import import_settlements, senders
from tests.reconciliation.factories import NOW, an_invoice, asked, how_many
from tests.reconciliation.sources.factories import (
    AGENT,
    CAMT,
    MT940,
    RIB,
    a_detail,
    a_notification,
    a_statement,
    agents,
    an_entry,
    camt,
    mt940,
)


def take_in(path: Path, provider: str = "bank", format: Format | None = None) -> ImportResult:
    return import_settlements(path, provider=provider, format=format, now=NOW)


def counts(result: ImportResult) -> tuple[int, int, int, int]:
    return result.read, result.loaded, result.unchanged, len(result.rejected)


@pytest.fixture
def of(database: str, tmp_path: Path) -> Any:
    """Take in some bytes as a file of the bank's, or of another sender's."""

    def take(data: bytes, provider: str = "bank") -> tuple[int, int, int, int]:
        path = tmp_path / "file"
        path.write_bytes(data)
        return counts(take_in(path, provider))

    return take


def stored() -> list[tuple[Any, ...]]:
    """Return what counts of the lines: a movement that came with its details is these."""
    with transaction() as session:
        rows = execute(
            session,
            "SELECT entry_key, transaction, kind, amount_minor, quoted FROM settlement_line l"
            " WHERE transaction > 0 OR NOT EXISTS (SELECT FROM settlement_line d"
            " WHERE d.entry_key = l.entry_key AND d.transaction > 0) ORDER BY 1, 2",
        )
        return [tuple(row) for row in rows]


def test_the_agents_sample_sets_its_conflict_aside(database: str) -> None:
    result = take_in(AGENT, "cashplus")
    assert counts(result) == (5, 4, 0, 1)
    (rejected,) = result.rejected
    assert (rejected.line, rejected.reason) == (6, "the same is known with another amount, day")
    assert asked() == [("conflicting_record", "settlement:cashplus/AGT77-0000002")]
    # The same again: nothing more, and what a person may have decided is not asked again.
    with transaction() as session:
        execute(
            session, "UPDATE coded_exception SET resolved_at = :now, resolution = 'x'", {"now": NOW}
        )
    again = take_in(AGENT, "cashplus")
    assert counts(again) == (5, 0, 4, 1)
    assert again.rejected == result.rejected
    assert asked() == []
    assert how_many("settlement_file") == how_many("settlement_statement") == 1


@pytest.mark.parametrize("first", [0, 2])
def test_one_movement_comes_once_by_whichever_messages(database: str, first: int) -> None:
    order = [*CAMT.values()][first:] + [*CAMT.values()][:first]
    results = [counts(take_in(path)) for path in order]
    assert results == [(4, 4, 0, 0), *[(4, 0, 4, 0)] * 3]
    assert [(kind, amount, quoted) for _, _, kind, amount, quoted in stored()] == [
        ("payment", 172_50, ["148275036141"]),
        ("payment", 173_50, ["100000000190"]),
        ("reversal", -172_50, []),
        ("fee", -12_35, []),
    ]
    assert asked() == []


def test_what_one_format_told_another_must_not_tell_again(database: str) -> None:
    assert counts(take_in(MT940)) == (4, 4, 0, 0)
    with pytest.raises(Unusable, match=r"is known from mt940, and camt\.053 would bring it again"):
        take_in(CAMT["053", 2])
    assert how_many("settlement_line") == 4


WHOLE: Final = an_entry("100.00", batch_of=2)
IN_PARTS: Final = an_entry(details=(a_detail("60.00", "P-1"), a_detail("40.00", "P-2")))


@pytest.mark.parametrize("details_first", [True, False])
def test_a_movement_known_as_a_whole_counts_by_its_details_once_they_come(
    of: Any, details_first: bool
) -> None:
    notice, statement = a_notification(IN_PARTS), a_statement(WHOLE, closing="100.00")
    files = (camt(notice), camt(statement)) if details_first else (camt(statement), camt(notice))
    first, second = (of(each) for each in files)
    if details_first:
        assert (first, second) == ((2, 2, 0, 0), (1, 0, 1, 0))
    else:
        assert (first, second) == ((1, 1, 0, 0), (2, 2, 0, 0))
    assert [(part, amount) for _, part, _, amount, _ in stored()] == [(1, 60_00), (2, 40_00)]
    assert asked() == []


def test_a_known_movement_with_another_amount_is_set_aside(of: Any) -> None:
    assert of(camt(a_notification(an_entry("100.00")))) == (1, 1, 0, 0)
    assert of(camt(a_statement(an_entry("90.00"), closing="90.00"))) == (1, 0, 0, 1)
    assert asked() == [("conflicting_record", f"settlement:bank/{RIB}/BR-1")]
    # Nor is it the same when a bank uses a reference again on another day.
    later = an_entry("100.00", day="2026-12-20")
    statement = a_statement(later, opening="90.00", closing="190.00", number="2", day="2026-12-20")
    assert of(camt(statement)) == (1, 0, 0, 1)
    assert how_many("settlement_line") == 1


def test_a_reference_twice_in_one_statement_is_two_movements(of: Any) -> None:
    twice = camt(a_statement(an_entry(), an_entry(), closing="200.00"))
    assert of(twice) == (2, 2, 0, 0)
    assert of(twice) == (2, 0, 2, 0)
    assert of(camt(a_notification(an_entry(), an_entry()))) == (2, 0, 2, 0)


def test_a_reference_on_two_pages_of_a_day_is_no_repetition(of: Any) -> None:
    """Both pages prove by their balances that money moved; nothing says that it is the same."""
    pages = [
        mt940("2611201120C1,NTRFX//BATCH", number=f"7/{n}", closing=f"C261120MAD{n},",
              opening=f"C261119MAD{n - 1},")
        for n in (1, 2)
    ]  # fmt: skip
    assert of(pages[0] + pages[1]) == (2, 1, 0, 1)
    assert asked() == [("conflicting_record", f"settlement:bank/{RIB}/BATCH")]
    # The same day told again under another number, or from its beginning, repeats what is known.
    again = mt940("2611201120C1,NTRFX//BATCH", number="8/1", closing="C261120MAD1,")
    assert of(again) == (1, 0, 1, 0)


def test_details_that_do_not_come_to_their_movement_are_asked_about(of: Any) -> None:
    wrong = an_entry(details=(a_detail("60.00"), a_detail("39.00")))
    assert of(camt(a_notification(wrong))) == (1, 1, 0, 0)
    assert asked() == [("amount_differs", f"settlement:bank/{RIB}/BR-1")]


def test_lines_that_cannot_be_read_are_findings(of: Any) -> None:
    entries = (an_entry("1e9"), an_entry(currency="EUR", reference="2"), an_entry(day="2026-02-30"))
    good, pending = an_entry("1.00", reference="3"), an_entry(status="PDNG", reference="4")
    assert of(camt(a_notification(*entries, good, pending))) == (5, 1, 0, 4)
    assert [code for code, _ in asked()] == [
        "invalid_amount",
        "unreadable_delivery",
        "wrong_currency",
    ]


REFUSED: Final = {
    "another currency": (
        camt(a_statement(an_entry(currency="EUR"), closing="100.00", currency="EUR")),
        r"line \d+: statement ST-1 is in EUR, not MAD",
    ),
    "one of two statements does not add up": (
        camt(
            a_statement(an_entry(), closing="100.00"),
            a_statement(an_entry(), closing="1.00", account="2", number="2"),
        ),
        "statement 2 opens with 0.00, moves 100.00 and closes with 1.00",
    ),
    "one of two accounts is in another currency": (
        camt(
            a_statement(an_entry(), closing="100.00"),
            a_statement(
                an_entry(currency="EUR"), closing="100.00", account="2", number="2", currency="EUR"
            ),
        ),
        "statement 2 is in EUR, not MAD",
    ),
    "an account in another currency on which nothing moved": (
        camt(a_statement(closing="100.00", opening="100.00", currency="EUR")),
        "statement ST-1 is in EUR, not MAD",
    ),
    "a number twice in the file": (
        camt(
            a_statement(an_entry(), closing="100.00"),
            a_statement(an_entry("7.00", reference="B"), opening="93.00", closing="100.00"),
        ),
        "statement ST-1 of account .* is known with other content",
    ),
    "nothing in it": (b"", "the file is empty"),
}


def test_a_file_is_applied_whole_or_not_at_all(of: Any) -> None:
    for data, reason in REFUSED.values():
        with pytest.raises(Unusable, match=reason):
            of(data)
    for table in ("settlement_file", "settlement_statement", "settlement_line", "coded_exception"):
        assert how_many(table) == 0


def test_several_accounts_are_each_kept_to_their_own(of: Any) -> None:
    first = a_statement(an_entry(), closing="100.00")
    second = a_statement(an_entry(), closing="100.00", account="2", number="2")
    assert of(camt(first, second)) == (2, 2, 0, 0)
    assert [key for key, *_ in stored()] == [f"{RIB}/BR-1", "2/BR-1"]
    # An account is one sender's: under another name its money would count twice.
    with pytest.raises(Unusable, match=r"account .* are known from bank"):
        of(camt(second), "card")


def test_a_number_that_comes_again_with_other_content_is_refused(of: Any) -> None:
    first = mt940("2611201120C1,NTRFX//B1", closing="C261120MAD1,")
    assert of(first) == (1, 1, 0, 0)
    with pytest.raises(Unusable, match=r"statement 1/1 of account \d+ is known with other content"):
        of(mt940("2611201120C2,NTRFX//B2", closing="C261120MAD2,"))
    # The same statement in other wrapping is the same; one that follows on only has its number.
    assert of(b"{1:F01X}{2:I940X}{4:\r\n" + first[:-3] + b"-}\r\n") == (1, 0, 1, 0)
    follows = mt940("2611211121C2,NTRFX//B3", opening="C261120MAD1,", closing="C261121MAD3,")
    assert of(follows) == (1, 1, 0, 0)
    assert asked() == [("conflicting_record", f"settlement:bank/{RIB}/1/1")]
    # Numbers begin again with each year.
    new_year = mt940(opening="C261121MAD3,", closing="C270104MAD3,")
    assert of(new_year) == (0, 0, 0, 0)


def days(*numbers: int) -> list[bytes]:
    """Return a statement of 100.00 for each day of November, each following on from the last."""
    return [
        camt(
            a_statement(
                an_entry(reference=f"BR-{n}", day=f"2026-11-{n:02d}"),
                opening=f"{100 * (n - 1)}.00",
                closing=f"{100 * n}.00",
                number=f"ST-{n}",
                day=f"2026-11-{n:02d}",
            )
        )
        for n in numbers
    ]


def test_a_missing_statement_is_asked_about_until_it_comes(of: Any) -> None:
    first, second, third = days(2, 3, 4)
    of(first)
    of(third)
    assert asked() == [("missing_statement", f"settlement:bank/{RIB}/2026-11-04/ST-4")]
    of(second)
    assert asked() == []
    # A person says that there is none: the gap is not asked about again.
    of(days(9)[0])
    with transaction() as session:
        execute(session, "UPDATE coded_exception SET resolved_at = now(), resolution = 'none came'")
    of(days(10)[0])
    assert asked() == []


def test_files_in_any_order_come_to_the_same(of: Any) -> None:
    ends = set()
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        files = [*days(2, 3, 4), camt(a_notification(an_entry(reference="BR-3", day="2026-11-03")))]
        for at in order:
            of(files[at])
        assert asked() == []
        ends.add(repr(stored()))
        with transaction() as session:
            tables = "settlement_line, settlement_statement, settlement_file"
            execute(session, "SET LOCAL session_replication_role = replica")
            for table in tables.split(", "):
                execute(session, f"DELETE FROM {table}")
    assert len(ends) == 1


def test_two_agents_files_with_one_payment_id(of: Any) -> None:
    line = "19/11/2026;148275036141;172,50;T-1;PAIEMENT;2,00"
    assert of(agents(line, total="172,50", fees="2,00"), "cashplus") == (1, 1, 0, 0)
    more = "19/11/2026;148275036141;1,00;T-2;PAIEMENT;0,00"
    assert of(agents(line, more, total="173,50", fees="2,00"), "cashplus") == (2, 1, 1, 0)
    # Whose id it is decides: another network's T-1 is another payment.
    other = line.replace("148275036141", "100000000190")
    assert of(agents(other, total="172,50", fees="2,00"), "cashplus") == (1, 0, 0, 1)
    other = line.replace("148275036141", "")
    assert of(agents(other, total="172,50", fees="2,00"), "kiosk") == (1, 1, 0, 0)
    assert asked() == [("conflicting_record", "settlement:cashplus/T-1")]


BY_WHOM: Final = """
[patience]
grace_days = 3
window_days = 7
source = "this test"
verified = true

[[dialect]]
name = "bare"
delimiter = ","
decimal = "."
day = "yyyy-mm-dd"
columns = { day = "day", reference = "reference", amount = "amount", transaction = "id" }
source = "this test"
verified = true

[[source]]
name = "aggregator"
pays_for = ["cashplus"]

[[source]]
name = "other"
"""


@pytest.fixture
def by_whom(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The dialects file above, for a test."""
    path = tmp_path / "dialects.toml"
    path.write_text(BY_WHOM)
    monkeypatch.setenv("WASL_DIALECTS", str(path))
    settings.cache_clear()
    dialects.cache_clear()
    yield
    dialects.cache_clear()


@pytest.mark.usefixtures("by_whom")
def test_what_one_sender_told_is_not_taken_in_as_anothers(of: Any) -> None:
    def bare(*lines: str) -> bytes:
        return "\n".join(("day,reference,amount,id", *lines)).encode()

    told = "2026-11-19,148275036141,172.50,T-1"
    none = "2026-11-19,,1.00,T-2"
    of(bare(told, none), "cashplus")
    # The same file, or one that has one of its payments: the whole is refused, nothing is kept.
    longer = bare("2026-11-20,148275036141,172.50,T-3", told)
    for file, line in ((bare(told, none), 2), (longer, 3)):
        with pytest.raises(
            Unusable, match=rf"line {line}: .* cashplus, .* of 2026-11-20: name that"
        ):
            of(file, "other")
    assert how_many("settlement_file") == 1
    # An id and an amount that quote no payer may be anybody's; a whole file of them may not.
    assert of(bare(none, "2026-11-19,,1.00,T-4"), "other") == (2, 2, 0, 0)
    of(bare("2026-11-21,,5.00,T-5"), "cashplus")
    with pytest.raises(Unusable, match=r"line 2: .* cashplus"):
        of(bare("2026-11-21,,5.00,T-5"), "other")
    # Who pays for another tells of the other's payments by right.
    assert of(bare(told, none), "aggregator") == (2, 2, 0, 0)


def test_only_who_is_known_sends_files(of: Any) -> None:
    with pytest.raises(Unusable, match=r"'nobody' is nobody .*: name one of .*bank, .*cashplus"):
        of(AGENT.read_bytes(), "nobody")
    assert set(process.providers()) <= set(senders())


def test_the_command_answers_as_imports_do(database: str, tmp_path: Path) -> None:
    run = CliRunner().invoke
    words = ["settlements", "import", str(AGENT), "--provider", "cashplus", "--json"]
    done = run(wasl, words)
    assert isinstance(done.exception, Refused)
    assert json.loads(done.stdout) == {
        "read": 5,
        "loaded": 4,
        "unchanged": 0,
        "rejected": [{"line": 6, "reason": "the same is known with another amount, day"}],
        "opened": [{"code": "conflicting_record", "subject": "settlement:cashplus/AGT77-0000002"}],
    }
    # Asked once, however often the file comes.
    assert json.loads(run(wasl, words).stdout)["opened"] == []
    done = run(wasl, ["settlements", "import", str(MT940), "--provider", "bank", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["loaded"]) == (0, 4)
    words = ["settlements", "import", str(MT940), "--provider", "bank", "--format", "camt"]
    assert "is no whole XML document" in str(run(wasl, words).exception)
    path = tmp_path / "later.xml"
    path.write_bytes(
        camt(a_statement(opening="1.00", closing="1.00", number="9", day="2026-11-30"))
    )
    done = run(wasl, ["settlements", "import", str(path), "--provider", "bank"])
    assert done.exit_code == 0
    gap = f"settlement:bank/{RIB}/2026-11-30/9"
    assert (
        done.stdout == f"0 lines read: 0 loaded, 0 unchanged.\n  asked: missing_statement, {gap}\n"
    )
    words = ["settlements", "import", str(tmp_path / "none"), "--provider", "bank"]
    assert "cannot be read" in str(run(wasl, words).exception)


def test_a_person_is_told_of_lines_with_the_persons_reference(of: Any) -> None:
    with transaction() as session:
        hers, other = an_invoice(session), an_invoice(session)
        person = hers.contributor_id
    entries = (
        an_entry(text=f"cotisation {hers.reference} merci"),
        an_entry(text=f"cotisation {other.reference}", reference="BR-2"),
    )
    of(camt(a_notification(*entries)))
    with transaction() as session:
        subject = subject_of(session, person)
        assert subject is not None
        held = {each.name: each.rows for each in Settlements().held(session, subject)}
        (line,) = held["settlement_lines"]
        assert (line["amount"], line["bank_reference"]) == ("100.00", "BR-1")
        # Nothing in it names anybody: what people wrote there is not kept.
        assert Settlements().hold(session, subject).hindrances == ()
    with transaction() as session:
        text = execute(session, "SELECT string_agg(l::text, '') FROM settlement_line l").scalar()
    assert "cotisation" not in str(text)
