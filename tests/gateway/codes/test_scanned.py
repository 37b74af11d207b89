from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codes.receipts import Claims, as_text, sign
from gateway.codes.scanned import reference_in

GOLDEN = Path(__file__).parents[2] / "golden"
EMV = {
    case["id"]: case["payload"]
    for case in json.loads((GOLDEN / "emv_qr.json").read_text("utf-8"))["payloads"]
}
RECEIPT = json.loads((GOLDEN / "receipts.json").read_text("utf-8"))["cose_sign1"][
    "base45_with_prefix"
]


@pytest.mark.parametrize(
    "text",
    [
        "148275036141",
        " 1482 7503 6141\r\n",
        "١٤٨٢٧٥٠٣٦١٤١",
        "1482-7503-6141",
        "RF74 1482 7503 6141",
        "rf74148275036141\n",
        "https://wasl.ma.example/148275036141",
        "http://127.0.0.1:8000/148275036141",
        "HTTPS://WASL.MA.EXAMPLE/148275036141",
        "https://another.example/148275036141/receipt",
        "https://wasl.ma.example/148275036141.svg?code=emv",
        "https://wasl.ma.example/148275036141?lang=ar",
        "https://wasl.ma.example/148275036141#pay",
        " https://wasl.ma.example/148275036141/\n",
        "\u2067https://wasl.ma.example/148275036141\u2069",
        EMV["own-arabic"],
        EMV["own-ascii"] + "\r\n",
        "Référence : 1482 7503 6141",
        "المرجع: ١٤٨٢ ٧٥٠٣ ٦١٤١، شكرا",
        "CNSS, 163,52 DH.\nN° 148275036141.\nhttps://wasl.ma.example/148275036141",
        RECEIPT,
        RECEIPT.lower(),
        "\n".join(RECEIPT.split(" ")),
    ],
)
def test_every_way_to_say_a_reference_is_understood(text: str) -> None:
    assert reference_in(text) == "148275036141"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "14827503614",
        "1482750361411",
        "14827503614I",
        "148275\n036141",
        "RF75148275036141",
        "Référence : 1482 7503 6142",
        "1482 7503 6141 1",
        "7 1482 7503 6141",
        "148275036141 et 100000000190",
        "https://wasl.ma.example/",
        "https://wasl.ma.example/1482750361411",
        "https://wasl.ma.example/x148275036141",
        "https://wasl.ma.example/148275036141x",
        "https://wasl.ma.example/verify/148275036141",
        "https://wasl.ma.example/١٤٨٢٧٥٠٣٦١٤١",
        "https:///148275036141",
        "https://148275036141",
        "https://wasl.ma.example/?148275036141",
        "ftp://wasl.ma.example/148275036141",
        "javascript:148275036141",
        EMV["emvco-annex-golden"],
        EMV["own-ascii"][:-1],
        EMV["own-ascii"].replace("1482", "1483"),
        RECEIPT[:-1],
        "AMO1:",
        "https://wasl.ma.example/148275036141?" + "x" * 3_000,
    ],
)
def test_what_would_be_a_guess_is_none(text: str) -> None:
    assert reference_in(text) is None


def test_a_reference_need_not_verify_to_be_found() -> None:
    assert reference_in("https://wasl.ma.example/148275036142") == "148275036142"
    assert reference_in("148275036142") == "148275036142"


@pytest.mark.parametrize("stated", ["", "14827503614", "x" * 12, "RF74148275036141"])
def test_a_receipt_may_claim_anything(stated: str) -> None:
    claims = Claims("R26-000000123", stated, 17250, datetime(2026, 11, 18, tzinfo=UTC), "", "")
    code = as_text(sign(claims, key_id="x", private_key=Ed25519PrivateKey.generate()))
    assert reference_in(code) == ("148275036141" if stated.startswith("RF") else None)


@settings(deadline=None)
@given(
    st.one_of(
        st.text(),
        st.text().map("https://a/148275036141".__add__),
        st.text().map("000201".__add__),
        st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:").map("AMO1:".__add__),
        st.text("0123456789٠١٢٣ -RF", min_size=10, max_size=20),
    )
)
def test_any_text_means_twelve_digits_or_nothing(text: str) -> None:
    reference = reference_in(text)
    assert reference is None or (
        len(reference) == 12 and reference.isascii() and reference.isdigit()
    )
