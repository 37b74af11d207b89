"""One reference that pays several invoices, on a real database."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

import pytest
from sqlmodel import Session

from gateway import process
from gateway.billing.bundle_presentment import present_bundle
from gateway.billing.bundles import ITEMS_MAX, make_bundle, make_selection, withdraw_bundle
from gateway.billing.invoices import cancel_invoice
from gateway.codes import receipts as codes
from gateway.collection.placing import carry_credit, settle_invoices
from gateway.collection.reports import Statement
from gateway.db import execute, snapshot, transaction
from gateway.errors import Unusable
from gateway.models import Bundle, BundleKind
from gateway.receipts import Finding, find, issue_all, look_into, of_invoice
from gateway.references import is_reference
from reconciliation.runs import reconcile
from tests.factories import (
    NOON,
    a_report,
    a_return,
    as_owner,
    balances,
    broken_promises,
    record,
    rows_of,
    seal,
    some_invoices,
    tell_of_note,
    the_books,
)

DUE: Final = 16352
LATER: Final = NOON + timedelta(minutes=5)


def invoices(database: str, how_many: int = 3) -> list[int]:
    """Issue so many invoices for as many people; return their ids."""
    references = some_invoices(how_many)
    query = "SELECT id FROM invoice WHERE reference = ANY(%s) ORDER BY id"
    return [at for (at,) in rows_of(database, query, (references,))]


def owner_of(database: str, invoice_id: int) -> int:
    query = "SELECT contributor_id FROM invoice WHERE id = %s"
    ((found,),) = rows_of(database, query, (invoice_id,))
    return int(found)


def bundled(ids: list[int], contributor_id: int | None = None) -> Bundle:
    with transaction() as session:
        return make_selection(session, ids, contributor_id=contributor_id, now=NOON)


def paid(database: str, ids: list[int]) -> list[int]:
    rows = dict(rows_of(database, "SELECT id, paid_minor FROM invoice WHERE id = ANY(%s)", (ids,)))
    return [rows[at] for at in ids]


def seal_and_check() -> None:
    issue_all(process.receipt_keys(), lambda: NOON)
    seal()
    assert broken_promises() == []


def test_a_family_pays_in_its_order_and_gets_one_receipt(database: str) -> None:
    first, second, third = invoices(database)
    order = [third, first, second]
    bundle = bundled(order, owner_of(database, first))
    assert is_reference(bundle.reference)
    record(a_report(bundle.reference, amount_minor=2 * DUE + 100, provider_payment_id="P"))
    assert paid(database, order) == [DUE, DUE, 100]
    rows = rows_of(database, "SELECT policy, component FROM allocation")
    assert set(rows) == {("bundle-order-v1", "principal")}
    rows = rows_of(database, "SELECT invoice_id, bundle_id FROM payment")
    assert rows == [(None, bundle.id)]
    seal_and_check()
    with snapshot() as session:
        (receipt,) = of_invoice(session, bundle.reference)
        assert (receipt.period, receipt.allocated_minor) == ("2026-11", 2 * DUE + 100)
        assert find(session, receipt.number) == receipt
        keys = process.receipt_keys().published()
        verdict = look_into(session, codes.as_text(receipt.signed), keys)
    assert (verdict.finding, verdict.stands) == (Finding.GENUINE, True)
    # What is given back comes from the newest debt first; of one due day, from the newest invoice.
    record(a_return("P", 200))
    assert paid(database, order) == [DUE - 200, DUE, 100]
    seal_and_check()
    record(
        a_report(
            bundle.reference,
            amount_minor=2 * DUE + 100,
            provider_payment_id="P",
            statement=Statement.REVERSED,
            stated_at=LATER,
        )
    )
    assert paid(database, order) == [0, 0, 0]
    assert set(balances().values()) == {0}
    seal_and_check()


@pytest.mark.parametrize("owned", [True, False])
def test_what_goes_beyond_is_the_owners_credit_or_waits(database: str, owned: bool) -> None:
    ids = invoices(database, 2)
    owner = owner_of(database, ids[1]) if owned else None
    bundle = bundled(ids, owner)
    record(a_report(bundle.reference, amount_minor=2 * DUE + 700, provider_payment_id="P"))
    account = f"credit:{owner}" if owned else "suspense:unidentified"
    assert balances()[account] == -700
    assert the_books().exceptions == [("overpaid", "payment:cashplus/P")]
    seal_and_check()
    # What a note sets free is the owner's, too, and not of whoever owes the invoice.
    with transaction() as session:
        _credit(session, ids[0], 1_000)
    assert balances()[account] == -1_700
    seal_and_check()
    record(a_return("P", 2_000))
    assert (balances().get(account, 0), sum(paid(database, ids))) == (0, 2 * DUE - 1_300)
    back = a_return("P", 0, stated_at=LATER)
    assert record(back) == ["returned"]
    assert balances()[account] == -1_700
    seal_and_check()


def test_money_that_is_nobodys_is_asked_about_though_a_note_set_it_free(database: str) -> None:
    first, second = invoices(database, 2)
    record(a_report(bundled([first, second]).reference, amount_minor=2 * DUE))
    assert the_books().exceptions == []
    with transaction() as session:
        _credit(session, first, 1_000)
    assert balances()["suspense:unidentified"] == -1_000
    assert [code for code, _ in the_books().exceptions] == ["overpaid"]
    seal_and_check()
    as_owner(database, "ALTER TABLE coded_exception DISABLE TRIGGER USER")
    as_owner(
        database,
        "DELETE FROM coded_exception",
        "ALTER TABLE coded_exception ENABLE TRIGGER USER",
    )
    assert [b.where for b in broken_promises() if "has been told" in b.what] == ["payment 1"]


def _credit(session: Session, invoice_id: int, minor: int) -> None:
    rule = execute(
        session,
        "INSERT INTO rule (rule, source, verified) VALUES ('test', 'test', false) RETURNING id",
    ).scalar_one()
    execute(
        session,
        "INSERT INTO invoice_note (invoice_id, kind, amount_minor, noted_on, rule_id, because,"
        " noted_at) VALUES (:at, 'adjustment', :minor, :on, :rule, 'test', :now)",
        {"at": invoice_id, "minor": -minor, "on": NOON.date(), "rule": rule, "now": NOON},
    )
    settle_invoices(session, [invoice_id], key=process.signing_key(), now=NOON)
    tell_of_note(session, invoice_id, -minor)


def test_the_owner_of_a_bundle_spends_its_credit_on_own_dues(database: str) -> None:
    first, second = invoices(database, 2)
    owner = owner_of(database, second)
    record(a_report(bundled([first], owner).reference, amount_minor=DUE + 900))
    with transaction() as session:
        carry_credit(session, [owner], key=process.signing_key(), now=NOON)
    assert paid(database, [first, second]) == [DUE, 900]
    assert the_books().exceptions == []
    seal_and_check()


def test_a_withdrawn_bundle_pays_nothing(database: str) -> None:
    ids = invoices(database, 2)
    bundle = bundled(ids)
    assert bundle.id is not None
    for _ in range(2):
        with transaction() as session:
            withdraw_bundle(session, bundle.id, now=NOON)
    record(a_report(bundle.reference))
    assert paid(database, ids) == [0, 0]
    assert balances()["suspense:unidentified"] == -DUE
    assert [code for code, _ in the_books().exceptions] == ["paid_cancelled"]
    seal_and_check()


def test_a_plan_pays_what_came_due_since_and_then_its_debts_from_the_oldest(
    database: str,
) -> None:
    (reference,) = some_invoices(1, "2026-09")
    some_invoices(1, "2026-10")
    some_invoices(1, "2026-11")
    rows = rows_of(
        database,
        "SELECT id, contributor_id FROM invoice WHERE contributor_id = (SELECT contributor_id"
        " FROM invoice WHERE reference = %s) ORDER BY due_on",
        (reference,),
    )
    (september, owner), (october, _), (november, _) = rows
    with transaction() as session:
        bundle = make_bundle(
            session, BundleKind.PLAN, [october, september], contributor_id=owner, now=NOON
        )
        execute(
            session,
            "INSERT INTO plan (contributor_id, bundle_id, rule, made_on, months, amount_minor,"
            " made_at) VALUES (:owner, :bundle, 'test', :on, 2, 32704, :now)",
            {"owner": owner, "bundle": bundle.id, "on": date(2026, 11, 5), "now": NOON},
        )
        execute(
            session,
            "INSERT INTO plan_instalment SELECT id, n, made_on + 30 * n, 16352"
            " FROM plan, generate_series(1, 2) AS n",
        )
        execute(
            session,
            "INSERT INTO invoice_relief (invoice_id, plan_id, granted_on, principal_rate,"
            " penalty_rate, fee_rate, stops_penalty, rule_id, granted_at) SELECT invoice_id,"
            " plan.id, made_on, 0, 0, 0, false, (SELECT min(id) FROM rule), made_at"
            " FROM plan JOIN bundle_item USING (bundle_id)",
        )
    record(a_report(bundle.reference, amount_minor=DUE + 1_000))
    assert paid(database, [november, september, october]) == [DUE, 1_000, 0]
    assert {p for (p,) in rows_of(database, "SELECT policy FROM allocation")} == {
        "current-first-v1"
    }
    # In time, though we hear of it later: what made room is carried on to the next debt.
    at = datetime(2026, 9, 25, tzinfo=UTC)
    record(a_report(bundle.reference, amount_minor=DUE, paid_at=at))
    assert paid(database, [november, september, october]) == [DUE, DUE, 0]
    seal_and_check()
    with transaction() as session:
        carry_credit(session, [owner], key=process.signing_key(), now=NOON)
    assert paid(database, [november, september, october]) == [DUE, DUE, 1_000]
    seal_and_check()


def test_a_plans_page_shows_what_its_money_pays_once_files_were_merged(database: str) -> None:
    """What came due since is billed on the file that stands; the plan was made on the other."""
    (old,) = some_invoices(1, "2026-10")
    (new,) = some_invoices(1, "2026-11")
    query = "SELECT id, contributor_id FROM invoice WHERE reference = ANY(%s) ORDER BY due_on"
    (october, merged), (november, stands) = rows_of(database, query, ([old, new],))
    with transaction() as session:
        bundle = make_bundle(session, BundleKind.PLAN, [october], contributor_id=merged, now=NOON)
        values = {"old": merged, "new": stands, "bundle": bundle.id, "on": date(2026, 11, 5)}
        for statement in (
            "INSERT INTO plan (contributor_id, bundle_id, rule, made_on, months, amount_minor,"
            " made_at) VALUES (:old, :bundle, 'test', :on, 1, 16352, :on)",
            "INSERT INTO plan_instalment SELECT id, 1, '2026-12-05', 16352 FROM plan",
            "UPDATE contributor SET merged_into_id = :new WHERE id = :old",
        ):
            execute(session, statement, values)
    with snapshot() as session:
        shown = present_bundle(session, bundle.reference, now=NOON, validity_months=24)
    assert shown is not None
    assert [each.reference for each in shown.current][1:] == [new]
    assert shown.due_minor == 3 * DUE
    record(a_report(bundle.reference, amount_minor=2 * DUE + 1_000))
    assert paid(database, [november, october]) == [DUE, 1_000]


def test_reconciling_asks_about_a_payment_of_a_bundle_without_a_record(database: str) -> None:
    ids = invoices(database, 2)
    record(a_report(bundled(ids).reference, amount_minor=2 * DUE))
    before = the_books()
    for period in ("2026-11", None):
        result = reconcile(period=period, now=NOON)
        assert (result.matched, result.sums.payments) == (0, 2 * DUE)
        assert result.exceptions == {"payment_without_record": 1}
    assert the_books().transfers == before.transfers
    seal_and_check()


def test_a_bundle_of_another_payment_is_found_by_the_check(database: str) -> None:
    ids = invoices(database, 2)
    record(a_report(bundled(ids[:1]).reference))
    other = bundled(ids[1:])
    seal_and_check()
    as_owner(database, f"UPDATE payment SET bundle_id = {other.id}")
    assert "a payment went where its transfers say: it does not hold" in {
        broken.what for broken in broken_promises()
    }


def test_what_cannot_be_bundled_is_refused_with_a_sentence(database: str) -> None:
    ids = invoices(database, 2)
    with transaction() as session:
        query = "SELECT reference FROM invoice WHERE id = :id"
        reference = execute(session, query, {"id": ids[1]}).scalar_one()
        cancel_invoice(session, reference, because="test", now=NOON)
    for given, says in (
        ([], "at least one"),
        ([ids[0], ids[0]], "named twice"),
        ([ids[0], 999], "no invoice 999"),
        ([ids[1]], "is cancelled"),
        (list(range(ITEMS_MAX + 1)), "make several"),
    ):
        with pytest.raises(Unusable, match=says):
            bundled(given)
    with pytest.raises(Unusable, match="no contributor 77"):
        bundled(ids[:1], 77)
