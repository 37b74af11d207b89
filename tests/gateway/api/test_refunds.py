from __future__ import annotations

from gateway.db import transaction
from gateway.models import Role
from gateway.staff import create_key
from tests.factories import NOON, a_report, record, rows_of, some_invoices
from tests.gateway.api.conftest import Program, ProgramOf
from tests.gateway.api.test_problems import problem_of

WHY = {"because": "Paid twice"}


def paid(database: str) -> str:
    """Book a payment in cash; return its number."""
    (reference,) = some_invoices()
    record(a_report(reference, provider_payment_id="P1"))
    return str(rows_of(database, "SELECT id FROM payment")[0][0])


def test_asked_by_one_key_approved_by_another_paid_by_hand(
    database: str, program: ProgramOf
) -> None:
    payment = paid(database)
    finance, approver, admin = (program(r) for r in (Role.FINANCE, Role.APPROVER, Role.ADMIN))
    path = f"/payments/{payment}/refunds"
    body = {"amount": "50.00", **WHY}
    made = finance.post(path, body, once="one")
    asked = made.json()
    assert (made.status_code, asked["state"], asked["way"]) == (201, "asked", "by_hand")
    assert made.headers["location"] == f"/v1/refunds/{asked['id']}"
    assert finance.post(path, body, once="one").json() == asked
    address = f"/refunds/{asked['id']}"
    assert problem_of(finance.post(f"{address}/approve", WHY))["code"] == "role_may_not"
    assert problem_of(finance.post(path, {"amount": "113.53", **WHY}))["code"] == "refund_refused"
    early = problem_of(finance.post(f"{address}/paid-out", {"bank_reference": "VIR 1"}))
    assert "only approved ones" in early["detail"]
    assert problem_of(admin.post(path, WHY))["code"] == "role_may_not"
    own = finance.post(path, WHY).json()
    assert own["amount"] == "113.52"
    with transaction() as session:
        key = create_key(session, Role.APPROVER, now=NOON, label="Ours")
    again = problem_of(Program(finance.client, key).post(f"/refunds/{own['id']}/approve", WHY))
    assert "another person" in again["detail"]
    withdrawn = finance.post(f"/refunds/{own['id']}/refuse", WHY).json()
    assert (withdrawn["state"], withdrawn["decided_by"]) == ("refused", own["asked_by"])
    approved = approver.post(f"{address}/approve", {"because": "Seen"}).json()
    assert (approved["state"], approved["asked_by"]) == ("approved", asked["asked_by"])
    done = finance.post(f"{address}/paid-out", {"bank_reference": "VIR 1"}).json()
    assert (done["state"], done["bank_reference"], done["left"]) == ("done", "VIR 1", "113.52")
    assert [step["state"] for step in done["steps"]] == ["asked", "approved", "done"]
    assert finance.get(address).json() == done
    assert finance.get(f"/refunds?payment={payment}&state=done").json()["data"] == [done]
    held = finance.get(f"/payments/{payment}").json()
    assert (held["returned"], held["refunds"][0]) == ("50.00", done)
    assert [each["kind"] for each in held["transfers"]] == ["received", "refund_by_hand"]
    assert held["transfers"][1]["credit"] == "paid_out:institution"
    assert program(Role.SUPERVISOR).get(f"/payments/{payment}").json()["refunds"] is None
    came_back = finance.post(f"{address}/bounced", {"because": "Wrong account"}).json()
    assert came_back["state"] == "failed"
    assert finance.get("/exceptions?code=refund_failed").json()["data"][0]["detail"] == {
        "amount": "50.00",
        "why": "Wrong account",
    }


def test_what_is_no_refund_is_refused(database: str, program: ProgramOf) -> None:
    payment, finance = paid(database), program(Role.FINANCE)
    path = f"/payments/{payment}/refunds"
    for body, code in (
        ({"amount": "0.00", **WHY}, "refund_refused"),
        ({"amount": "1.001", **WHY}, "invalid_body"),
        ({"amount": "1.00"}, "invalid_body"),
        ({"way": "provider", **WHY}, "refund_refused"),
        ({"because": "Of 123456789"}, "refund_refused"),
    ):
        assert problem_of(finance.post(path, body))["code"] == code, body
    assert problem_of(finance.post("/payments/999/refunds", WHY))["code"] == "payment_not_found"
    assert problem_of(finance.get("/refunds/999"))["code"] == "refund_not_found"
    assert finance.get("/refunds").json() == {"data": [], "next_cursor": None}
