"""The product under the browser: its own web process, and rows for every state a page can show."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import cbor2
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg import sql

from gateway import db, process, receipts
from gateway.billing.invoices import cancel_invoice
from gateway.billing.issuing import issue_invoices
from gateway.billing.presentment import Person
from gateway.clock import day_of
from gateway.codes import attestations
from gateway.codes import receipts as codes
from gateway.collection import attempts
from gateway.collection.inquiries import ask_due
from gateway.collection.reports import PaymentReport, Statement
from gateway.db import execute, snapshot, transaction
from gateway.dues.periods import parse_period
from gateway.dues.tariff import tariff
from gateway.embedded.processes import free_port, wait_until
from gateway.institution import institution
from gateway.models import Channel
from gateway.references import with_check_digits
from gateway.relief.plans import make_plan
from gateway.services import Services
from gateway.settings import settings
from gateway.simulators import cardbank, walletoperator, walletpush
from gateway.simulators.aggregator import Aggregator
from gateway.simulators.stripe import World
from tests.conftest import TEMPLATE, address_of
from tests.factories import PATIENCE_SECONDS, a_contributor, a_report, record
from tests.gateway.pages import states
from tests.stand_in import (
    a_bank_standing_in,
    a_push_standing_in,
    a_wallet_standing_in,
    bank_entry,
    codes_entry,
    codes_standing_in,
    providers_file,
    push_entry,
    standing_in,
    wallet_entry,
)
from webhooks.inbox import Desk, drain

NOW: Final = datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC)
"""The instant at which the product's business clock stands still."""

NOBODYS: Final = with_check_digits(9_876_543_210)
"""A reference that verifies and was never issued."""

NOBODYS_NUMBER: Final = "R26-000000000"
NOBODYS_ATTESTATION: Final = "A26-000000007"

PAYER: Final = Person(
    family_name="El Idrissi",
    given_name="Fatima Zahra",
    family_name_ar="الإدريسي",
    given_name_ar="فاطمة الزهراء",
    cnss_number="123456789",
    region="Casablanca-Settat",
)
"""Everybody's name here."""

_ROOT: Final = Path(__file__).parent.parent.parent
_WAS_PAID_AT: Final = NOW - timedelta(days=1, hours=2)
_DUE_MINOR: Final = 16352

# Whose invoice it is, and of which period. Nobody but its person owes for it, who owes mostly
# nothing else.
_INVOICES: Final = {
    "open": "2026-11",
    "quarterly": "2026-Q4",
    "late": "2026-10",
    "part paid": "2026-11",
    "paid": "2026-11",
    "paid in parts": "2026-11",
    "paid too much": "2026-11",
    "preparing": "2026-11",
    "reversed": "2026-11",
    "retired key": "2026-11",
    "expired": "2025-10",
    "cancelled": "2026-11",
    "cleared": "2026-09",
    "charged": "2026-10",
    "in a plan": "2026-08",
    "of several": "2026-11",
    "of several, late": "2026-07",
    "paid together": "2026-11",
    "announced": "2026-11",
    "announced in part": "2026-11",
    "card begun": "2026-11",
    "card awaited": "2026-11",
    "card given up": "2026-11",
    "card, fr": "2026-11",
    "card, ar": "2026-11",
    "card in two tabs": "2026-11",
    "card left": "2026-11",
    "bank begun": "2026-11",
    "bank, fr": "2026-11",
    "bank, ar": "2026-11",
    "bank left": "2026-11",
    "wallet begun": "2026-11",
    "wallet, fr": "2026-11",
    "wallet, ar": "2026-11",
    "phone asked": "2026-11",
    "code made": "2026-11",
    "code left": "2026-11",
    "beside a code": "2026-07",
    "phone, fr": "2026-11",
    "phone, ar": "2026-11",
    "code, fr": "2026-11",
    "code, ar": "2026-11",
    "months, fr": "2026-11",
    "months, ar": "2026-11",
    "to be paid, fr": "2026-11",
    "to be paid, ar": "2026-11",
}


@dataclass(frozen=True, slots=True)
class Site:
    """A running product: its address and what is in its books, by name."""

    address: str
    references: Mapping[str, str]
    codes: Mapping[str, str] = field(repr=False)
    """Signed receipts as their text, genuine and not."""
    card_world: World = field(repr=False)
    """The stand-in for who takes cards."""
    bank: cardbank.Bank = field(repr=False)
    """The bank behind the stand-in's card page, to which a form leads."""
    wallet: walletoperator.Operator = field(repr=False)
    """The stand-in for a wallet with a page."""
    phones: walletpush.Operator = field(repr=False)
    """The stand-in for a wallet that asks on phones."""
    agencies: Aggregator = field(repr=False)
    """The stand-in for who makes codes for agencies."""

    def receipt(self, name: str) -> receipts.ReceiptRecord:
        """Return the first receipt of an invoice, as it stands now."""
        with snapshot() as session:
            return receipts.of_invoice(session, self.references[name])[0]

    def pay(self, name: str) -> None:
        """Book a payment of all that an invoice asks for; its receipt is still to be made."""
        record(_a_payment(self.references[name]), now=NOW)

    def make_receipts(self) -> None:
        """Make the receipts that are in line, as a worker would."""
        _make_receipts()

    def hear(self) -> None:
        """Act on the deliveries that have come, as a worker would."""
        desk = Desk(process.providers(), process.signing_key(), process.business_clock())
        drain(desk, batches_max=5)

    def ask_about_cards(self) -> None:
        """Ask what became of those who were sent to pay, as a worker would."""
        with transaction() as session:
            execute(
                session,
                "UPDATE payment_attempt SET ask_at = '-infinity'"
                " WHERE state = 'sent' OR ask_at IS NOT NULL",
            )
        ask_due(
            process.providers(),
            key=process.signing_key(),
            clock=process.business_clock(),
            asks_max=20,
        )

    def number(self, name: str) -> str:
        """Return the CNSS number of an invoice's person."""
        with snapshot() as session:
            query = (
                "SELECT cnss_number FROM contributor c JOIN invoice i ON i.contributor_id = c.id"
                " WHERE reference = :reference"
            )
            return str(execute(session, query, {"reference": self.references[name]}).scalar_one())

    def payments(self, name: str) -> list[tuple[str, int]]:
        """Return what payments of an invoice there are: how each stands, and its centimes."""
        with snapshot() as session:
            rows = execute(
                session,
                "SELECT p.status, p.amount_minor FROM payment p JOIN invoice i"
                " ON i.id = p.invoice_id WHERE reference = :reference ORDER BY p.id",
                {"reference": self.references[name]},
            )
            return [(str(status), int(minor)) for status, minor in rows]

    @contextmanager
    def card_trouble(self, what: str) -> Iterator[None]:
        """Have who takes cards be away, or refuse every page."""
        world = self.card_world
        if what == "away":
            world.faults.away = True
        elif what == "refuses":
            world.clock = lambda: NOW + timedelta(days=3)
        try:
            yield
        finally:
            world.faults.away, world.clock = False, lambda: NOW

    @contextmanager
    def out_of_order(self) -> Iterator[None]:
        """Take away a table that what is due is read from, and put it back."""
        with transaction() as session:
            execute(session, "ALTER TABLE invoice_line RENAME TO invoice_line_away")
        try:
            yield
        finally:
            with transaction() as session:
                execute(session, "ALTER TABLE invoice_line_away RENAME TO invoice_line")


@contextmanager
def running_site(services: Services, home: Path) -> Iterator[Site]:
    """Run the web process on a database of its own, filled; this process is connected to it too."""
    name = f"site_{os.getpid()}"
    address = f"http://127.0.0.1:{free_port()}"
    with (
        psycopg.connect(services.database_url, autocommit=True) as connection,
        pytest.MonkeyPatch.context() as patch,
        standing_in(f"{address}/webhooks/stripe", clock=lambda: NOW) as stand_in,
        a_wallet_standing_in(clock=lambda: NOW) as wallet,
        a_push_standing_in(clock=lambda: NOW) as push,
        codes_standing_in(clock=lambda: NOW) as codes,
        a_bank_standing_in(clock=lambda: NOW) as bank,
    ):
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(TEMPLATE)
            )
        )
        patch.setenv("WASL_HOME", str(home / "home"))
        patch.setenv("WASL_DATABASE_URL", address_of(services, name))
        # Another of its databases: who guessed how often elsewhere does not count here.
        patch.setenv("WASL_REDIS_URL", services.redis_url.rsplit("/", 1)[0] + "/9")
        patch.setenv("WASL_BASE_URL", address)
        patch.setenv("WASL_CLOCK", f"={NOW.isoformat()}")
        providers = home / "providers.toml"
        providers.write_text(
            providers_file(stand_in.world.address)
            + wallet_entry(wallet.address)
            + push_entry(push.address)
            + codes_entry(codes.address)
            + bank_entry(bank.address)
        )
        patch.setenv("WASL_PROVIDERS", str(providers))
        # So that each payer of a journey comes from an address of his own.
        patch.setenv("WASL_TRUSTED_PROXIES", "127.0.0.1")
        _forget()
        db.connect(address_of(services, name))
        try:
            references = _issue()
            references |= _bring_together(references)
            back = _book(references)
            with _preparing(references["preparing"]):
                _make_receipts()
                record(back, now=NOW)
                signed = _make_codes(references)
                _begin_cards(references, address)
                with _web_process(address, home / "web.log"):
                    yield Site(
                        address,
                        references,
                        signed,
                        stand_in.world,
                        bank.bank,
                        wallet.operator,
                        push.operator,
                        codes.aggregator,
                    )
        finally:
            db.disconnect()
            _forget()
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )


def _forget() -> None:
    """Empty what this process reads once."""
    settings.cache_clear()
    institution.cache_clear()
    for once in (
        process.connect_database,
        process.signing_key,
        process.heads_file,
        process.receipt_keys,
        process.providers,
        process.business_clock,
    ):
        once.cache_clear()


@contextmanager
def _web_process(address: str, log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "gateway.serve", "--port", str(urlsplit(address).port)]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=_ROOT, stdout=output, stderr=output) as web,
    ):
        try:
            ready = wait_until(
                lambda: web.poll() is not None or _answers(f"{address}/readyz"), PATIENCE_SECONDS
            )
            assert ready, f"the web process does not answer: {log.read_text()}"
            assert web.poll() is None, f"the web process ended: {log.read_text()}"
            yield
        finally:
            web.terminate()
            web.wait(PATIENCE_SECONDS)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1) as answer:  # noqa: S310 (our own)
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


# -- the rows -------------------------------------------------------------------------------------


def _issue() -> dict[str, str]:
    """Enrol a person for each invoice, who owes for that period alone, and issue them all."""
    people = {}
    with transaction() as session:
        for name, code in _INVOICES.items():
            period = parse_period(code)
            person: dict[str, Any] = {
                "family_name": PAYER.family_name,
                "given_name": PAYER.given_name,
                "family_name_ar": PAYER.family_name_ar,
                "given_name_ar": PAYER.given_name_ar,
                "region": PAYER.region,
                "registered_on": period.starts_on,
                "left_on": period.ends_on,
            }
            if name.startswith("months"):
                # The month before it, too.
                person["registered_on"] = date(2026, 10, 1)
            if name == "quarterly":
                # No Arabic name, and a rule of another form.
                person |= {"family_name_ar": None, "given_name_ar": None}
                person |= {"category_code": "cpu", "category_base_minor": 1_200_000}
            people[name] = a_contributor(session, **person).id
    for code in sorted(set(_INVOICES.values())):
        issue_invoices(
            tariff(),
            parse_period(code),
            category=None,
            key=process.signing_key(),
            clock=lambda: NOW,
        )
    with snapshot() as session:
        rows = execute(session, "SELECT contributor_id, period, reference FROM invoice").mappings()
        found = {(row["contributor_id"], row["period"]): str(row["reference"]) for row in rows}
    return {name: found[people[name], period] for name, period in _INVOICES.items()}


def _bring_together(references: Mapping[str, str]) -> dict[str, str]:
    """Note what came after the issue; return the references that pay several invoices, by name."""
    states.noted(references["cleared"], -_DUE_MINOR, now=NOW)
    states.noted(references["charged"], 5_451, due_on=date(2026, 12, 31), now=NOW)
    with transaction() as session:
        query = "SELECT contributor_id FROM invoice WHERE reference = :which"
        late = execute(session, query, {"which": references["in a plan"]}).scalar_one()
        plan = make_plan(session, late, 3, None, key=process.signing_key(), now=NOW)
    together = states.several(references["paid together"])
    record(_a_payment(together), now=NOW)
    several = states.several(references["of several"], references["of several, late"])
    beside = states.several(references["code made"], references["beside a code"])
    return {
        "plan": plan.reference,
        "several": several,
        "several, paid": together,
        "several, one begun": beside,
    }


def _book(references: Mapping[str, str]) -> PaymentReport:
    """Bring each invoice to the state it is named for; return what takes one payment back."""
    record(_a_payment(references["retired key"]), now=NOW)
    _make_receipts()
    process.receipt_keys().rotate(now=NOW)
    goes_back = _a_payment(references["reversed"])
    record(
        goes_back,
        _a_payment(references["paid"]),
        _a_payment(references["preparing"]),
        _a_payment(references["part paid"], amount_minor=10_000),
        _a_payment(references["paid in parts"], amount_minor=10_000),
        _a_payment(
            references["paid in parts"],
            amount_minor=6_352,
            channel=Channel.WALLET,
            paid_at=NOW - timedelta(hours=3),
        ),
        _a_payment(references["paid too much"], amount_minor=20_000, channel=None),
        _a_payment(references["announced"], statement=Statement.PENDING, channel=Channel.TRANSFER),
        _a_payment(
            references["announced in part"], statement=Statement.PENDING, amount_minor=5_000
        ),
        now=NOW,
    )
    with transaction() as session:
        cancel_invoice(session, references["cancelled"], because="Radiation au registre", now=NOW)
    return replace(
        goes_back, statement=Statement.REVERSED, stated_at=NOW, source="delivery:cashplus/back"
    )


def _begin_cards(references: Mapping[str, str], address: str) -> None:
    """Send payers out in every way; have one give his card page up, and one leave his code."""
    clock = process.business_clock()
    ways = {
        "card begun": "stripe",
        "card awaited": "stripe",
        "card given up": "stripe",
        "bank begun": "cmi",
        "wallet begun": "wallet",
        "phone asked": "momo",
        "code made": "cashplus",
        "code left": "cashplus",
    }
    for name, way in ways.items():
        attempts.begin(
            process.providers(),
            references[name],
            due_minor=lambda _: _DUE_MINOR,
            language="fr",
            link=f"{address}/{references[name]}",
            clock=clock,
            way=way,
            phone="212600000000",
        )
    attempts.give_up(process.providers(), references["card given up"], clock=clock)
    attempts.give_up(process.providers(), references["code left"], clock=clock, anyway=True)


def _a_payment(reference: str, **values: Any) -> PaymentReport:
    return a_report(
        reference,
        **{
            "amount_minor": _DUE_MINOR,
            "paid_at": _WAS_PAID_AT,
            "paid_at_given": _WAS_PAID_AT.isoformat(),
            "stated_at": _WAS_PAID_AT,
            "received_at": _WAS_PAID_AT,
            **values,
        },
    )


def _make_receipts() -> None:
    receipts.issue_all(process.receipt_keys(), process.business_clock())


@contextmanager
def _preparing(reference: str) -> Iterator[None]:
    """Keep a receipt in the making: its payment is in a signer's hands, so no other takes it."""
    with psycopg.connect(_database()) as signer:
        held = signer.execute(
            "SELECT FROM receipt_due JOIN payment ON payment.id = payment_id"
            " JOIN invoice ON invoice.id = invoice_id WHERE reference = %s"
            " FOR UPDATE OF receipt_due",
            [reference],
        )
        assert held.rowcount == 1
        yield
        signer.rollback()


def _database() -> str:
    """Return the address of the database of this site."""
    address = settings().database_url
    assert address is not None
    return address.get_secret_value()


def _make_codes(references: Mapping[str, str]) -> dict[str, str]:
    """Return receipt codes of every worth."""
    with snapshot() as session:

        def first(name: str) -> receipts.ReceiptRecord:
            return receipts.of_invoice(session, references[name])[0]

        paid, back, retired = first("paid"), first("reversed"), first("retired key")
    genuine = codes.as_text(paid.signed)
    signer = process.receipt_keys().signer(now=NOW)
    claims = codes.claimed(genuine)
    assert claims is not None
    unknown = replace(claims, receipt_number=NOBODYS_NUMBER)
    # A centime more: whole, and no longer what was signed.
    amount, other = cbor2.dumps(_DUE_MINOR), cbor2.dumps(_DUE_MINOR + 1)
    assert paid.signed.count(amount) == 1
    changed = paid.signed.replace(amount, other)
    return {
        "genuine": genuine,
        "reversed": codes.as_text(back.signed),
        "retired key": codes.as_text(retired.signed),
        "cut": genuine[:-24],
        "changed": codes.as_text(changed),
        "foreign key": codes.as_text(
            codes.sign(claims, key_id="0badc0de", private_key=Ed25519PrivateKey.generate())
        ),
        "not in the books": codes.as_text(
            codes.sign(unknown, key_id=signer.key_id, private_key=signer.private)
        ),
        "attestation": codes.as_text(
            attestations.sign(
                attestations.Claims(NOBODYS_ATTESTATION, "2026-10", NOW, day_of(NOW)),
                key_id=signer.key_id,
                private_key=signer.private,
            )
        ),
    }
