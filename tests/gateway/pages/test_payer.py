from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import zxingcpp
from fastapi import FastAPI
from PIL import Image
from sqlalchemy import event
from starlette.testclient import TestClient

from gateway.codes import emv
from gateway.collection.reports import Statement
from gateway.db import engine, execute, transaction
from gateway.institution import institution
from gateway.models import Channel
from gateway.pages import site
from gateway.pages.payer import SYMBOL_BYTES_MAX
from gateway.pages.shown import ANNOUNCEMENT_FRESH
from gateway.references import format_reference
from gateway.settings import settings
from tests.factories import NOON, a_report, record
from tests.gateway.pages import states
from tests.gateway.pages.conftest import a_client, set_clock
from tests.gateway.pages.states import text_of, title_of
from tests.gateway.papers import reading

REFERENCE = "148275036141"


def ask(client: TestClient, path: str, language: str = "fr", **options: Any) -> Any:
    return client.get(path, headers={"Accept-Language": language}, **options)


# -- typing ---------------------------------------------------------------------------------------


def test_the_form_leads_to_the_reference(client: TestClient) -> None:
    answer = client.post("/", data={"reference": " ١٤٨٢-7503 6141\u200f"})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/{REFERENCE}"


SLIPS = [
    ("1482 7503 614", "La référence a 12 chiffres, vous en avez tapé 11.", "كتبتموها 11"),
    ("148275O36141", "vous avez tapé O", "كتبتم O"),
    ("148275036142", "Il y a une faute de frappe", "خطأ في الكتابة"),
    ("RF18539007547034", "les nôtres commencent par RF74", "RF74"),
    ("", "Tapez la référence", "أدخلوا المرجع"),
]


def test_a_typing_error_is_named_where_it_was_made(client: TestClient) -> None:
    for typed, fr, ar in SLIPS:
        for language, words, begins in (("fr", fr, "Erreur\u00a0: "), ("ar", ar, "خطأ: ")):
            answer = client.post(f"/?lang={language}", data={"reference": typed})
            assert answer.status_code == 422
            assert title_of(answer).startswith(begins)
            # In the summary, which has the focus and leads to the field, and beside the field.
            assert text_of(answer).count(words) >= 2
            assert re.search(r'role="alert" tabindex="-1" autofocus', answer.text)
            assert 'href="#reference"' in answer.text
            assert 'aria-describedby="reference-hint reference-error"' in answer.text
            assert f'value="{typed}"' in answer.text
            assert "invalid" not in text_of(answer).lower()


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect what the database is asked meanwhile."""
    asked: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    event.listen(engine(), "before_cursor_execute", listen)
    try:
        yield asked
    finally:
        event.remove(engine(), "before_cursor_execute", listen)


def test_a_typing_error_in_the_address_is_named_before_any_look_up(client: TestClient) -> None:
    with statements() as asked:
        for suffix in ("", ".svg", ".pdf", "/receipt", "/receipt.pdf"):
            for typed in ("148275036142", "14827503614", "148275O36141", "RF18539007547034"):
                answer = client.get(f"/{typed}{suffix}")
                assert answer.status_code == 422, (typed, suffix)
                assert f'value="{typed}"' in answer.text
        assert asked == []
        client.get(f"/{REFERENCE}")
        assert asked != [], "what verifies is looked up"


def test_the_other_language_keeps_the_error_and_what_was_typed(client: TestClient) -> None:
    answer = client.post("/", data={"reference": "1482 7503 614"})
    [link] = re.findall(r'hreflang="ar" href="([^"]+)"', answer.text)
    again = client.get(link.replace("&amp;", "&"))
    assert again.status_code == 422
    assert '<html lang="ar" dir="rtl">' in again.text
    assert 'value="1482 7503 614"' in again.text
    [back] = re.findall(r'hreflang="fr" href="([^"]+)"', again.text)
    assert "Erreur" in title_of(client.get(back.replace("&amp;", "&")))


def test_an_address_has_one_form(client: TestClient) -> None:
    for suffix in ("", ".svg", ".pdf", "/receipt", "/receipt.pdf"):
        for written in (
            "1482 7503 6141",
            "1482-7503-6141",
            "١٤٨٢٧٥٠٣٦١٤١",
            "RF74148275036141",
            "\u200e148275036141",
        ):
            answer = client.get(f"/{written}{suffix}?lang=ar&number=R26-1&other=1")
            assert answer.status_code == 301
            assert answer.headers["location"] == f"/{REFERENCE}{suffix}?number=R26-1&lang=ar"


def test_what_is_no_reference_is_simply_not_there(client: TestClient) -> None:
    for path in (
        "favicon.ico",
        "robots.txt",
        "wp-login.php",
        "a/b/c",
        "x.svg",
        "x.pdf",
        "static/x",
    ):
        answer = client.get(f"/{path}")
        assert answer.status_code == 404
        assert "Il n’y a pas de page à cette adresse" in text_of(answer)


# -- photos ---------------------------------------------------------------------------------------


def test_a_photo_of_the_code_leads_to_the_reference(client: TestClient) -> None:
    photo = states.photo_of(f"https://elsewhere.example/{REFERENCE}")
    answer = client.post("/?lang=ar", files={"photo": ("code.png", photo, "image/png")})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/{REFERENCE}?lang=ar"


def test_what_is_wrong_with_a_photo_is_said(client: TestClient) -> None:
    for photo, words in (
        (b"", "Choisissez ou prenez une photo"),
        (b"no picture", "n’est pas une photo lisible"),
        (states.photo_of("https://example.org/"), "ne contient pas de référence"),
    ):
        answer = client.post("/", files={"photo": ("a.png", photo, "image/png")})
        assert answer.status_code == 422
        assert words in text_of(answer)
        assert 'href="#photo"' in answer.text


# -- what is due ----------------------------------------------------------------------------------


def test_an_open_invoice_says_what_until_when_and_for_whom(client: TestClient) -> None:
    reference = states.an_invoice()
    fr, ar = text_of(ask(client, f"/{reference}")), text_of(ask(client, f"/{reference}", "ar"))
    for words in ("163,52 DH", "30 novembre 2026", "F. Z. E. I.", "Artisan non imposable"):
        assert words in fr
    for words in ("163,52 درهم", "30 نونبر 2026", "ف. ز. إ.", "صانع تقليدي"):
        assert words in ar
    shown = format_reference(reference)
    for text in (fr, ar):
        assert shown in text
        assert f"RF74 {shown}" in text
        assert "191" in text
    # Total and day come before the details, and the details before what to do with them.
    assert fr.index("163,52 DH") < fr.index("F. Z. E. I.") < fr.index("Comment payer")
    assert "Chiffre non confirmé" in fr
    assert "Frais : demandez avant de payer." in fr
    assert "niveau 1 suffit (jusqu’à 200,00 DH)" in fr
    assert "30 novembre 2027" in fr
    assert "En retard" not in fr


def test_initials_are_latin_where_no_arabic_name_is_known(client: TestClient) -> None:
    reference = states.an_invoice(family_name_ar=None, given_name_ar=None)
    assert "F. Z. E. I." in text_of(ask(client, f"/{reference}", "ar"))


def test_a_late_invoice_says_so_in_words(client: TestClient) -> None:
    reference = states.an_invoice("2026-10")
    fr = text_of(ask(client, f"/{reference}"))
    assert "En retard" in fr
    assert "Échéance dépassée : 31 octobre 2026" in fr
    assert "متأخر" in text_of(ask(client, f"/{reference}", "ar"))


def test_what_is_paid_is_taken_off(client: TestClient) -> None:
    reference = states.paid(6000)
    fr = text_of(ask(client, f"/{reference}"))
    assert "Payée en partie" in fr
    assert "Déjà payé : 60,00 DH" in fr
    assert "103,52 DH" in fr
    [receipt] = states.receipts_of(reference)
    assert receipt.number in fr


def test_a_paid_invoice_shows_its_receipts_and_no_way_to_pay(client: TestClient) -> None:
    reference = states.paid()
    answer = ask(client, f"/{reference}")
    fr = text_of(answer)
    assert answer.status_code == 200
    assert "Cette cotisation est payée" in fr
    assert states.receipts_of(reference)[0].number in fr
    assert "Comment payer" not in fr
    assert "<form" not in answer.text
    assert "هذا الاشتراك مؤدى" in text_of(ask(client, f"/{reference}", "ar"))


def test_an_expired_reference_is_not_to_be_paid_with(client: TestClient) -> None:
    reference = states.an_invoice("2024-10")
    fr = text_of(ask(client, f"/{reference}"))
    assert "Cette référence a expiré" in fr
    assert "31 octobre 2025" in fr
    assert "Demandez un nouvel avis" in fr
    # 148.65, and 1 % of it for each of the 25 months begun since October 2024.
    assert "Dû aujourd’hui : 185,81 DH" in fr.replace("\xa0", " ")
    assert "37,16" in fr
    assert "Majoration de retard" in fr
    assert "Comment payer" not in fr
    assert "انتهت مدة هذا المرجع" in text_of(ask(client, f"/{reference}", "ar"))


def test_a_cancelled_reference_is_not_to_be_paid_with(client: TestClient) -> None:
    reference = states.cancelled()
    fr = text_of(ask(client, f"/{reference}"))
    assert "Cette référence est annulée" in fr
    assert "18 novembre 2026" in fr
    assert "issued twice" not in fr
    assert "Comment payer" not in fr
    assert "هذا المرجع ملغى" in text_of(ask(client, f"/{reference}", "ar"))


def test_money_for_a_cancelled_reference_is_said_to_stay_the_payers(client: TestClient) -> None:
    reference = states.cancelled()
    record(a_report(reference))
    states.sign()
    fr = text_of(ask(client, f"/{reference}"))
    assert "L’argent reçu reste à vous" in fr
    assert states.receipts_of(reference)[0].number in fr


def test_an_announced_payment_is_not_to_be_made_twice(client: TestClient) -> None:
    reference = states.announced()
    answer = ask(client, f"/{reference}")
    fr = text_of(answer)
    assert "Ne payez pas une deuxième fois" in fr
    assert "Un paiement de 163,52 DH a été annoncé le 18 novembre 2026" in fr
    # The link that stays, and the ways to pay only for who opens them.
    assert settings().payer_link(reference) in fr
    assert "<details" in answer.text.partition("Comment payer")[0]
    assert "لا تؤدوا مرة ثانية" in text_of(ask(client, f"/{reference}", "ar"))


def test_an_announced_part_keeps_nobody_from_paying_the_rest(client: TestClient) -> None:
    for reference in (states.announced(1), states.announced(16351)):
        answer = ask(client, f"/{reference}")
        fr = text_of(answer)
        assert "Ne payez pas une deuxième fois" not in fr
        assert "a été annoncé le 18 novembre 2026. Il n’est pas encore confirmé." in fr
        assert "Pour l’instant, il reste 163,52 DH à payer." in fr
        assert "En cours de confirmation" not in fr
        assert "<details>" not in answer.text
        ar = text_of(ask(client, f"/{reference}", "ar"))
        assert "لا تؤدوا مرة ثانية" not in ar
        assert "يبقى مبلغ 163,52 درهم للأداء" in ar


def test_what_is_announced_and_what_is_paid_cover_it_together(client: TestClient) -> None:
    reference = states.paid(6000)
    pending = {"statement": Statement.PENDING, "channel": Channel.TRANSFER}
    record(a_report(reference, amount_minor=4000, **pending))
    assert "Ne payez pas une deuxième fois" not in text_of(ask(client, f"/{reference}"))
    record(a_report(reference, amount_minor=6352, **pending))
    fr = text_of(ask(client, f"/{reference}"))
    assert "Ne payez pas une deuxième fois" in fr
    assert "Un paiement de 40,00 DH" in fr
    assert "Un paiement de 63,52 DH" in fr


def test_an_announcement_of_long_ago_keeps_nobody_from_paying(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = states.announced()
    for late, told in ((timedelta(), True), (timedelta(minutes=1), False)):
        set_clock(monkeypatch, NOON + ANNOUNCEMENT_FRESH + late)
        fr = text_of(ask(client, f"/{reference}"))
        assert ("Ne payez pas une deuxième fois" in fr) is told
        assert "Un paiement de 163,52 DH a été annoncé le 18 novembre 2026" in fr
    # Late, it is said to be late; expired, it needs a new notice and no warning.
    set_clock(monkeypatch, NOON + timedelta(days=30))
    assert "L’échéance est passée" in text_of(ask(client, f"/{reference}"))
    set_clock(monkeypatch, NOON + timedelta(days=600))
    fr = text_of(ask(client, f"/{reference}"))
    assert "Demandez un nouvel avis" in fr
    assert "a été annoncé" in fr
    assert "Ne payez pas une deuxième fois" not in fr


def test_a_payment_that_was_taken_back_is_told_where_it_matters(client: TestClient) -> None:
    due, closed, without = states.taken_back(), states.paid(), states.an_invoice()
    states.reversed_again(closed, 5000)
    states.reversed_again(without, signed=False)
    for reference, amount, n in ((due, "163,52", 1), (closed, "50,00", 1), (without, "163,52", 0)):
        answer = ask(client, f"/{reference}")
        fr = text_of(answer)
        assert f"Un paiement de {amount} DH du 18 novembre 2026 a été annulé" in fr
        back = [r for r in states.receipts_of(reference) if r.standing == "reversed"]
        assert len(back) == n
        for receipt in back:
            assert f'href="/{reference}/receipt?number={receipt.number}"' in answer.text
        assert "ألغي أداء مبلغ" in text_of(ask(client, f"/{reference}", "ar"))


def test_an_announced_payment_that_came_is_forgotten(client: TestClient) -> None:
    reference = states.announced()
    record(a_report(reference, amount_minor=16352))
    fr = text_of(ask(client, f"/{reference}"))
    assert "Cette cotisation est payée" in fr
    assert "Ne payez pas une deuxième fois." in fr  # the announced one may still come


def test_a_receipt_in_the_making_is_said_to_come(client: TestClient) -> None:
    reference = states.paid(signed=False)
    assert "Reçu en préparation" in text_of(ask(client, f"/{reference}"))


def test_a_wallets_ceiling_is_told_before_it_bites(client: TestClient) -> None:
    reference = states.an_invoice(
        "2026-Q4", category_code="cpu", category_base_minor=10_000_000, left_on=date(2026, 12, 31)
    )
    fr = text_of(ask(client, f"/{reference}"))
    assert "Ce montant dépasse 200,00 DH : il faut un portefeuille de niveau 2" in fr
    assert "(jusqu’à 5 000,00 DH)" in fr.replace("\u202f", " ")


def test_fees_that_are_known_are_said(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shipped = resources.files("gateway").joinpath("institution.toml").read_text("utf-8")
    head = shipped[: shipped.index("[[way]]")].replace('phone = ""', 'phone = "080 200 33 33"')
    file = tmp_path / "institution.toml"
    file.write_text(
        head
        + '[[way]]\nchannel = "cash_agent"\nfee = "0.00"\nsource = "x"\nverified = true\n'
        + '[[way]]\nchannel = "kiosk"\nfee = "1.50"\nsource = "x"\nverified = false\n',
        "utf-8",
    )
    monkeypatch.setenv("WASL_INSTITUTION", str(file))
    settings.cache_clear()
    institution.cache_clear()
    answer = ask(client, f"/{states.an_invoice()}")
    fr = text_of(answer)
    assert "Gratuit." in fr
    assert "Frais : 1,50 DH. Chiffre non confirmé" in fr
    assert 'href="tel:0802003333"' in answer.text


def test_a_reference_that_nobody_has_is_unknown(client: TestClient) -> None:
    for language, words in (("fr", "Aucune cotisation ne porte"), ("ar", "لا يوجد اشتراك")):
        answer = ask(client, f"/{states.nobodys()}", language)
        assert answer.status_code == 404
        assert words in text_of(answer)
        assert format_reference(states.nobodys()) in text_of(answer)
        # Money may have come with it all the same, and be kept until its owner is found.
        assert "Rien n’a été payé" not in text_of(answer)
        assert "لم يؤد أي مبلغ" not in text_of(answer)
    fr = text_of(ask(client, f"/{states.nobodys()}"))
    assert "Si vous avez payé avec cette référence, gardez votre reçu" in fr


def test_no_page_and_no_paper_names_anybody(client: TestClient) -> None:
    references = [
        states.an_invoice(),
        states.an_invoice("2026-10"),
        states.an_invoice("2024-10"),
        states.paid(6000),
        states.paid(),
        states.cancelled(),
        states.announced(),
        states.taken_back(),
    ]
    with transaction() as session:
        numbers = execute(session, "SELECT cnss_number FROM contributor").scalars().all()
    asked = 0
    for reference in references:
        for suffix in ("", "?lang=ar", ".svg", ".svg?code=emv", "/receipt", "/receipt?lang=ar"):
            answer = client.get(f"/{reference}{suffix}")
            body = answer.text + str(answer.headers)
            assert not [word for word in (*states.SECRETS, *numbers) if word in body], suffix
            asked += answer.status_code == 200
    assert asked > 30


def test_links_to_share_hold_the_reference_and_no_person(client: TestClient) -> None:
    reference = states.an_invoice()
    answer = client.get(f"/{reference}")
    links = [link.replace("&amp;", "&") for link in re.findall(r'href="([^"]+)"', answer.text)]
    [sms] = [link for link in links if link.startswith("sms:")]
    [whatsapp] = [link for link in links if link.startswith("https://wa.me/")]
    said = {
        parse_qs(sms.partition("?")[2])["body"][0],
        parse_qs(urlsplit(whatsapp).query)["text"][0],
    }
    assert len(said) == 1
    [text] = said
    assert format_reference(reference) in text
    assert settings().payer_link(reference) in text
    assert "163,52" not in text


def test_one_page_is_three_queries_however_many_payments(client: TestClient) -> None:
    one, many = states.paid(1000), states.paid(1000, 2000, 3000)
    for reference in (one, many):
        with statements() as asked:
            assert client.get(f"/{reference}").status_code == 200
        assert len(asked) == 3


# -- codes and papers -----------------------------------------------------------------------------


def scanned(svg: str, tmp_path: Any) -> str:
    """Return what a reader sees in one of our symbols."""
    side = int(re.search(r'viewBox="0 0 (\d+)', svg)[1])  # type: ignore[index]
    picture = Image.new("L", (side, side), 255)
    path = re.search(r'stroke="#000" d="([^"]+)"', svg)
    assert path is not None
    x = y = 0
    for command, a, b in re.findall(r"([Mmh])(\d+)(?: (\d+)(?:\.5)?)?", path[1]):
        match command:
            case "M":
                x, y = int(a), int(b)
            case "m":
                x += int(a)
            case "h":
                for dx in range(int(a)):
                    picture.putpixel((x + dx, y), 0)
                x += int(a)
    large = picture.resize((side * 6, side * 6), Image.Resampling.NEAREST)
    [code] = zxingcpp.read_barcodes(large)
    return str(code.text)


def test_the_link_code_opens_the_page_and_is_kept_for_ever(
    client: TestClient, tmp_path: Any
) -> None:
    reference = states.an_invoice()
    answer = client.get(f"/{reference}.svg")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/svg+xml"
    assert "immutable" in answer.headers["cache-control"]
    assert "private" not in answer.headers["cache-control"]
    assert len(answer.content) <= SYMBOL_BYTES_MAX
    assert scanned(answer.text, tmp_path) == settings().payer_link(reference)
    # And so does the one in the page.
    page = client.get(f"/{reference}").text
    [inside] = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    assert scanned(inside, tmp_path) == settings().payer_link(reference)


def test_the_payment_code_holds_what_is_due_now_and_is_never_kept(
    client: TestClient, tmp_path: Any
) -> None:
    reference = states.paid(6000)
    answer = client.get(f"/{reference}.svg?code=emv")
    assert answer.headers["cache-control"] == site.NEVER_KEPT
    read = emv.decode(scanned(answer.text, tmp_path))
    assert read.reference == reference
    assert read.amount_minor == 10352


def test_nothing_is_paid_with_the_code_of_what_is_closed(client: TestClient) -> None:
    for reference, said in (
        (states.paid(), "Rien n’est à payer avec ce code"),
        (states.cancelled(), "Rien n’est à payer avec ce code"),
        (states.an_invoice("2024-10"), "Ce code ne peut plus servir à payer"),
    ):
        answer = client.get(f"/{reference}.svg?code=emv")
        assert answer.status_code == 410
        assert said in text_of(answer)
        assert client.get(f"/{reference}.svg").status_code == 200


def test_the_notice_is_a_paper_without_the_name(client: TestClient) -> None:
    reference = states.an_invoice()
    answer = client.get(f"/{reference}.pdf")
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["cache-control"] == site.NEVER_KEPT
    words = reading.words(answer.content)
    assert format_reference(reference) in words
    with transaction() as session:
        [named] = execute(
            session,
            "SELECT family_name, given_name, family_name_ar, given_name_ar, cnss_number"
            " FROM contributor JOIN invoice ON contributor_id = contributor.id"
            " WHERE reference = :reference",
            {"reference": reference},
        )
    for secret in filter(None, named):
        assert secret not in words
    assert "F. Z. E. I." in words


def test_too_many_papers_at_once_are_told_to_wait(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.pages import payer
    from gateway.pages.turnstile import Turnstile

    full = Turnstile(at_once=1, in_line=0)
    monkeypatch.setattr(payer, "PAPERS", full)
    reference = states.an_invoice()
    with full.turn():
        answer = client.get(f"/{reference}.pdf")
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "10"


# -- the clock ------------------------------------------------------------------------------------


def test_pages_live_on_the_business_clock(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = states.an_invoice()
    for days, words in ((0, "À payer au plus tard"), (20, "En retard"), (600, "a expiré")):
        set_clock(monkeypatch, NOON + timedelta(days=days))
        assert words in text_of(a_client(app).get(f"/{reference}"))


# -- late, cleared, noted --------------------------------------------------------------------------


def test_what_is_late_says_its_penalty_and_until_when_the_amount_holds(
    client: TestClient, tmp_path: Path
) -> None:
    reference = states.an_invoice("2026-08")
    said = states.text_of(client.get(f"/{reference}")).replace("\xa0", " ")
    for text in (
        "168,43 DH",  # 163.52 and three months of 1 %
        "Ce montant est valable jusqu’au 30 novembre 2026",
        "le montant augmente le 1er décembre 2026",
        "par mois commencé après le mois de l’échéance ; nombre de mois : 3",
        "Chiffre non confirmé",
    ):
        assert text in said, text
    code = client.get(f"/{reference}.svg?code=emv")
    assert emv.decode(scanned(code.text, tmp_path)).amount_minor == 16843
    arabic = states.text_of(client.get(f"/{reference}?lang=ar"))
    assert "هذا المبلغ صالح إلى غاية" in arabic


def test_who_paid_the_principal_late_is_told_that_the_rest_does_not_grow(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = states.an_invoice()
    later = NOON + timedelta(days=20)
    times = {"paid_at": later, "stated_at": later, "received_at": later}
    record(a_report(reference, **times), now=later)
    set_clock(monkeypatch, later + timedelta(days=90))
    said = states.text_of(client.get(f"/{reference}")).replace("\xa0", " ")
    assert "1,64 DH" in said
    assert "Ce qui reste à payer n’augmente plus" in said


def test_a_charge_says_by_when_it_is_to_be_paid(client: TestClient) -> None:
    reference = states.noted(states.an_invoice("2026-10"), 9000, due_on=date(2026, 12, 31))
    said = states.text_of(client.get(f"/{reference}")).replace("\xa0", " ")
    assert "Ajouté le 18 novembre 2026 · À payer au plus tard le 31 décembre 2026" in said
    paper = reading.words(client.get(f"/{reference}.pdf").content).replace("\xa0", " ")
    assert "31 décembre 2026" in paper


def test_what_was_credited_in_full_is_not_called_paid(client: TestClient) -> None:
    answer = client.get(f"/{states.cleared()}")
    said = states.text_of(answer).replace("\xa0", " ")
    assert "Rien n’est dû pour cette cotisation" in said
    assert "Ajouté le 18 novembre 2026" in said
    # Why somebody noted it is not for whoever has the reference.
    assert "The return came in" not in answer.text
