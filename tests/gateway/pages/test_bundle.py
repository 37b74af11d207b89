"""A reference that pays several invoices: its page, its papers, its receipts; a plan's too."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from gateway import process
from gateway.billing.bundles import withdraw_bundle
from gateway.billing.invoices import write_notices
from gateway.db import execute, snapshot, transaction
from gateway.pages.bundle import ROWS_MAX
from gateway.relief.plans import read_plan, review_plans
from tests.factories import NOON, a_report, record
from tests.gateway.pages import states
from tests.gateway.pages.conftest import set_clock
from tests.gateway.papers.reading import pages, words


def test_it_lists_what_it_pays_and_what_that_comes_to(client: TestClient) -> None:
    reference = states.several(states.an_invoice(), states.an_invoice("2026-10"), states.paid())
    answer = client.get(f"/{reference}")
    said = states.text_of(answer)
    assert answer.status_code == 200
    # 163.52 in time, and 163.52 with a month's penalty; what is paid is not asked for.
    for text in ("328,68 DH", "163,52", "165,16", "novembre 2026", "octobre 2026", "F. Z. E. I."):
        assert text in said.replace("\xa0", " ").replace("\u202f", " "), text
    assert not any(name in answer.text for name in states.SECRETS)
    assert "/card" not in answer.text.replace("#card", "")
    assert client.get(f"/{reference}?lang=ar").status_code == 200
    assert client.get(f"/{reference}.svg").status_code == 200
    assert client.get(f"/{reference}.svg?code=emv").status_code == 410
    assert client.post(f"/{reference}/card").status_code == 404, "nobody makes anything to pay by"


def test_a_reference_for_many_is_a_page_that_a_phone_can_load(client: TestClient) -> None:
    many = [states.an_invoice() for _ in range(ROWS_MAX + 2)]
    reference = states.several(*many)
    record(a_report(reference, amount_minor=16352 * len(many), paid_at=NOON))
    states.sign()
    # So is its receipt, and on paper it is one page still.
    for path in (f"/{reference}", f"/{reference}/receipt"):
        said = states.text_of(client.get(path))
        assert said.count("F. Z. E. I.") == ROWS_MAX
        assert "Et d’autres : 2" in said.replace("\xa0", " ")
    paper = client.get(f"/{reference}/receipt.pdf").content
    assert pages(paper) == 1
    assert "Et d’autres : 54" in words(paper).replace("\xa0", " ")


def test_its_notice_is_one_page_without_names(client: TestClient) -> None:
    reference = states.several(*(states.an_invoice() for _ in range(30)))
    paper = client.get(f"/{reference}.pdf")
    assert paper.headers["content-type"] == "application/pdf"
    assert pages(paper.content) == 1
    said = words(paper.content)
    assert reference[:4] in said
    assert not any(name in said for name in states.SECRETS)


def test_one_payment_pays_all_and_has_one_receipt(client: TestClient) -> None:
    first, second = states.an_invoice(), states.an_invoice("2026-10")
    reference = states.several(first, second)
    record(a_report(reference, amount_minor=16352 + 16516, paid_at=NOON))
    waits = client.get(f"/{reference}/receipt")
    assert waits.headers["refresh"].startswith("2;")
    states.sign()
    assert "Ces cotisations sont payées" in states.text_of(client.get(f"/{reference}"))
    said = states.text_of(client.get(f"/{reference}/receipt")).replace("\xa0", " ")
    assert "328,68 DH" in said
    assert "octobre 2026 – novembre 2026" in said
    [receipt] = states.receipts_of(reference)
    assert "authentique" in states.text_of(client.get(f"/verify/{receipt.number}"))
    paper = client.get(f"/{reference}/receipt.pdf")
    assert pages(paper.content) == 1
    # Each of what it paid, by period and initials, on the page and on paper.
    for text in ("novembre 2026", "163,52", "octobre 2026", "165,16", "F. Z. E. I."):
        assert text in said.replace("\u202f", " "), text
        assert text in words(paper.content).replace("\xa0", " "), text
    # Each invoice says that it is paid, and leads nobody to the others.
    alone = client.get(f"/{first}")
    assert "Payé avec d’autres" in states.text_of(alone)
    assert reference not in alone.text
    assert receipt.number not in alone.text


def test_one_that_was_withdrawn_pays_nothing(client: TestClient) -> None:
    reference = states.several(states.an_invoice())
    with transaction() as session:
        bundle_id = execute(session, "SELECT id FROM bundle").scalar_one()
        withdraw_bundle(session, bundle_id, now=NOON)
    said = states.text_of(client.get(f"/{reference}"))
    assert "Cette référence ne sert plus à payer" in said
    assert "163,52 DH" not in said.replace("\xa0", " ")
    assert pages(client.get(f"/{reference}.pdf").content) == 1


def test_a_plan_asks_for_what_came_due_since_and_the_next_instalment(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, invoices = states.a_plan(6)
    # July to October with 4 + 3 + 2 + 1 ... months of penalty: 654.08 + 1 % × 163.52 × 10.
    said = states.text_of(client.get(f"/{reference}")).replace("\xa0", " ")
    assert "Échéancier à payer" in said
    assert said.count("111,7") >= 6
    assert "novembre 2026" in said
    late = states.text_of(client.get(f"/{invoices[0]}"))
    assert "fait partie d’un échéancier" in late
    assert pages(client.get(f"/{reference}.pdf").content) == 1
    set_clock(monkeypatch, datetime(2027, 1, 15, 12, tzinfo=UTC))
    said = states.text_of(client.get(f"/{reference}"))
    assert "sinon l’échéancier est rompu" in said or "a été rompu" in said


@pytest.mark.parametrize("reviewed", [False, True])
def test_a_broken_plan_asks_for_all_that_is_due_with_the_penalty(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reviewed: bool
) -> None:
    reference, _ = states.a_plan(6)
    broken = datetime(2027, 2, 10, 12, tzinfo=UTC)
    if reviewed:
        with transaction() as session:
            review_plans(session, key=process.signing_key(), now=broken)
    set_clock(monkeypatch, broken)
    page, paper = client.get(f"/{reference}"), client.get(f"/{reference}.pdf")
    # July to November: 5 × 163.52, and 7 + 6 + 5 + 4 + 3 months of 1.6352, each rounded: 40.89.
    assert "858,49 DH" in states.text_of(page).replace("\xa0", " ").replace("\u202f", " ")
    said = words(paper.content).replace("\xa0", " ").replace("\u202f", " ")
    assert "858,49" in said
    for text in (states.text_of(page), said):
        assert "rompu" in text
        assert "111,7" not in text
        assert "sinon l’échéancier est rompu" not in text
    assert client.get(f"/{reference}?lang=ar").status_code == 200
    with snapshot() as session:
        plan_id = execute(session, "SELECT id FROM plan").scalar_one()
        view = read_plan(session, plan_id, on=broken.date())
    assert view is not None
    # Without November, which is not of the plan: 163.52 and 4.91.
    assert view.state.unpaid_minor == 85849 - 16843
    # What agents are given to collect by is the same, once the breach is written down.
    file = tmp_path / "notices.csv"
    assert write_notices(file, now=broken) == 5
    assert (",174.97," in file.read_text()) is reviewed
