from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from gateway.billing.presentment import Presentment
from gateway.codes import emv
from gateway.institution import Institution, Way
from gateway.models import Channel, LineKind, PaymentStatus
from gateway.money import format_amount
from gateway.papers.notice import LINES_MAX, PAYMENTS_MAX
from gateway.references import with_check_digits
from tests.gateway.papers.reading import (
    by_opencv,
    by_zxing,
    columns_beside,
    pages,
    picture,
    times,
    words,
)
from tests.gateway.papers.samples import (
    ALL,
    CANCELLED,
    CLEARED,
    CROWDED,
    EXPIRED,
    LATE,
    OPEN,
    PAID,
    PART_PAID,
    PRODUCTION,
    SANDBOX,
    SHIPPED,
    a_line,
    a_notice,
    a_payment,
    a_presentment,
    whose,
)


def codes_of(presented: Presentment) -> set[str]:
    return {
        SANDBOX.payer_link(presented.reference),
        emv.encode(
            SHIPPED.code.template(),
            reference=presented.reference,
            amount_minor=presented.due_minor,
            period_code=presented.period,
        ),
    }


@pytest.mark.parametrize("presented", ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "whole"])
def test_a_notice_is_one_page_in_both_languages(presented: Presentment, masked: bool) -> None:
    made = a_notice(presented, masked=masked)
    assert pages(made) == 1
    read = words(made)
    assert "1482 7503 6141" in read
    for word in ("Avis d’échéance", "CNSS", "إشعار", "الصندوق الوطني للضمان الاجتماعي"):
        assert word in read
    if masked:
        assert len(made) <= 100 * 1024


@pytest.mark.parametrize("dpi", [150, 300])
@pytest.mark.parametrize("settings", [SANDBOX, PRODUCTION], ids=lambda s: s.mode)
@pytest.mark.parametrize("presented", [OPEN, CROWDED], ids=["open", "crowded"])
def test_both_codes_are_read_from_paper(presented: Presentment, settings: object, dpi: int) -> None:
    pixels = picture(a_notice(presented, settings=settings), dpi)  # type: ignore[arg-type]
    assert by_zxing(pixels) == codes_of(presented)
    assert by_opencv(pixels) == codes_of(presented)


@pytest.mark.parametrize("presented", [PAID, CANCELLED, EXPIRED], ids=["paid", "gone", "old"])
def test_what_cannot_be_paid_has_no_code_and_no_way_to_pay(presented: Presentment) -> None:
    made = a_notice(presented)
    assert by_zxing(picture(made, 150)) == set()
    assert "Comment payer" not in words(made)
    assert "RF74" not in words(made)


@pytest.mark.parametrize("presented", [OPEN, LATE, CROWDED], ids=["open", "late", "crowded"])
def test_names_and_values_stand_apart_in_both_languages(presented: Presentment) -> None:
    made = a_notice(presented, masked=False)
    for label in (
        "Prénom et nom",
        "N° d’immatriculation",
        "Catégorie",
        "Période",
        "Payable, même en retard",
    ):
        assert columns_beside(made, label, apart_mm=2) == 4, label


def test_an_open_notice_says_what_is_due_why_and_until_when() -> None:
    read = words(a_notice(OPEN, masked=False))
    for said in (
        "163,52 DH",
        "Cotisation AMO, novembre 2026",
        "0,75 × SMIG 17,92 DH/heure × 191 h × 6,37 %",
        "30 novembre 2026",
        "30 نونبر 2026",
        "30 novembre 2027",
        "Artisan non imposable",
        "Fatima Zahra El Idrissi",
        "190314577",
        "RF74 1482 7503 6141",
        "https://amo.example.ma/ 148275036141",
        "18 novembre 2026",
        "Renseignements : agences CNSS",
    ):
        assert said in read, said


def test_what_was_paid_is_told_and_taken_off() -> None:
    read = words(a_notice(PART_PAID))
    assert "Payé le 5 novembre 2026" in read
    assert "Espèces en agence · R26-104882913" in read
    assert "–100,00" in read
    assert "63,52 DH" in read
    assert "Reste à payer" in read


def test_payments_that_came_another_way_are_in_the_sum() -> None:
    read = words(a_notice(a_presentment(paid_minor=12000, payments=(a_payment(),))))
    assert "Autres paiements" in read
    assert "–20,00" in read
    assert "43,52 DH" in read


def test_many_lines_and_payments_are_summed_up_on_the_one_page() -> None:
    lines = tuple(a_line(LineKind.PENALTY, 100 + n, verified=n < 9) for n in range(LINES_MAX + 4))
    payments = tuple(a_payment(10, id=n) for n in range(PAYMENTS_MAX + 4))
    made = a_notice(a_presentment(lines=lines, payments=payments))
    read = words(made)
    assert pages(made) == 1
    rest = format_amount(sum(line.amount_minor for line in lines[LINES_MAX - 1 :]))
    assert f"Autres éléments * {rest.replace('.', ',')}" in read
    assert "Autres paiements –0,40" in read
    assert len(made) <= 100 * 1024


def test_a_late_notice_says_so_in_words() -> None:
    read = words(a_notice(LATE))
    assert "EN RETARD" in read
    assert "31 octobre 2026" in read


def test_an_announced_payment_warns_before_paying_twice() -> None:
    announced = a_payment(16352, status=PaymentStatus.PENDING, receipt_number=None)
    assert "n’est pas encore confirmé" in words(a_notice(a_presentment(payments=(announced,))))


def test_a_paid_notice_names_its_receipts() -> None:
    made = a_notice(PAID)
    assert "PAYÉ : il ne reste rien à payer." in words(made)
    assert times(made, "R26-104882913, R26-556610021") == 1
    assert times(made, "R26-104882913، R26-556610021") == 1


def test_cancelled_and_expired_notices_say_not_to_pay() -> None:
    assert "ANNULÉ : rien n’est à payer avec cette référence." in words(a_notice(CANCELLED))
    read = words(a_notice(EXPIRED))
    assert "EXPIRÉ : ne payez plus avec cette référence." in read
    assert "30 septembre 2026" in read


def test_only_doubtful_figures_have_a_footnote() -> None:
    footnote = "* Chiffre non confirmé par un texte officiel."
    assert footnote not in words(a_notice(OPEN))
    assert footnote in words(a_notice(a_presentment(lines=(a_line(verified=False),))))


def an_institution(**way: object) -> Institution:
    made = Way.model_validate({"channel": "wallet", "source": "x", "verified": True, **way})
    return SHIPPED.model_copy(update={"way": (made,), "phone": "05 22 00 00 00"})


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ({"fee": "0.00"}, "Gratuit."),
        ({"fee": "15.00"}, "Frais : 15,00 DH."),
        ({"fee": "15.00", "verified": False}, "Frais : 15,00 DH. *"),
        ({}, "Frais éventuels : demandez-les avant de payer."),
        ({"ceilings": ["100.00", "5000.00"]}, "plafonné à 100,00 DH ou moins ne suffit pas. *"),
        ({"ceilings": ["100.00"], "ceilings_verified": True}, "tous les portefeuilles (100,00 DH)"),
        ({"ceilings": ["163.52"], "fee": "0.01"}, "(163,52 DH)"),
    ],
)
def test_fees_and_ceilings_are_told_before_the_choice(way: dict[str, object], said: str) -> None:
    read = words(a_notice(OPEN, institution=an_institution(**way)))
    assert said in read
    assert "05 22 00 00 00" in read


def test_a_ceiling_that_suffices_is_not_told() -> None:
    read = words(a_notice(OPEN, institution=an_institution(ceilings=["163.52"])))
    assert "plafon" not in read


def test_every_channel_has_its_way() -> None:
    ways = tuple(
        Way.model_validate({"channel": channel, "source": "x", "verified": True})
        for channel in Channel
    )
    made = a_notice(OPEN, institution=SHIPPED.model_copy(update={"way": ways}))
    assert pages(made) == 1
    assert "Carte bancaire · Sur la page" in words(made)


def test_a_masked_notice_is_the_same_for_all_with_these_initials() -> None:
    """Byte for byte: so nothing of the name or the number is in it, wherever one looks."""
    other = whose(
        OPEN,
        family_name="Echchamia Iqbal",
        given_name="Farida Zineb",
        family_name_ar="الإسماعيلي",
        given_name_ar="فريدة الزهرة",
        cnss_number="123456789",
    )
    assert a_notice(OPEN) == a_notice(other)
    assert a_notice(OPEN, masked=False) != a_notice(other, masked=False)
    assert "F. Z. E. I." in words(a_notice(OPEN))


def test_a_file_has_its_notices_in_the_order_given() -> None:
    several = [
        replace(presented, reference=with_check_digits(5_000_000_000 + n))
        for n, presented in enumerate([CROWDED, OPEN, LATE, PAID])
    ]
    made = a_notice(*several, masked=False)
    assert pages(made) == 4
    read = words(made)
    places = [read.index(f"{p.reference[:4]} {p.reference[4:8]}") for p in several]
    assert places == sorted(places)


def test_the_same_notice_is_the_same_file() -> None:
    assert a_notice(OPEN) == a_notice(OPEN)


def test_only_production_prints_without_specimen() -> None:
    for presented in (OPEN, PAID):
        trial, real = (a_notice(presented, settings=s) for s in (SANDBOX, PRODUCTION))
        assert "SPÉCIMEN" in words(trial)
        assert "نموذج" in words(trial)
        assert "SPÉCIMEN" not in words(real)


def test_what_is_late_says_until_when_its_amount_is_valid() -> None:
    said = words(a_notice(LATE))
    assert "ce montant est valable jusqu’au 30 novembre 2026" in said.replace("\xa0", " ")
    in_plan = replace(LATE, in_plan=True, valid_until=None)
    assert "EN ÉCHÉANCIER" in words(a_notice(in_plan))
    in_time = replace(OPEN, valid_until=date(2026, 11, 30))
    said = words(a_notice(in_time)).replace("\xa0", " ")
    assert "Après le 30 novembre 2026, une majoration s’ajoute" in said
    assert "le montant à payer jusqu’au 30 novembre 2026" in said


def test_what_was_credited_in_full_asks_for_nothing() -> None:
    said = words(a_notice(CLEARED))
    assert "RIEN N’EST DÛ" in said.replace("\xa0", " ")
    assert "Comment payer" not in said
