from __future__ import annotations

import pytest

from gateway.billing.presentment import Presentment
from gateway.codes import receipts as codes
from gateway.models import Channel
from gateway.receipts import ReceiptRecord, ReceiptStanding
from tests.gateway.papers.reading import by_opencv, by_zxing, pages, picture, words
from tests.gateway.papers.samples import (
    CANCELLED,
    CROWDED,
    KEY,
    LATE,
    OPEN,
    PAID,
    PART_PAID,
    PRODUCTION,
    SANDBOX,
    a_receipt,
    a_record,
    whose,
)

TAKEN_BACK = {"standing": ReceiptStanding.REVERSED, "allocated_minor": 0}
REDUCED = {
    "standing": ReceiptStanding.REDUCED,
    "returned_minor": 6352,
    "allocated_minor": 10000,
}


@pytest.mark.parametrize(
    ("record", "presented"),
    [
        (a_record(), PAID),
        (a_record(PART_PAID, amount_minor=10000, allocated_minor=10000), PART_PAID),
        (a_record(amount_minor=20000, channel=None), PAID),
        (a_record(OPEN, **TAKEN_BACK), OPEN),
        (a_record(PART_PAID, **REDUCED), PART_PAID),
        (a_record(OPEN, **TAKEN_BACK, returned_minor=16352, refunded=True), OPEN),
        (a_record(CROWDED), CROWDED),
    ],
    ids=["paid", "part", "more", "reversed", "given back in part", "refunded", "long names"],
)
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "whole"])
def test_a_receipt_is_one_page_in_both_languages(
    record: ReceiptRecord, presented: Presentment, masked: bool
) -> None:
    made = a_receipt(record, presented, masked=masked)
    assert pages(made) == 1
    assert len(made) <= 100 * 1024
    read = words(made)
    for said in ("Reçu de paiement", "وصل الأداء", "R26-104882913", "1482 7503 6141"):
        assert said in read


@pytest.mark.parametrize("dpi", [150, 300])
def test_both_codes_are_read_from_paper(dpi: int) -> None:
    record = a_record()
    expected = {codes.as_text(record.signed), SANDBOX.receipt_link(record.number)}
    pixels = picture(a_receipt(record), dpi)
    assert by_zxing(pixels) == expected
    assert by_opencv(pixels) == expected
    (signed,) = (text for text in by_zxing(pixels) if text.startswith(codes.PREFIX))
    read = codes.read(signed, {"k2026a": KEY.public_key()})
    assert isinstance(read, codes.Genuine)
    assert read.claims.amount_minor == 16352


def test_a_receipt_says_what_was_given_back_of_it_and_bears_no_signed_code() -> None:
    made = a_receipt(a_record(PART_PAID, **REDUCED), PART_PAID)
    read = words(made)
    for said in (
        "RENDU EN PARTIE : de ce paiement, 100,00 DH comptent.",
        "Repris depuis",
        "63,52",
        "100,00",
    ):
        assert said in read
    assert not any(text.startswith(codes.PREFIX) for text in by_zxing(picture(made, 150)))


def test_a_receipt_says_what_was_received_and_what_for() -> None:
    read = words(a_receipt(a_record(amount_minor=20000, channel=Channel.WALLET), masked=False))
    for said in (
        "200,00 DH",
        "18 novembre 2026 à 12:06",
        "18 نونبر 2026",
        "Portefeuille mobile",
        "Avis d’échéance, novembre 2026 163,52",
        "Le reste, gardé pour vous en avoir 36,48",
        "PAYÉ : il ne reste rien à payer pour cette période.",
        "Fatima Zahra El Idrissi",
        "190314577",
        "L’adresse imprimée près du second code indique si le paiement est toujours valable.",
    ):
        assert said in read, said


def test_a_receipt_says_what_remains() -> None:
    read = words(a_receipt(a_record(PART_PAID, amount_minor=10000), PART_PAID))
    assert "Reste à payer pour cette période : 63,52 DH." in read


def test_a_channel_that_nobody_stated_is_not_invented() -> None:
    assert "Non précisé" in words(a_receipt(a_record(channel=None)))


def test_money_that_was_no_longer_needed_is_all_credit() -> None:
    read = words(a_receipt(a_record(CANCELLED, allocated_minor=0), CANCELLED))
    assert "Le reste, gardé pour vous en avoir 163,52" in read
    assert "demandez le remboursement" in read


def test_a_receipt_of_a_payment_that_was_taken_back_says_so_and_bears_no_proof() -> None:
    record = a_record(LATE, **TAKEN_BACK)
    made = a_receipt(record, LATE)
    read = words(made)
    assert "PAIEMENT ANNULÉ" in read
    assert "أداء ملغى" in read
    assert "–163,52" in read
    assert "PAYÉ" not in read
    assert by_zxing(picture(made, 150)) == {SANDBOX.receipt_link(record.number)}


def test_a_masked_receipt_is_the_same_for_all_with_these_initials() -> None:
    other = whose(PAID, family_name="Ezzahi Ikram", given_name="Farah Zoulikha", cnss_number="1")
    arabic = {"family_name_ar": None, "given_name_ar": None}
    assert a_receipt(a_record(), whose(PAID, **arabic)) == a_receipt(
        a_record(),
        whose(other, family_name="Ezzahi Ikram", given_name="Farah Zoulikha", **arabic),
    )
    assert a_receipt(a_record(), masked=False) != a_receipt(a_record(), other, masked=False)


def test_only_production_prints_without_specimen() -> None:
    assert "SPÉCIMEN" in words(a_receipt(a_record()))
    assert "SPÉCIMEN" not in words(a_receipt(a_record(), settings=PRODUCTION))
