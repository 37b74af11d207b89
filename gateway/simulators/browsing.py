"""Payers with a browser: from an invoice's page to a provider's page, and back.

One program is the payers of one provider that makes pages (see gateway.simulators.rounds). It reads
what it is shown, presses buttons and follows where it is led, as often as it takes: a page that
does not load is loaded again. What was paid is in the journal of whoever runs the provider's page.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from html.parser import HTMLParser
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

from gateway.simulators.dealing import Behaviour, Case
from gateway.simulators.deliveries import Step
from gateway.simulators.faults import Fate
from gateway.simulators.notices import dirhams
from gateway.simulators.rounds import Outcome, add_options, play, read_options

ANSWER_SECONDS_MAX: Final = 30.0
RETRY_SECONDS_MAX: Final = 240.0
PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 3.0
HOPS_MAX: Final = 16
BY_PAGE: Final = 4
"""Where a provider can be paid without our page, one payer in so many comes by it all the same."""
CHANGED_MIND: Final = 6
"""One payer in so many presses the other button first."""

_PHONE: Final = "0612345678"
"""Everybody's."""
_REFUSALS: Final = frozenset({"decline", "refuse"})


def plan(case: Case, planned_at: datetime, fate: Fate) -> list[Step]:  # noqa: ARG001
    """Return the one step of a case: to pay. Faults are those of the provider's page."""
    if case.behaviour is Behaviour.UNPAID:
        return []
    how = {
        "amount": dirhams(case.notice.amount_minor),
        "by_page": case.pick("by page", BY_PAGE) == 0,
        "changed_mind": case.pick("changed mind", CHANGED_MIND) == 0,
    }
    return [
        Step(
            key=f"{case.id}.0",
            behaviour=case.behaviour,
            delivery_id="",
            body=json.dumps(how).encode(),
            reference=case.notice.reference,
            paid_at=planned_at.isoformat(),
            planned_at=planned_at.isoformat(),
            refused=False,
            attack=None,
            payment_id=None,
            booked_minor=None,
            planted=None,
        )
    ]


# -- what a browser sees --------------------------------------------------------------------------


@dataclass(slots=True)
class Form:
    """A form of a page."""

    action: str
    method: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    buttons: list[tuple[str, str]] = field(default_factory=list)

    def values(self) -> set[str]:
        return {value for _, value in self.fields + self.buttons}


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown at an address."""

    status: int
    url: str
    forms: list[Form]


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []

    def handle_starttag(self, tag: str, attrs: Iterable[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(said.get("action", ""), said.get("method", "get").lower()))
        elif self.found and tag == "button":
            self.found[-1].buttons.append((said.get("name", ""), said.get("value", "")))
        elif self.found and tag == "input" and said.get("type") != "file":
            self.found[-1].fields.append((said.get("name", ""), said.get("value", "")))


def forms_of(text: str) -> list[Form]:
    """Return the forms of a page in their order."""
    parser = _Forms()
    parser.feed(text)
    return parser.found


class Again(Exception):
    """The page does not load, or asks to wait: the payer comes back in a moment."""


class Browser:
    """Loads pages, and keeps a connection to each host. Redirects are followed."""

    def __init__(self) -> None:
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def load(self, method: str, url: str, fields: list[tuple[str, str]] | None = None) -> Page:
        """Return what is at an address after all redirects.

        Raises:
            Again: It does not load.
        """
        for _ in range(HOPS_MAX):
            status, text, to = self._once(method, url, fields)
            if status not in {301, 302, 303, 307, 308}:
                if status >= 500 or status == 429:
                    raise Again(f"HTTP {status}")
                return Page(status, url, forms_of(text))
            method, url, fields = "GET", urljoin(url, to), None
        raise Again("it leads in a circle")

    def submit(self, page: Page, form: Form, button: tuple[str, str] | None) -> Page:
        """Send a form of a page by one of its buttons."""
        pressed = [] if button is None or not button[0] else [button]
        fields = [(name, value) for name, value in form.fields if name] + pressed
        to = urljoin(page.url, form.action)
        if form.method == "post":
            return self.load("POST", to, fields)
        return self.load("GET", f"{to}?{urlencode(fields)}" if fields else to)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _once(
        self, method: str, url: str, fields: list[tuple[str, str]] | None
    ) -> tuple[int, str, str]:
        parts = urlsplit(url)
        connection = self._connections.get(parts.netloc)
        if connection is None:
            connection = self._connections[parts.netloc] = http.client.HTTPConnection(
                parts.hostname or "", parts.port, timeout=ANSWER_SECONDS_MAX
            )
        path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        body = None if fields is None else urlencode(fields)
        headers = {"Accept-Language": "fr", "Accept": "text/html"}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Again(type(error).__name__) from None
        return answer.status, text, answer.headers.get("Location", "")


# -- what a payer does ----------------------------------------------------------------------------


class Payer:
    """Pays one invoice after the other (see gateway.simulators.rounds.Sender)."""

    def __init__(
        self,
        provider: str,
        product: str,
        control: str | None,
        *,
        at_counter: bool = False,
        phones: str | None = None,
    ) -> None:
        """Take the addresses.

        Args:
            provider: The name of the provider whose page is to be paid by.
            product: Where the invoices' pages are.
            control: Where the provider's page can be paid at without the product's.
            at_counter: Whether everybody pays there.
            phones: Where who is asked on his phone confirms and refuses, instead of on a page.
        """
        self._phones = phones
        self._refused: set[str] = set()
        self._at_counter = at_counter
        self._provider = provider
        self._product = product.rstrip("/")
        self._control = control
        self._browser = Browser()

    def deliver(self, step: Step, *, stop: threading.Event) -> Outcome:
        """Pay, and come back in a moment where that does not work, for RETRY_SECONDS_MAX."""
        until = time.monotonic() + RETRY_SECONDS_MAX
        pause = PAUSE_SECONDS_MIN
        while True:
            try:
                return self._pay(step)
            except Again as again:
                if stop.is_set() or time.monotonic() + pause > until:
                    return Outcome(None, str(again))
            time.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def close(self) -> None:
        self._browser.close()

    def _pay(self, step: Step) -> Outcome:
        how = json.loads(step.body)
        if self._phones is not None:
            return self._pay_on_phone(step, changed_mind=how["changed_mind"])
        if self._control is not None and (self._at_counter or not how["by_page"]):
            return self._pay_there(step, how["amount"], changed_mind=how["changed_mind"])
        return self._pay_by_page(step, changed_mind=how["changed_mind"])

    def _pay_on_phone(self, step: Step, *, changed_mind: bool) -> Outcome:
        """Be asked on the phone, and say so there; who refuses is asked anew."""
        at = f"{self._product}/{step.reference}"
        page = self._browser.load("GET", f"{at}?lang=fr")
        while (form := self._way(page)) is not None and page.status < 400:
            form.fields = [(n, _PHONE if n == "phone" else v) for n, v in form.fields]
            page = self._browser.submit(page, form, None)
        if page.status >= 400:
            return Outcome(page.status, f"HTTP {page.status}")
        refuses = changed_mind and step.key not in self._refused
        status, said = self._say_on_phone(step.reference, "refuse" if refuses else "confirm")
        if status == 404:
            # What was to ask him was lost on its way, unless nothing is due.
            wish = [("way", self._provider), ("phone", _PHONE)]
            page = self._browser.load("POST", f"{at}/card?lang=fr", wish)
            if "card=" not in page.url:
                return self._nothing_to_pay(page)
        elif status == 200 and refuses:
            self._refused.add(step.key)
        elif status == 200 or "SUCCESSFUL" in said:
            self._browser.load("GET", f"{at}?card=asked&lang=fr")
            return Outcome(200, None, "confirmed")
        raise Again("he is to be asked, or asked anew")

    def _say_on_phone(self, reference: str, deed: str) -> tuple[int, str]:
        status, said = _posted(f"{self._phones}/{deed}", {"named": reference})
        if status >= 500:
            raise Again(f"HTTP {status}")
        return status, said

    def _pay_there(self, step: Step, amount: str, *, changed_mind: bool) -> Outcome:
        """Pay at the provider's page without having come from ours."""
        assert self._control is not None
        asked = {
            "oid": step.reference,
            "amount": amount,
            "callbackUrl": f"{self._product}/webhooks/{self._provider}",
        }
        said = None
        for deed in ("decline", "pay") if changed_mind else ("pay",):
            status, read = _posted(self._control, {**asked, "deed": deed})
            if status != 200:
                raise Again(f"HTTP {status}")
            said = json.loads(read)["answer"]
            if said is None:
                raise Again("the bank had no answer")
        return Outcome(200, None, said)

    def _pay_by_page(self, step: Step, *, changed_mind: bool) -> Outcome:
        refused, paid = not changed_mind, False
        page = self._browser.load("GET", f"{self._product}/{step.reference}?lang=fr")
        for _ in range(HOPS_MAX):
            if page.status >= 400:
                return Outcome(page.status, f"HTTP {page.status}")
            ours = page.url.startswith(f"{self._product}/")
            if ours and paid:
                return Outcome(200, None, "came back")
            if ours:
                form = self._way(page)
                if form is None:
                    return self._nothing_to_pay(page)
                chosen = next((b for b in form.buttons if b[1] == self._provider), None)
                page = self._browser.submit(page, form, chosen)
                continue
            form, button = _pressed(page, refuse=not refused)
            if form is None:
                # By a payer whose way back was cut off: he takes it now.
                self._browser.load("GET", f"{self._product}/{step.reference}?card=back&lang=fr")
                return Outcome(200, None, "it was paid before")
            if button is not None and button[1] in _REFUSALS:
                refused = True
            elif button is not None and button[1] == "pay":
                paid = True
            page = self._browser.submit(page, form, button)
        return Outcome(None, "it leads in a circle")

    def _way(self, page: Page) -> Form | None:
        """Return the form of an invoice's page, or of one on the way, that leads to the provider.

        One that leads away from our pages is on the way; of the others, the one that names it.
        """
        away = [f for f in page.forms if _is_away(page, f, self._product)]
        if away:
            return away[0]
        ways = [f for f in page.forms if urlsplit(f.action).path.rstrip("/").endswith("/card")]
        named = [form for form in ways if self._provider in form.values()]
        return next(iter(named or ways), None)

    def _nothing_to_pay(self, page: Page) -> Outcome:
        if "card=back" in page.url:
            raise Again("what became of an earlier page is not known yet")
        return Outcome(page.status, None, "nothing to pay")


def _posted(url: str, said: dict[str, str]) -> tuple[int, str]:
    """Tell a stand-in what a payer does there; return the status of its answer, and its text."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=RETRY_SECONDS_MAX
    )
    try:
        connection.request("POST", parts.path, json.dumps(said))
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise Again(type(error).__name__) from None
    finally:
        connection.close()


def _is_away(page: Page, form: Form, product: str) -> bool:
    return not urljoin(page.url, form.action).startswith(f"{product}/")


def _pressed(page: Page, *, refuse: bool) -> tuple[Form | None, tuple[str, str] | None]:
    """Return the form and the button that a payer presses on a provider's page."""
    wanted = _REFUSALS if refuse else frozenset({"pay"})
    for form in page.forms:
        for button in form.buttons:
            if button[1] in wanted:
                return form, button
    if any(button[1] == "pay" for form in page.forms for button in form.buttons):
        # It offers no other button.
        return _pressed(page, refuse=False)
    return (page.forms[0], None) if page.forms else (None, None)


def main(arguments: list[str] | None = None) -> int:
    """Play the payers of one provider; return 0, 1 after surprises, 2 if the call was wrong."""
    parser = argparse.ArgumentParser(description="Play payers who pay by a provider's page.")
    add_options(parser)
    parser.add_argument("--product", required=True, help="where the invoices' pages are: http://…")
    parser.add_argument("--control", help="where the provider's page is paid at directly")
    parser.add_argument("--phones", help="where who is asked on his phone says yes or no")
    parser.add_argument(
        "--counter", action="store_true", help="who has a --control comes by no page of ours"
    )
    options = read_options(parser, arguments)
    return play(
        options,
        plan=plan,
        make_sender=lambda: Payer(
            options.provider,
            options.product,
            options.control,
            at_counter=options.counter,
            phones=options.phones,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
