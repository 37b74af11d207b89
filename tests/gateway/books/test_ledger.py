"""The books against a model of a few lines, and against whoever goes round the code."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from gateway import process
from gateway.books import ledger
from gateway.books.accounts import Posting, account
from gateway.books.seals import books_key
from gateway.clock import INSTITUTION_ZONE
from gateway.db import transaction
from gateway.errors import TransferMismatch, Unusable
from gateway.models import AccountKind
from tests.factories import (
    NOON,
    a_report,
    at_once,
    balances,
    broken_promises,
    record,
    rows_of,
    seal,
    some_invoices,
)

_numbers = count()
FLOAT = account(AccountKind.FLOAT, "77")
TILL = account(AccountKind.TILL, "77")


def a_posting(**values: Any) -> Posting:
    """Return a transfer of one dirham from float to till."""
    return Posting(
        **{
            "name": f"test/{next(_numbers)}",
            "debit": TILL,
            "credit": FLOAT,
            "amount_minor": 100,
            **values,
        }
    )


def post(*postings: Posting) -> int:
    with transaction() as session:
        return ledger.post(session, postings, key=process.signing_key(), now=NOON)


# -- the model ------------------------------------------------------------------------------------


class _Regret(Exception):
    """Somebody changes their mind before the commit."""


picks = st.lists(st.integers(0, 99), max_size=4)


class LedgerAndModel(RuleBasedStateMachine):
    """A dict that is updated once for each transfer, beside the books that are told many times."""

    def __init__(self) -> None:
        super().__init__()
        self.mine = next(_numbers)
        self.model: dict[str, int] = {}
        self.posted: dict[str, Posting] = {}
        self._post([a_posting(debit=self._account("a"), credit=self._account("b"))])

    def _account(self, letter: str) -> str:
        return account(AccountKind.FLOAT, f"{self.mine}-{letter}")

    def _known(self, picks: list[int]) -> list[Posting]:
        known = list(self.posted.values())
        return [known[at % len(known)] for at in picks]

    def _post(self, postings: list[Posting]) -> None:
        once = {p.name: p for p in postings}
        fresh = [p for p in once.values() if p.name not in self.posted]
        assert post(*once.values()) == len(fresh)
        for p in fresh:
            self.posted[p.name] = p
            self.model[p.debit] = self.model.get(p.debit, 0) + p.amount_minor
            self.model[p.credit] = self.model.get(p.credit, 0) - p.amount_minor

    @rule(
        ways=st.lists(
            st.tuples(
                st.lists(st.sampled_from("abcd"), min_size=2, max_size=2, unique=True),
                st.integers(1, 10**12),
            ),
            min_size=1,
            max_size=4,
        ),
        again=picks,
    )
    def transfers_are_posted(self, ways: list[Any], again: list[int]) -> None:
        fresh = [
            a_posting(debit=self._account(debit), credit=self._account(credit), amount_minor=amount)
            for (debit, credit), amount in ways
        ]
        self._post([*self._known(again), *fresh])

    @rule(again=picks)
    def the_same_is_posted_again(self, again: list[int]) -> None:
        self._post(self._known(again))

    @rule(some=picks)
    def some_are_taken_back(self, some: list[int]) -> None:
        self._post([p.opposite() for p in self._known(some) if p.reverses is None])

    @rule(one=st.integers(0, 99), by=st.sampled_from([-1, 1]))
    def another_amount_under_a_known_name_is_refused(self, one: int, by: int) -> None:
        (known,) = self._known([one])
        other = known._replace(amount_minor=known.amount_minor + by)
        new = a_posting(debit=self._account("a"), credit=self._account("b"))
        with pytest.raises(TransferMismatch):
            post(new, other)

    @rule(again=picks)
    def a_transaction_is_given_up(self, again: list[int]) -> None:
        fresh = a_posting(debit=self._account("a"), credit=self._account("e"))
        once = {p.name: p for p in [*self._known(again), fresh]}
        with suppress(_Regret), transaction() as session:
            ledger.post(session, list(once.values()), key=process.signing_key(), now=NOON)
            raise _Regret

    @invariant()
    def the_books_and_the_model_agree(self) -> None:
        mine = f"float:{self.mine}-"
        held = balances()
        assert sum(held.values()) == 0
        assert {code: net for code, net in held.items() if code.startswith(mine)} == self.model

    def teardown(self) -> None:
        seal()
        assert broken_promises() == []


def test_the_books_agree_with_a_model_that_is_told_everything_once(database: str) -> None:
    run_state_machine_as_test(
        LedgerAndModel,
        settings=settings(max_examples=15, stateful_step_count=15, deadline=None),
    )


# -- naming and races -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other", [{"amount_minor": 101}, {"debit": FLOAT, "credit": TILL}, {"credit": "float:78"}]
)
def test_other_content_under_a_known_name_is_refused_and_nothing_of_it_is_posted(
    database: str, other: dict[str, Any]
) -> None:
    known = a_posting()
    assert post(known) == 1
    with pytest.raises(TransferMismatch):
        post(a_posting(), a_posting(name=known.name, **other))
    assert balances() == {TILL: 100, FLOAT: -100}


def test_books_of_another_key_are_not_continued(database: str, home: Path) -> None:
    post(a_posting())
    stranger = books_key(home / "elsewhere")
    with pytest.raises(Unusable, match="key"), transaction() as session:
        ledger.post(session, [a_posting()], key=stranger, now=NOON)
    assert balances() == {TILL: 100, FLOAT: -100}


def test_many_who_post_at_once_leave_one_chain_without_gaps(database: str) -> None:
    def some(who: int) -> int:
        return sum(
            post(*(a_posting(name=f"{who}/{turn}/{n}") for n in range(who + 1)))
            for turn in range(10)
        )

    assert at_once(*(partial(some, who) for who in range(4))) == [10, 20, 30, 40]
    batches = rows_of(
        database, "SELECT id, first_transfer_id, last_transfer_id FROM ledger_batch ORDER BY id"
    )
    assert [batch for batch, _, _ in batches] == list(range(1, 41))
    ends = [0, *(last for _, _, last in batches)]
    assert [first - 1 for _, first, _ in batches] == ends[:-1]
    assert ends[-1] == 100
    assert seal() == 40
    assert broken_promises() == []


def test_one_transfer_posted_by_many_at_once_is_posted_once(database: str) -> None:
    for _ in range(10):
        same = a_posting(debit="till:new-" + str(next(_numbers)))
        assert sorted(at_once(*[partial(post, same)] * 6)) == [0, 0, 0, 0, 0, 1]
    assert balances()[FLOAT] == -1000


# -- the database is the last judge ---------------------------------------------------------------

APPEND_ONLY: Final = (
    ("ledger_transfer", "amount_minor"),
    ("ledger_batch", "hash"),
    ("allocation", "amount_minor"),
    ("invoice_line", "amount_minor"),
    ("rule", "source"),
    ("record_file", "lines"),
)


@pytest.mark.parametrize(("table", "column"), APPEND_ONLY)
def test_an_append_only_table_refuses_everything_but_appending(
    database: str, table: str, column: str
) -> None:
    (reference,) = some_invoices()
    record(a_report(reference))
    for statement in (
        f"UPDATE {table} SET {column} = {column}",
        f"DELETE FROM {table}",
        f"TRUNCATE {table} CASCADE",
    ):
        with (
            psycopg.connect(database) as connection,
            pytest.raises(psycopg.errors.RestrictViolation, match="append-only"),
        ):
            connection.execute(statement.encode())


REVERSAL: Final = (
    "INSERT INTO ledger_transfer (id, batch_id, name, debit_account_id, credit_account_id,"
    " amount_minor, payment_id, invoice_id, reverses_id, posted_at)"
    " SELECT {id}, batch_id, 'back', {debit}, {credit}, {amount}, {payment}, {invoice}, {reverses},"
    " posted_at FROM ledger_transfer WHERE id = {of}"
)
OPPOSITE: Final = {
    "id": "99",
    "debit": "credit_account_id",
    "credit": "debit_account_id",
    "amount": "amount_minor",
    "payment": "payment_id",
    "invoice": "invoice_id",
    "reverses": "id",
    "of": "1",
}


@pytest.mark.parametrize(
    "different",
    [
        {"amount": "amount_minor - 1"},
        {"debit": "debit_account_id", "credit": "credit_account_id"},
        {"debit": "(SELECT max(id) FROM ledger_account)"},
        {"payment": "NULL"},
        {"payment": "(SELECT max(id) FROM payment)"},
        {"invoice": "NULL"},
        {"of": "2"},
        {"reverses": "10 ^ 9"},
    ],
    ids=str,
)
def test_a_taking_back_that_is_not_the_opposite_is_refused(
    database: str, different: dict[str, str]
) -> None:
    (reference,) = some_invoices()
    record(a_report(reference))
    record(a_report("no such thing"))
    post(back := a_posting(), back.opposite())
    if different.get("of"):
        taking_back = rows_of(database, "SELECT id FROM ledger_transfer WHERE reverses_id > 0")
        different = {"of": str(taking_back[0][0])}
    with psycopg.connect(database) as connection:
        with pytest.raises(psycopg.errors.RestrictViolation, match="opposite"):
            connection.execute(REVERSAL.format(**OPPOSITE | different).encode())
        connection.rollback()
        # The same statement without the difference goes through, so it was the difference.
        connection.execute(REVERSAL.format(**OPPOSITE).encode())
        connection.rollback()


def test_a_transfer_is_taken_back_once_at_most(database: str) -> None:
    posting = a_posting()
    post(posting, posting.opposite())
    with (
        psycopg.connect(database) as connection,
        pytest.raises(psycopg.errors.UniqueViolation),
    ):
        connection.execute(REVERSAL.format(**OPPOSITE).encode())


BATCH: Final = (
    "INSERT INTO ledger_batch SELECT {id}, {first}, {last}, {last}, {total}, posted_at,"
    " {previous}, sha256('x'), key_id, signature FROM ledger_batch WHERE id = 2"
)
FOLLOWING: Final = {
    "id": "3",
    "first": "3",
    "last": "3",
    "total": "total_minor + 1",
    "previous": "hash",
}


@pytest.mark.parametrize(
    "different",
    [
        {"id": "4"},
        {"id": "0"},
        {"first": "4", "last": "4"},
        {"first": "2"},
        {"previous": "previous_hash"},
        {"total": "total_minor"},
    ],
    ids=str,
)
def test_a_batch_that_does_not_follow_is_refused(database: str, different: dict[str, str]) -> None:
    post(a_posting())
    post(a_posting())
    with psycopg.connect(database) as connection:
        with pytest.raises(psycopg.errors.RestrictViolation, match="does not follow"):
            connection.execute(BATCH.format(**FOLLOWING | different).encode())
        connection.rollback()
        connection.execute(BATCH.format(**FOLLOWING).encode())
        connection.rollback()


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("UPDATE payment SET amount_minor = amount_minor + 1", "its money does not change"),
        ("UPDATE payment SET booked_at = booked_at + interval '1 s'", "its money does not change"),
        ("UPDATE payment SET paid_at = paid_at + interval '1 s'", "its money does not change"),
        ("UPDATE payment SET channel = 'card'", "its money does not change"),
        ("UPDATE payment SET invoice_id = NULL", "its money does not change"),
        ("UPDATE payment SET status = 'pending'", "cannot become"),
        ("UPDATE payment SET status = 'failed'", "cannot become"),
        ("UPDATE payment SET provider_payment_id = 'other'", "a fact was to change"),
        ("UPDATE invoice SET amount_minor = amount_minor + 1", "a fact was to change"),
        ("UPDATE invoice SET reference = '100000000093'", "a fact was to change"),
        ("UPDATE invoice SET paid_minor = amount_minor + 1", "invoice_paid_check"),
        ("UPDATE invoice SET paid_minor = 0", "invoice_status_check"),
        ("UPDATE invoice SET status = 'open'", "invoice_status_check"),
        ("DELETE FROM payment", "append-only"),
        ("DELETE FROM invoice", "append-only"),
        ("TRUNCATE coded_exception", "append-only"),
    ],
)
def test_the_database_refuses_to_forget_or_to_bend_a_booked_payment(
    database: str, statement: str, refused: str
) -> None:
    (reference,) = some_invoices()
    record(a_report(reference))
    with psycopg.connect(database) as connection, pytest.raises(psycopg.Error, match=refused):
        connection.execute(statement.encode())


# -- what is hashed -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b/invoice", 'q"\\/\n\x01', "é\u2028\U0001f600", "\x7f"])
@pytest.mark.parametrize("linked", [None, 7])
def test_a_transfer_is_hashed_as_the_json_list_that_it_always_was(
    name: str, linked: int | None
) -> None:
    at = NOON.astimezone(INSTITUTION_ZONE)
    row = {
        "id": 3,
        "name": name,
        "amount_minor": 16352,
        "payment_id": linked,
        "invoice_id": linked,
        "reverses_id": linked,
        "posted_at": at,
    }
    written = [
        3,
        name,
        "a:b",
        "c:é",
        16352,
        linked,
        linked,
        linked,
        "2026-11-18T12:00:00.000000+00:00",
    ]
    assert (
        ledger.transfer_line(row, debit="a:b", credit="c:é")
        == json.dumps(written, separators=(",", ":")).encode()
    )
