from __future__ import annotations

import binascii
import json
from pathlib import Path
from typing import Any

import cemacqr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codes.emv import EmvPayload, MerchantTemplate, UnreadableEmv, decode, encode
from gateway.errors import Unusable
from gateway.references import with_check_digits

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/emv_qr.json").read_text("utf-8"))
PAYLOADS: dict[str, str] = {case["id"]: case["payload"] for case in GOLDEN["payloads"]}
PLAIN = PAYLOADS["own-ascii"]

LATIN = {
    "guid": "ma.example.amo",
    "merchant_id": "CNSSTEST",
    "name": "CNSS AMO",
    "city": "CASABLANCA",
}
ARABIC = {"name_ar": "الضمان الاجتماعي", "city_ar": "الدار البيضاء"}

references = st.integers(10**9, 10**10 - 1).map(with_check_digits)
words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)
arabic = st.text(st.characters(min_codepoint=0x0621, max_codepoint=0x064A), min_size=1)


def merchant(**values: Any) -> MerchantTemplate:
    return MerchantTemplate(**{**LATIN, **values})


def row(fields: dict[str, str]) -> str:
    return "".join(f"{key}{len(value):02d}{value}" for key, value in fields.items())


def sealed(payload: str) -> str:
    """Return a row of fields with its checksum, made apart from the code under test."""
    return f"{payload}6304{binascii.crc_hqx((payload + '6304').encode(), 0xFFFF):04X}"


@pytest.mark.parametrize(
    ("name", "values", "reference"),
    [
        ("own-arabic", ARABIC, "148275036141"),
        ("own-ascii", {}, "148275036141"),
        ("crc-leading-zero-1", {}, "300000000665"),
        ("crc-leading-zero-2", {}, "300000003478"),
    ],
)
def test_golden_payloads_are_made(name: str, values: dict[str, str], reference: str) -> None:
    made = encode(
        merchant(**values), reference=reference, amount_minor=17250, period_code="2026-10"
    )
    assert made == PAYLOADS[name]
    read = decode(made)
    assert (read.reference, read.amount_minor, read.currency) == (reference, 17250, "504")


@pytest.mark.parametrize("case", GOLDEN["payloads"], ids=lambda case: case["id"])
def test_golden_payloads_are_read(case: dict[str, Any]) -> None:
    payload = case["payload"]
    assert (len(payload), len(payload.encode())) == (case["chars"], case["utf8_bytes"])
    read = decode(payload)
    assert read.fields["63"] == case["crc"]
    second = cemacqr.parse_payload(payload)
    assert list(read.fields) == second.tags
    assert all(second.get(key) == value for key, value in read.fields.items())
    for key, inside in read.templates.items():
        assert inside == second.template(key)


def test_another_makers_payload_says_what_it_says_and_no_more() -> None:
    read = decode(PAYLOADS["emvco-annex-golden"])
    assert read.fields["59"] == "BEST TRANSPORT"
    assert read.templates["64"]["01"] == "最佳运输"
    assert read.templates["62"]["03"] == "1234"
    assert (read.reference, read.amount_minor, read.currency) == (None, None, "156")


@pytest.mark.parametrize("case", GOLDEN["negative"], ids=lambda case: case["name"])
def test_golden_errors_are_caught(case: dict[str, str]) -> None:
    with pytest.raises(UnreadableEmv):
        decode(case["payload"])


@settings(deadline=None)
@given(
    name=words.map(lambda t: t[:25]),
    city=words.map(lambda t: t[:15]),
    name_ar=st.none() | arabic.map(lambda t: t[:25]),
    reference=references,
    amount_minor=st.integers(1, 10**12 - 1),
    period_code=st.sampled_from(["2026-11", "2026-Q4"]),
)
def test_what_is_made_is_valid_by_a_second_opinion(
    name: str, city: str, name_ar: str | None, reference: str, amount_minor: int, period_code: str
) -> None:
    who = merchant(name=name, city=city, name_ar=name_ar)
    made = encode(who, reference=reference, amount_minor=amount_minor, period_code=period_code)
    second = cemacqr.parse_payload(made)
    report = cemacqr.validate(second)
    assert report.status == "VALID", str(report)
    assert second.tags == [*sorted(set(second.tags) - {"63"}), "63"]
    assert second.get("01") == "12"
    assert second.get_in("62", "05") == f"RF74{reference}"
    read = decode(made)
    assert (read.reference, read.amount_minor) == (reference, amount_minor)
    assert (read.fields["59"], read.fields["60"]) == (name, city)
    assert read.templates.get("64", {}).get("01") == name_ar


@pytest.mark.parametrize("first", ["26", "27"])
def test_an_acquirers_templates_stand_in_order_instead_of_ours(first: str) -> None:
    given_to_us = {"80": "0032" + "37" * 16 + "01011", "30": "0003abc", first: "0003def0102xy"}
    made = encode(
        merchant(acquirer=given_to_us, **ARABIC),
        reference="148275036141",
        amount_minor=1,
        period_code="2026-10",
    )
    assert "ma.example.amo" not in made
    read = decode(made)
    assert {key: read.fields[key] for key in given_to_us} == given_to_us
    order = ["00", "01", first, "30", "52", "53", "54", "58", "59", "60", "62", "64", "80", "63"]
    assert list(read.fields) == order
    assert cemacqr.validate(cemacqr.parse_payload(made)).ok


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"name": "x" * 26}, "name .* 25 characters"),
        ({"name": ""}, "name"),
        ({"name": "Sécurité"}, "without accents"),
        ({"name": " CNSS"}, "a space at either end"),
        ({"city": "x" * 16}, "city .* 15 characters"),
        ({"city": "الرباط"}, "city .* without accents"),
        ({"guid": "x" * 33}, "32 characters"),
        ({"guid": "a\n"}, "payment system"),
        ({"guid": "x" * 32, "merchant_id": "y" * 60}, "91 characters together"),
        ({"merchant_id": ""}, "merchant's number"),
        ({"mcc": "939"}, "four digits"),
        ({"mcc": "٩٣٩٩"}, "four digits"),
        ({"name_ar": "ا" * 26}, "Arabic name .* 25 characters"),
        ({"name_ar": "ا\u200fب"}, "Arabic name"),
        ({"name_ar": "اب", "city_ar": "ا" * 16}, "Arabic city .* 15 characters"),
        ({"city_ar": "الرباط"}, "needs the Arabic name"),
        ({"acquirer": {"25": "0001a"}}, "26 to 51 or 80 to 99"),
        ({"acquirer": {"80": "0001a"}}, "one with an id of 26 to 51"),
        ({"acquirer": {"26": ""}}, "1 to 99"),
        ({"acquirer": {"26": "0001a" + "01" + "95" + "x" * 95}}, "1 to 99"),
        ({"acquirer": {"26": "0001é"}}, "ASCII"),
        ({"acquirer": {"26": "0002a"}}, "is not one"),
        ({"acquirer": {"26": "0101a"}}, "begins with field 00"),
        ({"acquirer": {"26": "0001a0001b"}}, "is not one"),
        ({"acquirer": {"26": "26050001a"}}, "is not one"),
        ({"acquirer": {str(n): f"0095{'x' * 95}" for n in range(26, 30)}}, "too long together"),
    ],
)
def test_a_merchant_that_no_code_can_name_is_a_sentence(
    values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Unusable, match=sentence) as refused:
        merchant(**values)
    assert str(refused.value).endswith(".")


@pytest.mark.parametrize("amount_minor", [0, -1, 10**12])
def test_a_code_never_asks_for_nothing_or_for_more_than_fits(amount_minor: int) -> None:
    with pytest.raises(AssertionError):
        encode(
            merchant(), reference="148275036141", amount_minor=amount_minor, period_code="2026-10"
        )


@settings(deadline=None)
@given(st.integers(0, len(PLAIN) - 1), st.characters(min_codepoint=32, max_codepoint=126))
def test_one_wrong_character_never_reads_as_something_else(place: int, wrong: str) -> None:
    changed = PLAIN[:place] + wrong + PLAIN[place + 1 :]
    if changed.upper() == PLAIN.upper() and place >= len(PLAIN) - 4:
        assert decode(changed).reference == "148275036141"
        return
    if changed == PLAIN:
        return
    with pytest.raises(UnreadableEmv):
        decode(changed)


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_a_cut_payload_is_never_read(payload: str) -> None:
    for length in range(len(payload)):
        with pytest.raises(UnreadableEmv):
            decode(payload[:length])
    with pytest.raises(UnreadableEmv):
        decode(payload[1:])


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        ("", "begin with 000201"),
        ("https://wasl.ma.example/148275036141", "begin with 000201"),
        (sealed("0101x000201"), "begin with 000201"),
        (sealed("000202"), "begin with 000201"),
        (sealed("000201") + "5802MA", "end with its checksum"),
        ("0002015802MA", "end with its checksum"),
        ("0002016303ABC", "not four hexadecimal"),
        ("0002016304٠١٢٣", "not four hexadecimal"),
        (sealed("00020158x2MA"), "no number or no length"),
        (sealed("00020158٠٢MA"), "no number or no length"),
        (sealed("0002015802MA5802MA"), "field 58 twice"),
        ("0002015899MA", "cut short"),
        ("00020159", "cut short"),
        ("0002015901\ud8006304ABCD", "characters that are none"),
        ("000201" + "5999" + "x" * 1000, "longer than any"),
        ("0002016304ABCD", "changed or misread"),
    ],
)
def test_what_is_no_payload_is_a_sentence(payload: str, sentence: str) -> None:
    with pytest.raises(UnreadableEmv, match=sentence) as refused:
        decode(payload)
    assert str(refused.value).endswith(".")


def test_a_checksum_in_small_letters_and_white_space_around_are_taken() -> None:
    arabic_code = PAYLOADS["own-arabic"]
    small = arabic_code[:-4] + arabic_code[-4:].lower()
    assert small != arabic_code
    assert decode(f" {small}\r\n").reference == "148275036141"


@pytest.mark.parametrize(
    ("fields", "amount_minor"),
    [
        ({"53": "504", "54": "172.50"}, 17250),
        ({"53": "504", "54": "172.5"}, 17250),
        ({"53": "504", "54": "172"}, 17200),
        ({"53": "504"}, None),
        ({"53": "504", "54": "0.00"}, None),
        ({"53": "504", "54": "-1.00"}, None),
        ({"53": "504", "54": "1e3"}, None),
        ({"53": "504", "54": "172,50"}, None),
        ({"53": "504", "54": "١٧٢.٥٠"}, None),
        ({"53": "978", "54": "172.50"}, None),
        ({"54": "172.50"}, None),
    ],
)
def test_an_amount_is_centimes_of_dirham_or_none(
    fields: dict[str, str], amount_minor: int | None
) -> None:
    assert decode(sealed("000201" + row(fields))).amount_minor == amount_minor


@pytest.mark.parametrize(
    ("inside", "reference"),
    [
        ({"01": "148275036141"}, "148275036141"),
        ({"01": "RF74 1482 7503 6141"}, "148275036141"),
        ({"01": "***", "05": "RF74148275036141"}, "148275036141"),
        ({"01": "148275036142", "05": "148275036141"}, "148275036142"),
        ({"01": "***"}, None),
        ({"08": "148275036141"}, None),
        ({"01": "148275036141x"}, None),
    ],
)
def test_the_reference_is_the_bill_number_or_else_the_label(
    inside: dict[str, str], reference: str | None
) -> None:
    assert decode(sealed("000201" + row({"62": row(inside)}))).reference == reference


@pytest.mark.parametrize("inside", ["0112148275036141x", "0101a0101b", "x", "0"])
def test_a_template_that_cannot_be_read_inside_is_kept_as_it_stands(inside: str) -> None:
    read = decode(sealed("000201" + row({"62": inside})))
    assert read.fields["62"] == inside
    assert "62" not in read.templates
    assert read.reference is None


@settings(deadline=None)
@given(st.text() | st.text().map(lambda t: f"000201{t}"))
def test_any_text_is_a_payload_or_refused(text: str) -> None:
    with pytest.raises(UnreadableEmv):
        decode(text)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 99).map(lambda n: f"{n:02d}"),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
            | st.sampled_from(["0112148275036141", "504", "172.50", "", "01", "0001"]),
        ),
        max_size=8,
    )
)
def test_any_row_of_fields_is_read_as_it_stands_or_refused(pairs: list[tuple[str, str]]) -> None:
    payload = "000201" + "".join(row({key: value}) for key, value in pairs)
    keys = [key for key, _ in pairs]
    if "63" in keys or len(set(keys)) < len(keys):
        with pytest.raises(UnreadableEmv):
            decode(sealed(payload))
        return
    read = decode(sealed(payload))
    assert isinstance(read, EmvPayload)
    assert list(read.fields.items())[1:-1] == pairs
    assert read.amount_minor is None or read.amount_minor > 0
    assert read.reference is None or len(read.reference) == 12
