from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import base45
import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import VerifyKey
from pycose.keys.okp import OKPKey
from pycose.messages.sign1message import Sign1Message

from gateway.codes.receipts import (
    Changed,
    Claims,
    Cut,
    ForeignKey,
    Genuine,
    NotAReceipt,
    as_text,
    claimed,
    read,
    sign,
)
from gateway.money import AMOUNT_MINOR_MAX

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/receipts.json").read_text("utf-8"))
COSE = GOLDEN["cose_sign1"]
CODE: str = COSE["base45_with_prefix"]
KEY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(GOLDEN["key"]["seed_hex"]))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEYS = {"r0": OTHER_KEY.public_key(), "r1": KEY.public_key()}
PAID = Claims(
    receipt_number=GOLDEN["claims"]["rcp"],
    reference=GOLDEN["claims"]["ref"],
    amount_minor=GOLDEN["claims"]["amt"],
    paid_at=datetime.fromtimestamp(GOLDEN["claims"]["paid"], UTC),
    period=GOLDEN["claims"]["per"],
    channel=GOLDEN["claims"]["ch"],
)
STATED: dict[Any, Any] = cbor2.loads(bytes.fromhex(COSE["payload_hex"]))
EDDSA = cbor2.dumps({1: -8})

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
all_claims = st.builds(
    Claims,
    receipt_number=texts,
    reference=texts,
    amount_minor=st.integers(1, AMOUNT_MINOR_MAX),
    paid_at=st.integers(0, 253_402_300_799).map(lambda at: datetime.fromtimestamp(at, UTC)),
    period=texts,
    channel=texts,
)


def signed_over(
    payload: bytes,
    *,
    key: Ed25519PrivateKey = KEY,
    protected: bytes = EDDSA,
    unprotected: Any = None,
    tag: int = 18,
) -> str:
    """Return a code over any payload, signed as RFC 9052 says, by code apart from the product's."""
    signature = key.sign(cbor2.dumps(["Signature1", protected, b"", payload]))
    header = {4: b"r1"} if unprotected is None else unprotected
    return coded(cbor2.CBORTag(tag, [protected, header, payload, signature]))


def coded(item: Any) -> str:
    return as_text(cbor2.dumps(item))


def test_the_golden_receipt_is_made_byte_for_byte() -> None:
    signed = sign(PAID, key_id="r1", private_key=KEY)
    assert signed.hex() == COSE["hex"]
    assert as_text(signed) == CODE
    assert read(CODE, KEYS) == Genuine(PAID, "r1")


@settings(deadline=None)
@given(all_claims)
def test_every_receipt_verifies_by_second_and_third_opinions(claims: Claims) -> None:
    signed = sign(claims, key_id="r1", private_key=KEY)
    public = bytes.fromhex(GOLDEN["key"]["public_hex"])

    second = Sign1Message.decode(signed)
    second.key = OKPKey(crv="ED25519", x=public)
    assert second.verify_signature()

    protected, header, payload, signature = cbor2.loads(signed).value
    VerifyKey(public).verify(cbor2.dumps(["Signature1", protected, b"", payload]), signature)
    assert header == {4: b"r1"}
    assert cbor2.loads(payload) == {
        1: "amo-gw",
        6: int(claims.paid_at.timestamp()),
        -70001: claims.receipt_number,
        -70002: claims.reference,
        -70003: claims.amount_minor,
        -70004: claims.period,
        -70005: claims.channel,
    }
    assert read(as_text(signed), KEYS) == Genuine(claims, "r1")


def test_a_second_opinion_signs_what_we_find_genuine() -> None:
    payload = cbor2.dumps(STATED)
    message = Sign1Message(phdr={1: -8}, uhdr={4: b"r1"}, payload=payload)
    message.key = OKPKey(
        crv="ED25519",
        d=bytes.fromhex(GOLDEN["key"]["seed_hex"]),
        x=bytes.fromhex(GOLDEN["key"]["public_hex"]),
    )
    assert message.encode().hex() == COSE["hex"]


def test_a_time_is_signed_as_the_instant_it_is() -> None:
    there = PAID.paid_at.astimezone(timezone(timedelta(hours=1)))
    assert sign(replace(PAID, paid_at=there), key_id="r1", private_key=KEY).hex() == COSE["hex"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"paid_at": datetime(2026, 11, 18)},  # noqa: DTZ001 - naive on purpose
        {"paid_at": PAID.paid_at.replace(microsecond=1)},
        {"amount_minor": 0},
        {"amount_minor": AMOUNT_MINOR_MAX + 1},
    ],
)
def test_what_would_not_read_back_is_never_signed(wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        sign(replace(PAID, **wrong), key_id="r1", private_key=KEY)


@pytest.mark.parametrize(
    "arrives_as",
    [
        lambda code: f" \n\t{code} \r\n",
        lambda code: f"\ufeff\u200f{code}\u200e",
        lambda code: f"\u2067{code[:100]}\u2069{code[100:]}",
        str.lower,
        lambda code: "amo1:" + code[5:],
        lambda code: code.replace(" ", "\u00a0"),
        lambda code: "\n".join(code[at : at + 60] for at in range(0, len(code), 60)),
        lambda code: "\n".join(code.replace(" ", "\u00a0").partition("B")),
        lambda code: "\r\n\t".join(code[at : at + 76] for at in range(0, len(code), 76)),
        lambda code: code.replace(" ", " \n"),
        lambda code: code.replace(" ", "\n"),
        lambda code: code + " " * 20,
    ],
)
def test_what_a_paste_does_to_a_code_is_undone(arrives_as: Callable[[str], str]) -> None:
    assert " " in CODE
    assert read(arrives_as(CODE), KEYS) == Genuine(PAID, "r1")


@settings(deadline=None)
@given(st.binary())
def test_a_code_never_ends_in_a_space(signed: bytes) -> None:
    assert not as_text(signed).endswith(" ")


def test_every_cut_is_called_one() -> None:
    for length in range(len("AMO1:"), len(CODE)):
        assert read(CODE[:length], KEYS) == Cut()
    for length in range(len("AMO1:")):
        assert read(CODE[:length], KEYS) == NotAReceipt()
    for lost in range(len("AMO1:"), len(CODE)):
        assert read(CODE[:lost] + CODE[lost + 1 :], KEYS) == Cut()


def test_what_goes_on_after_its_end_is_no_receipt() -> None:
    assert read(as_text(bytes.fromhex(COSE["hex"]) + b"\x00"), KEYS) == Cut()
    assert read(signed_over(cbor2.dumps(STATED) + b"\x00"), KEYS) == Changed("r1")


@settings(deadline=None)
@given(
    st.integers(5, len(CODE) - 1), st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ%*+-./:")
)
def test_one_wrong_character_is_never_genuine(place: int, wrong: str) -> None:
    if wrong != CODE[place]:
        assert not isinstance(read(CODE[:place] + wrong + CODE[place + 1 :], KEYS), Genuine)


@pytest.mark.parametrize(
    ("label", "value"),
    [(6, 1795000001), (-70001, "R26-000000124"), (-70003, 17251), (-70005, "card")],
)
def test_a_changed_claim_is_called_so(label: int, value: object) -> None:
    message = cbor2.loads(bytes.fromhex(COSE["hex"]))
    message.value[2] = cbor2.dumps({**STATED, label: value})
    assert read(coded(message), KEYS) == Changed("r1")


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_a_signature_that_is_none_is_called_so(signature: bytes) -> None:
    message = cbor2.loads(bytes.fromhex(COSE["hex"]))
    message.value[3] = signature
    assert read(coded(message), KEYS) == Changed("r1")


def test_our_key_id_over_another_key_is_a_changed_receipt() -> None:
    assert read(signed_over(cbor2.dumps(STATED), key=OTHER_KEY), KEYS) == Changed("r1")
    assert read(as_text(sign(PAID, key_id="r0", private_key=KEY)), KEYS) == Changed("r0")


def test_another_algorithm_is_not_followed() -> None:
    for protected in (b"", cbor2.dumps({}), cbor2.dumps({1: -7}), cbor2.dumps({1: 5, 2: [1]})):
        assert read(signed_over(cbor2.dumps(STATED), protected=protected), KEYS) == Changed("r1")
        relabelled = cbor2.loads(bytes.fromhex(COSE["hex"]))
        relabelled.value[0] = protected
        assert read(coded(relabelled), KEYS) == Changed("r1")


def test_a_key_that_we_never_had_is_named() -> None:
    by_another = as_text(sign(PAID, key_id="x9", private_key=OTHER_KEY))
    assert read(by_another, KEYS) == ForeignKey("x9")
    assert read(CODE, {}) == ForeignKey("r1")
    assert read(signed_over(b"", unprotected={4: b"\xff\x00"}), KEYS) == ForeignKey("\ufffd\x00")
    assert read(signed_over(b"", unprotected={4: "r1"}), KEYS) == ForeignKey(None)
    assert read(signed_over(b"", unprotected={}), KEYS) == ForeignKey(None)


@pytest.mark.parametrize(
    "code",
    [case["value"] for case in GOLDEN["negative"]] + [GOLDEN["compact"]["base45_with_prefix"]],
)
def test_receipts_of_another_form_are_not_ours(code: str) -> None:
    assert read(code, KEYS) == ForeignKey(None)
    assert claimed(code) is None


@pytest.mark.parametrize(
    "text",
    ["", "AMO1", "AMO2:123", "148275036141", " AMO 1:", GOLDEN["jws_compact"]["value"], "\ud800"],
)
def test_another_text_is_no_receipt(text: str) -> None:
    assert read(text, KEYS) == NotAReceipt()


def test_a_tag_that_is_not_for_signatures_is_not_followed() -> None:
    payload = cbor2.dumps(STATED)
    assert read(signed_over(payload, tag=17), KEYS) == ForeignKey(None)
    assert read(signed_over(payload, tag=61), KEYS) == ForeignKey(None)
    twice = cbor2.CBORTag(18, cbor2.CBORTag(18, []))
    assert read(coded(twice), KEYS) == Cut()


@pytest.mark.parametrize(
    "changes",
    [
        {1: "another"},
        {1: None},
        {6: "1795000000"},
        {6: 1795000000.0},
        {6: -1},
        {6: 253402300800},
        {6: 2**64 - 1},
        {-70001: 26},
        {-70002: b"148275036141"},
        {-70003: 0},
        {-70003: -17250},
        {-70003: AMOUNT_MINOR_MAX + 1},
        {-70003: 2**64},
        {-70003: "17250"},
        {-70003: True},
        {-70004: []},
        {-70005: {}},
        {7: datetime(2026, 11, 18, tzinfo=UTC)},
    ],
)
def test_what_our_key_signed_and_is_no_receipt_is_not_genuine(changes: dict[int, object]) -> None:
    code = signed_over(cbor2.dumps({**STATED, **changes}))
    assert read(code, KEYS) == Changed("r1")
    assert claimed(code) is None


@pytest.mark.parametrize("missing", STATED)
def test_a_receipt_without_one_of_its_claims_is_not_genuine(missing: int) -> None:
    left = {label: value for label, value in STATED.items() if label != missing}
    assert read(signed_over(cbor2.dumps(left)), KEYS) == Changed("r1")


def test_a_claim_stated_twice_is_not_genuine() -> None:
    payload = b"\xa8" + cbor2.dumps(STATED)[1:] + cbor2.dumps(-70003) + cbor2.dumps(1)
    assert read(signed_over(payload), KEYS) == Changed("r1")


simple = st.integers(-(2**64), 2**64 - 1) | texts | st.binary(max_size=300)
names = st.integers(-(2**64), 2**64 - 1) | st.text("xyz", max_size=3)
nested = st.recursive(
    simple, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(deadline=None)
@given(st.integers(1000, 2000), simple | st.lists(simple, max_size=4))
def test_a_claim_that_a_later_version_adds_changes_nothing(label: int, value: object) -> None:
    code = signed_over(cbor2.dumps({**STATED, label: value}))
    assert read(code, KEYS) == (Genuine(PAID, "r1") if len(code) <= 2_048 else Cut())


@pytest.mark.parametrize("depth", [3, 4, 5, 300])
def test_nesting_ends_somewhere(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    expected = Genuine(PAID, "r1") if depth <= 3 else Changed("r1")
    assert read(signed_over(cbor2.dumps({**STATED, 1000: value})), KEYS) == expected


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "bomb",
    [
        b"\xd8\x1e\x81\x6a1e99999999",  # a fraction, of a number with a hundred million digits
        b"\xc5\x82\x1b\x7f" + b"\xff" * 7 + b"\x01",  # two to the power of nine quintillions
        b"\xd8\x23\x78\xff" + b"(" * 255,  # a regular expression
        b"\x9b" + b"\xff" * 8,
        b"\xbb" + b"\xff" * 8,
        b"\x5b" + b"\xff" * 8,
        b"\x81" * 1_200,
        b"\xa1\x00" * 600,
        b"\x9f" * 1_200,
        b"\xa1\x80\x01",  # a list that names something
        b"\xa1\xa0\x01",
        b"\x81" * 3 + b"\x9a\xff\xff\xff\xff" + b"\x00" * 1_000,
    ],
)
def test_a_bomb_does_nothing(bomb: bytes) -> None:
    assert read(as_text(bomb), KEYS) == ForeignKey(None)
    assert read(as_text(b"\xd2" + bomb), KEYS) == Cut()
    assert read(signed_over(bomb), KEYS) == Changed("r1")
    assert claimed(as_text(b"\xd2" + bomb)) is None
    assert claimed(signed_over(bomb)) is None


@pytest.mark.parametrize(
    "code", [":::", "A", "AAAA", "GGW", "A:", "é", "A\u0661A", "!", "", " \n "]
)
def test_what_base45_cannot_be_is_cut(code: str) -> None:
    assert read(f"AMO1:{code}", KEYS) == Cut()


@pytest.mark.parametrize("case", GOLDEN["base45_rfc9285"], ids=lambda case: case["text"])
def test_base45_is_that_of_the_standard(case: dict[str, str]) -> None:
    assert as_text(bytes.fromhex(case["bytes_hex"])) == "AMO1:" + case["text"]
    assert base45.b45decode(case["text"]).hex() == case["bytes_hex"]


def test_a_text_without_end_is_not_looked_at() -> None:
    assert read(CODE + " " * 2_048, KEYS) == Cut()
    assert read(CODE * 10_000, KEYS) == Cut()
    assert read(" " * 5_000 + CODE, KEYS) == NotAReceipt()


def test_what_a_code_claims_is_known_unverified() -> None:
    assert claimed(CODE) == PAID
    assert claimed(as_text(sign(PAID, key_id="x9", private_key=OTHER_KEY))) == PAID
    assert claimed(CODE.replace(" ", "\n")) == PAID
    assert claimed(CODE[:-3]) is None
    assert claimed("148275036141") is None


anything = (
    st.text()
    | st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:\n").map("AMO1:".__add__)
    | st.binary(max_size=60).map(as_text)
    | st.binary(max_size=60).map(lambda rest: as_text(b"\xd2" + rest))
    | st.binary(max_size=60).map(lambda rest: as_text(bytes.fromhex(COSE["hex"])[:20] + rest))
    | st.binary(max_size=60).map(signed_over)
    | nested.map(lambda item: coded(cbor2.CBORTag(18, item)))
    | st.lists(nested, min_size=4, max_size=4).map(lambda item: coded(cbor2.CBORTag(18, item)))
    | nested.map(lambda item: signed_over(cbor2.dumps(item)))
    | st.dictionaries(st.sampled_from(list(STATED)), nested).map(
        lambda stated: signed_over(cbor2.dumps({**STATED, **stated}))
    )
)


@settings(deadline=None)
@given(anything)
def test_any_text_is_worth_something_and_raises_nothing(text: str) -> None:
    reading = read(text, KEYS)
    assert isinstance(reading, Genuine | Changed | ForeignKey | Cut | NotAReceipt)
    stated = claimed(text)
    if isinstance(reading, Genuine):
        assert stated == reading.claims
        signed = sign(reading.claims, key_id="r1", private_key=KEY)
        assert isinstance(read(as_text(signed), KEYS), Genuine)
