"""Whose a delivery is, and what is left of its body."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.db import execute, snapshot, transaction
from gateway.privacy import Subject
from gateway.references import format_reference
from tests.factories import NOON, a_delivery, an_event, rows_of, some_invoices
from webhooks.masking import BodyKind
from webhooks.personal import Inbox, without

ZINEB = Subject(
    contributor_id=1,
    file_ids=(1,),
    cnss_numbers=("123456789",),
    cins=("AB123456",),
    phones=("+212612345678",),
    names=("Zineb", "El Ouazzani", "زينب"),
    invoice_ids=(),
    bundle_ids=(),
    references=("148275036141",),
    payment_ids=(),
    payments=(("cashplus", "CP-77889"), ("cashplus", "7")),
    sources=("delivery:cashplus/msg_told",),
)


HERS = (
    b'{"x":"123456789"}',
    b'{"x":123456789}',
    b'{"x":"ref 123456789."}',
    b'{"x":"AB123456"}',
    b'{"x":"ab123456"}',
    b'{"x":"0612345678"}',
    b'{"x":"+212612345678"}',
    b'{"x":"00212612345678"}',
    b'{"x":"148275036141"}',
    b'{"x":"1482 7503 6141"}',
    b"ref=1482%207503%206141&x=y",
    b"oid=148275036141-2&x=y",
    b'{"id":"CP-77889"}',
    # As JSON may write them.
    b'{"x":"\\u0031\\u003234567\\u00389"}',
    b'{"x":"\\u0041\\u0042123456"}',
)
NOT_HERS = (
    b'{"x":"1234567890"}',
    b'{"x":"00123456789"}',
    b'{"x":"XAB123456"}',
    b'{"x":"9612345678"}',
    b'{"x":"1482750361412"}',
    b'{"id":"CP-778890"}',
    # Too short to be looked for: it stands in anybody's.
    b'{"id":"7"}',
    # A name alone is anybody's.
    '{"x":"Zineb زينب"}'.encode(),
)


def test_a_delivery_is_a_persons_by_number_reference_or_payment(database: str) -> None:
    hers = [a_delivery(body) for body in HERS]
    for body in NOT_HERS:
        a_delivery(body)
    a_delivery(b"{}", provider="bank", delivery_id="msg_told")
    with snapshot() as session:
        (found, *_) = Inbox().held(session, ZINEB)
    assert [row["delivery_id"] for row in found.rows] == hers


def test_what_told_of_the_payment_is_hers_whatever_it_says(database: str) -> None:
    a_delivery(b'{"nothing":"of her"}', delivery_id="msg_told")
    a_delivery(an_event("x", provider_payment_id="CP-77889"), provider="bank", delivery_id="other")
    with transaction() as session:
        execute(session, "UPDATE webhook_delivery SET state = 'done', outcome = 'ignored'")
    with snapshot() as session:
        (found, *_) = Inbox().held(session, ZINEB)
        assert [(row["delivery_id"], row["body"]) for row in found.rows] == [
            ("msg_told", '{"nothing":"of her"}')
        ]


def test_a_body_that_names_somebody_else_is_not_handed_out(database: str) -> None:
    (reference,) = some_invoices()
    ((number,),) = rows_of(database, "SELECT cnss_number FROM contributor")
    spaced = format_reference(reference)
    # Of payments that never came: no payment of anybody tells whose they are.
    others = [reference, spaced, spaced.replace(" ", "%20"), number]
    for typed in (*others, "999999999"):
        body = an_event("x", kind="payment.failed", memo=f"for 123456789, {typed}")
        a_delivery(body, delivery_id=typed)
    with snapshot() as session:
        (found, *_) = Inbox().held(session, replace(ZINEB, file_ids=()))
    shown = {row["delivery_id"]: row["body"] is not None for row in found.rows}
    assert shown == {**dict.fromkeys(others, False), "999999999": True}


def test_reasons_and_what_people_wrote_about_her_deliveries_are_emptied(database: str) -> None:
    a_delivery(an_event("x", memo="123456789"), delivery_id="hers", provider="bank")
    with transaction() as session:
        execute(
            session,
            "UPDATE webhook_delivery SET state = 'done', outcome = 'ignored',"
            " last_error = 'ValueError: Zineb is no amount'",
        )
    with transaction() as session:
        hold = Inbox().hold(session, ZINEB)
        found = {kind: count for kind, count in hold.erase(NOON).items() if count}
    assert found == {"webhook_delivery": 1, "webhook_delivery.last_error": 1}
    assert hold.subjects == ("delivery:bank/hers",)
    query = "SELECT last_error FROM webhook_delivery"
    assert rows_of(database, query) == [("ValueError: [erased] is no amount",)]


def test_what_never_changes_and_names_her_is_counted(database: str) -> None:
    """An address of a call, and a body that was masked before, by the names of fields alone."""
    with transaction() as session:
        execute(
            session,
            "INSERT INTO webhook_delivery (provider, delivery_id, body, body_sha256, received_at,"
            " path, state, outcome) SELECT 'wallet', path, :body, sha256(:body), :now, path,"
            " 'done', 'booked' FROM unnest(ARRAY['', '/bills/123456789']) AS path",
            {"body": an_event("148275036141", remark="of Zineb"), "now": NOON},
        )
    a_delivery(b'{"id":"123456789"}', delivery_id="msg_told")
    with transaction() as session:
        execute(
            session,
            "UPDATE webhook_delivery SET state = 'done', outcome = 'booked', masked_at = :now"
            " WHERE delivery_id = 'msg_told'",
            {"now": NOON},
        )
        # Masked before, of nobody's payment, with her number in a field of another name.
        execute(
            session,
            "INSERT INTO webhook_delivery (provider, delivery_id, body, body_sha256, received_at,"
            " state, outcome, masked_at) VALUES ('wallet', 'typed', :body, sha256(:body), :now,"
            " 'done', 'ignored', :now)",
            {"body": b'{"memo":"123456789"}', "now": NOON},
        )
        execute(
            session,
            "WITH ordered AS (INSERT INTO webhook_replay (asked_by, why, chosen_by, asked_at)"
            " VALUES ('us', 'for Zineb', '{}', :now) RETURNING id)"
            " INSERT INTO replayed_delivery SELECT ordered.id, d.id, 'ignored', :now FROM ordered,"
            " webhook_delivery d WHERE d.delivery_id = 'typed'",
            {"now": NOON},
        )
    with transaction() as session:
        hold = Inbox().hold(session, ZINEB)
        found = {kind: count for kind, count in hold.erase(NOON).items() if count}
    assert (hold.hindrances, found) == (
        (),
        {
            "webhook_delivery": 2,
            "left:webhook_delivery": 3,
            "left:webhook_replay": 1,
        },
    )


def test_a_body_loses_the_person_and_stays_what_it_was() -> None:
    said = {
        "amount": "163.52",
        "cnss_number": "123456789",
        "remark": 'a "Zineb" EL OUAZZANI, زينب, 06 or 0612345678; Zinebette stays',
        "reference": "148275036141",
    }
    for ascii_only in (True, False):
        body = json.dumps(said, ensure_ascii=ascii_only).encode()
        emptied = json.loads(without(ZINEB, body, BodyKind.JSON))
        assert emptied == {
            **said,
            "cnss_number": "[masked]",
            "remark": 'a "[erased]" EL [erased], [erased], 06 or [erased]; Zinebette stays',
        }


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        # A number that is no text, under a name that nobody knows.
        (b'{"ref":123456789,"amount":"1.00"}', BodyKind.JSON),
        (b"desc=for%20Zineb&amount=1.00", BodyKind.FORM),
        (b"\xff123456789", BodyKind.UNREADABLE),
    ],
)
def test_where_it_cannot_be_taken_out_the_body_goes_as_a_whole(body: bytes, kind: BodyKind) -> None:
    assert without(ZINEB, body, kind).startswith(b"[masked: ")
