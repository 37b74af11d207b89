"""What is personal in bodies goes in time, and what they say about money stays."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import process
from gateway.errors import Unusable
from gateway.providers.cmi import Cmi, CmiSettings
from gateway.retention import retention
from tests.factories import (
    NOON,
    a_delivery,
    a_desk,
    a_provider,
    an_event,
    as_owner,
    broken_promises,
    rows_of,
    seal,
    some_invoices,
    the_books,
)
from tests.webhooks.test_inbox import Faulty, a_variant, raises
from tests.webhooks.test_replay import ALL, park, replayed
from webhooks import retention as sweeping
from webhooks import tasks
from webhooks.inbox import drain
from webhooks.masking import MARK, BodyKind, is_personal, kind_of, mask
from webhooks.retention import Masked, Sweeps, count_due

PERSONAL: Final = ("payer_name", "cnss_number", "cin", "phone", "payer_note", "email", "payer")
SECRET: Final = "Fatima Zahra"
NUMBER: Final = "123456785"
AFTER: Final = NOON + timedelta(days=1)
TOLD: Final[dict[str, Any]] = {"delivery_id": "msg_1", "received_at": NOON}

texts = st.text(max_size=20)
scalars = st.one_of(texts, st.integers(), st.booleans(), st.none(), st.decimals(-9, 9).map(str))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(texts, st.sampled_from(PERSONAL)), inner, max_size=3),
    ),
    max_leaves=8,
)
facts = st.fixed_dictionaries(
    {
        "provider_payment_id": st.one_of(texts, st.just("P1")),
        "reference": st.one_of(texts, st.just("148275036141")),
        "amount": st.sampled_from(["163.52", "1.0", "-1", "1e2", 163.52, None]),
        "currency": st.sampled_from(["MAD", "EUR"]),
        "channel": st.sampled_from(["wallet", "telepathy"]),
    },
    optional=dict.fromkeys(("agent_id", "fee", "paid_at", *PERSONAL), values),
)
events = st.fixed_dictionaries(
    {"type": st.sampled_from(["payment.completed", "Payment.failed", "x"]), "data": facts},
    optional={"timestamp": st.just("2026-11-18T11:06:40+00:00"), "name": values, "more": values},
)
forms = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("oid", "amount", "currency", "TransId", "ProcReturnCode", "MaskedPan", "x y"),
                *("BillToName", "BillToStreet1", "email", "tel", "clientIp"),
            ]
        ),
        st.one_of(texts, st.sampled_from(["148275036141", "172.50", "504", "00"])),
    ),
    max_size=12,
)


def masked(body: bytes) -> bytes:
    return mask(body, kind_of(body))


def personal_in(value: Any, inside: bool = False) -> list[Any]:
    """Return every text and number below a personal name."""
    match value:
        case dict():
            return [v for n, x in value.items() for v in personal_in(x, inside or is_personal(n))]
        case list():
            return [v for x in value for v in personal_in(x, inside)]
        case bool() | None:
            return []
        case _:
            return [value] if inside else []


@settings(max_examples=200, deadline=None)
@given(event=events, spaced=st.booleans(), escaped=st.booleans())
def test_masked_or_not_a_dialect_reads_the_same(event: Any, spaced: bool, escaped: bool) -> None:
    text = json.dumps(event, indent=1 if spaced else None, ensure_ascii=escaped)
    body = text.encode("utf-8", "replace")
    after = masked(body)
    assert a_provider().parse(after, **TOLD) == a_provider().parse(body, **TOLD)
    assert masked(after) == after
    assert set(personal_in(json.loads(after))) <= {MARK, 0}
    hidden = [each for each in personal_in(event) if each not in {MARK, 0}]
    assert (after == body) is (hidden == [])


@settings(max_examples=200, deadline=None)
@given(pairs=forms)
def test_masked_or_not_a_form_says_the_same_of_money(pairs: list[tuple[str, str]]) -> None:
    body = urlencode(pairs, errors="replace").encode()
    cmi = Cmi("cmi", CmiSettings(client_id="600000000", store_key="TEST1234"))
    after = mask(body, BodyKind.FORM)
    assert cmi.parse(after, **TOLD) == cmi.parse(body, **TOLD)
    assert mask(after, BodyKind.FORM) == after
    kept = dict(parse_qsl(after.decode(), keep_blank_values=True))
    assert {value for name, value in kept.items() if is_personal(name)} <= {MARK, ""}


@pytest.mark.parametrize(
    ("body", "left"),
    [
        # Every other byte stays: how numbers are written, names that stand twice, spaces.
        (
            b'{"a": 1e5,"a":-0.10 , "na\\u006de":"\\"x"}',
            b'{"a": 1e5,"a":-0.10 , "na\\u006de":"%s"}',
        ),
        (b'{"rib": "0078", "account_holder": "F"}', b'{"rib": "%s", "account_holder": "%s"}'),
        (b'{"CNSS-Number": 123456785, "cin": null}', b'{"CNSS-Number": 0, "cin": null}'),
        (b'{"payer": {"a": ["b", {"c": true}]}}', b'{"payer": {"a": ["%s", {"c": true}]}}'),
        # One field may name another.
        (b'[{"value": "+212", "key": "msisdn"}]', b'[{"value": "%s", "key": "msisdn"}]'),
        (b'{"name": "Fatima Z", "value": 172.5}', b'{"name": "%s", "value": 172.5}'),
        (b'[{"Name": "Amount", "Value": 172.5}]', b'[{"Name": "Amount", "Value": 172.5}]'),
        # What has no name is no money.
        (b'["Fatima", [123456785]]', b'["%s", [0]]'),
        (b'"Fatima"', b'"%s"'),
        (b"oid=1&Bill%54oName=F+Z&tel=&b", b"oid=1&Bill%54oName=%%5Bmasked%%5D&tel=&b"),
        (b"\xff\xfe Fatima", b"[masked: 9 bytes]"),
        (b"", b"[masked: 0 bytes]"),
    ],
)
def test_what_goes_and_what_stays(body: bytes, left: bytes) -> None:
    expected = left.replace(b"%s", MARK.encode()).replace(b"%%", b"%")
    assert masked(body) == expected
    assert masked(expected) == expected


def test_bodies_are_masked_in_time_and_known_for_the_same_afterwards(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "BATCH_SIZE", 2)
    monkeypatch.setattr(sweeping, "RANGE_ROWS", 3)
    references = some_invoices(5)
    person = {"payer_name": SECRET, "cnss_number": NUMBER}
    bodies = [an_event(each, provider_payment_id=each, **person) for each in references]
    named = [a_delivery(body) for body in bodies]
    a_delivery(b'{"poison": 1, "name": "Fatima Zahra"}', delivery_id="msg_poison")
    a_delivery(an_event(references[0], currency="EUR", **person))
    young = a_delivery(an_event(references[0], amount="1.00", **person), received_at=AFTER)
    a_variant(an_event(references[0], payer_name=SECRET), named[0])
    a_variant(b"Fatima Zahra", "msg_none", readable=False)
    park(database, a_desk(Faulty(b"poison", raises(RuntimeError("a fault")))))
    before = the_books()
    assert count_due(AFTER) == Masked(6, 2)
    sweeps = Sweeps()
    assert sweeps.mask_old(AFTER, now=AFTER, seconds=60) == Masked(6, 2)
    assert sweeps.mask_old(AFTER, now=AFTER, seconds=60) == count_due(AFTER) == Masked()
    rows = rows_of(
        database,
        "SELECT body, delivery_id, masked_at FROM webhook_delivery UNION ALL"
        " SELECT body, 'variant', masked_at FROM webhook_variant",
    )
    as_they_came = {name for body, name, at in rows if SECRET.encode() in bytes(body)}
    assert as_they_came == {"msg_poison", young} == {name for _, name, at in rows if at is None}
    assert {at for _, _, at in rows} == {None, AFTER}
    # The hash is still that of what came, so what comes again is no variant.
    hashes = rows_of(database, "SELECT body_sha256 FROM webhook_delivery ORDER BY id LIMIT 5")
    assert [bytes(each) for (each,) in hashes] == [hashlib.sha256(b).digest() for b in bodies]
    assert the_books() == before
    seal()
    assert broken_promises(deliveries=True) == []
    # A replay proves nothing by what is left, and a later body is held against the same money.
    assert replayed(ALL) == {"masked": 1, "quarantined": 1, "repeated": 6}
    a_variant(an_event(references[1], provider_payment_id=references[1]), named[1])
    drain(a_desk(), batches_max=9)
    assert ("conflicting_delivery", f"delivery:cashplus/{named[1]}") not in the_books().exceptions


def test_the_worker_masks_by_the_business_clock(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_delivery(an_event("1", payer_name=SECRET))
    drain(a_desk(), batches_max=1)
    for late, is_masked in ((0, False), (1, True)):
        at = NOON + timedelta(days=retention().bodies.days, seconds=late)
        monkeypatch.setenv("WASL_CLOCK", f"={at.isoformat()}")
        _forget()
        process.business_clock.cache_clear()
        tasks.mask_bodies()
        ((body, masked_at),) = rows_of(database, "SELECT body, masked_at FROM webhook_delivery")
        assert masked_at == (at if is_masked else None)
        assert (SECRET.encode() not in bytes(body)) is is_masked


def test_what_was_changed_by_hand_is_not_taken_for_masked(database: str) -> None:
    a_delivery(an_event("1"))
    a_delivery(b"{}", delivery_id="msg_early")
    drain(a_desk(), batches_max=9)
    as_owner(
        database,
        "UPDATE webhook_delivery SET body = '{}' WHERE delivery_id <> 'msg_early'",
        "UPDATE webhook_delivery SET masked_at = received_at, state = 'waiting', outcome = NULL"
        " WHERE delivery_id = 'msg_early'",
    )
    seal()
    assert {found.what.partition(":")[0] for found in broken_promises(deliveries=True)} == {
        "a delivery's bytes are those that came",
        "what was not acted on is as it came",
    }


def test_the_periods_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = retention().bodies
    assert bodies.before(NOON) == NOON - timedelta(days=bodies.days)
    assert (bodies.source != "", bodies.verified) == (True, False)
    file = tmp_path / "retention.toml"
    monkeypatch.setenv("WASL_RETENTION", str(file))
    for text, said in (
        ("[bodies]\ndays = 0\nsource = 'x'\nverified = true\n", "line 2, at bodies.days"),
        ("[bodies]\ndays = 30\nverified = true\n", "bodies.source: it is missing"),
        (None, "cannot be read"),
    ):
        _forget()
        if text is None:
            file.unlink()
        else:
            file.write_text(text)
        with pytest.raises(Unusable, match=said):
            retention()
    _forget()


def _forget() -> None:
    from gateway.settings import settings as read

    read.cache_clear()
    retention.cache_clear()
