"""Every page that a payer can come to, in every state: where it is, and how one gets there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Final
from urllib.parse import urlencode

import httpx
from PIL import Image
from playwright.sync_api import FilePayload, Page, Response, Route

from gateway.codes import qr
from gateway.words.catalogs import Language
from tests.browser.chromium import a_client
from tests.browser.site import NOBODYS, NOBODYS_NUMBER, Site

LANGUAGES: Final[Mapping[Language, str]] = {"fr": "ltr", "ar": "rtl"}
"""Each with its direction."""

ERROR_BEGINS: Final[Mapping[Language, str]] = {"fr": "Erreur\u00a0: ", "ar": "خطأ: "}
"""How the title begins where something has to be mended."""

MISSES_MAX: Final = 5
"""Wrong references from one address; the next asks in vain."""


@dataclass(frozen=True, slots=True)
class View:
    """A page, and what a payer did to see it."""

    name: str
    path: str
    status: int = 200
    photo: bytes | None = None
    """Chosen in the page's form and sent; empty: sent without one."""
    like: str = ""
    """Another view that rightly says the same."""
    posted: bool = False
    """Sent there by a form."""
    form: str = ""
    """What was in it."""
    out_of_order: bool = False
    """Seen while something of ours is broken."""
    card_trouble: str = ""
    """What is wrong meanwhile with who takes cards."""
    missed_before: int = 0
    """How many references were tried in vain from the same address."""

    def address(self, site: Site, language: Language) -> str:
        """Return where a browser goes first."""
        return f"{site.address}{self.path}{'&' if '?' in self.path else '?'}lang={language}"


def views(site: Site) -> list[View]:
    """Return all of them, each different from every other."""
    parts = (_starting, _standing, _by_card, _otherwise, _proving, _checking, _failing)
    return [view for part in parts for view in part(site)]


def visit(page: Page, site: Site, view: View, language: Language) -> Response:
    """Do what leads to a view, as somebody who was never here; return the answer."""
    client = a_client()
    page.set_extra_http_headers(client)
    for _ in range(view.missed_before):
        fetched(site, f"/{NOBODYS}", client)
    first = view.address(site, language)
    if view.posted:
        page.route(first, lambda route: _post(route, view.form), times=1)
    broken = site.out_of_order() if view.out_of_order else nullcontext()
    with broken, site.card_trouble(view.card_trouble):
        answer = page.goto(first)
    if view.photo is not None:
        form = page.locator("form[enctype]")
        if view.photo:
            file = FilePayload(name="code.png", mimeType="image/png", buffer=view.photo)
            form.locator("input[type=file]").set_input_files(file)
        with page.expect_navigation() as navigation:
            form.locator("button").click()
        answer = navigation.value
    assert answer is not None
    assert answer.status == view.status, f"{view.name}, {language}: {answer.status}"
    return answer


def _post(route: Route, form: str) -> None:
    headers = {**route.request.headers, "content-type": "application/x-www-form-urlencoded"}
    route.continue_(method="POST", post_data=form, headers=headers)


def fetched(site: Site, path: str, client: Mapping[str, str] | None = None) -> httpx.Response:
    """Fetch an address without a browser."""
    return _http().get(site.address + path, headers=client or a_client())


@cache
def _http() -> httpx.Client:
    return httpx.Client()


def mistyped(reference: str) -> str:
    """Return a reference with one wrong digit."""
    return f"{reference[:-1]}{(int(reference[-1]) + 1) % 10}"


def _with(**typed: str) -> str:
    """Return the address that answers as the form does when this is typed and sent."""
    page = "/verify" if "receipt" in typed else "/"
    return f"{page}?{urlencode(typed)}"


def _starting(site: Site) -> list[View]:
    """The form, and what can be wrong with what was put into it."""
    reference = site.references["open"]
    other = _photo(qr.symbol("https://example.org/").png())
    return [
        View("start", "/"),
        View("nothing typed", _with(reference=""), 422),
        View("letters typed", _with(reference=reference[:-1] + "O"), 422),
        View("too short", _with(reference=reference[:-1]), 422),
        View("a typing error", _with(reference=mistyped(reference)), 422),
        View("another's bank reference", _with(reference="RF18 5390 0754 7034"), 422),
        View("too short an address", f"/{reference[:-1]}", 422, like="too short"),
        View("no photo chosen", "/", 422, photo=b""),
        View("no photo at all", "/", 422, photo=b"This is no picture."),
        View("a photo of nothing", "/", 422, photo=_blank()),
        View("a photo of another code", "/", 422, photo=other),
    ]


def _standing(site: Site) -> list[View]:
    """What is due by a reference, or how it stands."""
    return [
        View(name, f"/{site.references[name]}")
        for name in (
            "open",
            "quarterly",
            "late",
            "part paid",
            "announced",
            "announced in part",
            "paid",
            "paid in parts",
            "paid too much",
            "preparing",
            "reversed",
            "expired",
            "cancelled",
            "cleared",
            "charged",
            "in a plan",
            "paid together",
            "plan",
            "several",
            "several, paid",
        )
    ]


def _by_card(site: Site) -> list[View]:
    """Where somebody stands who pays by card, or by wallet."""
    named = {name: f"/{site.references[name]}" for name in site.references}
    return [
        View("card: begun", named["card begun"]),
        View("card: on to the bank", f"{named['bank begun']}/card"),
        # Tried so often that it does not load itself again while it is looked at.
        View("card: not known yet", f"{named['card awaited']}?card=back&try=8"),
        View("card: given up", f"{named['card given up']}?card=stopped"),
        View("wallet: only its payer can close it", f"{named['wallet begun']}?card=open&try=8"),
        View("card: away", f"{named['open']}/card", 503, posted=True, card_trouble="away"),
        View("card: refused", f"{named['open']}/card", 503, posted=True, card_trouble="refuses"),
    ]


def _otherwise(site: Site) -> list[View]:
    """Where somebody stands who pays on his phone, by a code, or several months at once."""
    to = {name: f"/{site.references[name]}" for name in site.references}
    number = f"cnss={site.number('open')}&what=all"
    return [
        View("phone: number", f"{to['open']}/card", posted=True, form="way=momo"),
        View("phone: no number", f"{to['open']}/card", 422, posted=True, form="way=momo&phone=06"),
        View("phone: asked", f"{to['phone asked']}?card=asked&try=8"),
        View("phone: only its payer can close it", f"{to['phone asked']}?card=open&try=8"),
        View("code: what to do", f"{to['code made']}/code"),
        View("code: made", to["code made"]),
        View("code: only its payer can leave it", f"{to['code made']}?card=open&try=8"),
        View("code: left", to["code left"]),
        View("code: of another reference", to["several, one begun"]),
        View("code: of another, left", f"{to['several, one begun']}?card=open&try=8"),
        View("months: no number", f"{to['open']}/all", 422, posted=True, form="cnss=12"),
        View("months: another's", f"{to['open']}/all", 422, posted=True, form="cnss=987654321"),
        View("months: nothing else", f"{to['open']}/all", posted=True, form=number),
    ]


def _proving(site: Site) -> list[View]:
    """Receipts, and where there is none."""
    return [
        *(
            View(f"receipt: {name}", f"/{site.references[name]}/receipt")
            for name in ("paid", "part paid", "paid in parts", "paid too much", "reversed")
        ),
        View("receipt: several", f"/{site.references['several, paid']}/receipt"),
        # Tried so often that it does not load itself again while it is looked at.
        View("receipt: preparing", f"/{site.references['preparing']}/receipt?try=6"),
        View(
            "receipt: of another",
            f"/{site.references['open']}/receipt?number={site.receipt('paid').number}",
            404,
        ),
        View("receipt: none yet", f"/{site.references['open']}/receipt", 404),
    ]


def _checking(site: Site) -> list[View]:
    """Whether a receipt is genuine and stands."""
    whole = ("reversed", "retired key", "changed", "foreign key", "not in the books")
    wrong = {
        "nothing": "",
        "cut": site.codes["cut"],
        "another text": "Facture 12",
        "a payment reference": site.references["open"],
    }
    return [
        View("check", "/verify"),
        View("check: number", f"/verify/{site.receipt('paid').number}"),
        View("check: genuine", _with(receipt=site.codes["genuine"]), like="check: number"),
        View("check: paid too much", f"/verify/{site.receipt('paid too much').number}"),
        View("check: no such number", f"/verify/{NOBODYS_NUMBER}", 404),
        View("check: not a number", "/verify/R26-12", 422),
        *(View(f"check: {name}", _with(receipt=site.codes[name])) for name in whole),
        View("check: attestation not in the books", _with(receipt=site.codes["attestation"])),
        *(View(f"check: {name}", _with(receipt=text), 422) for name, text in wrong.items()),
        View("check: no photo chosen", "/verify", 422, photo=b""),
        View("check: a photo of nothing", "/verify", 422, photo=_blank()),
        View("check without a network", "/verify/offline"),
    ]


def _failing(site: Site) -> list[View]:
    """What cannot be answered."""
    return [
        View("unknown", f"/{NOBODYS}", 404),
        View("throttled", f"/{NOBODYS}", 429, missed_before=MISSES_MAX),
        View("no such page", "/nothing-here", 404),
        View("not to be written to", f"/{site.references['open']}/receipt", 405, posted=True),
        View("a fault of ours", f"/{site.references['open']}", 500, out_of_order=True),
        View("nothing to scan", f"/{site.references['paid']}.svg?code=emv", 410),
        View("nothing for wallets", f"/{site.references['several']}.svg?code=emv", 410),
        View("scanned too late", f"/{site.references['expired']}.svg?code=emv", 410),
    ]


@cache
def _blank() -> bytes:
    return _photo(_png(Image.new("L", (200, 200), 255)))


def _photo(png: bytes) -> bytes:
    """Return a picture as large as a photo that was taken from close by."""
    picture = Image.open(BytesIO(png)).convert("L")
    return _png(picture.resize((8 * picture.width, 8 * picture.height), Image.Resampling.NEAREST))


def _png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
