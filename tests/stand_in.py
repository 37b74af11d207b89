"""The product's stand-ins for Stripe and for wallets, run in this process for a test, and the
providers to ask them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any, Final

from gateway.providers.stripe import StripeSettings
from gateway.providers.stripe_pages import StripePages
from gateway.simulators import aggregatorpage, cardpage, walletpush, walletquery
from gateway.simulators.aggregator import Aggregator, YouCanDialect
from gateway.simulators.cardbank import Bank
from gateway.simulators.stripe import Server, World
from gateway.simulators.walletoperator import Operator
from tests.factories import NOON

SECRET: Final = "whsec_sandbox_0123456789"
WALLET_KEY: Final = "sandbox-of-a-wallet"
PUSH_KEY: Final = "sandbox-of-another-wallet"
STORE_KEY: Final = "sandbox-of-a-bank"
CLIENT_ID: Final = "600001234"
CODES_KEY: Final = "pri_sandbox_0123456789abcdef"
NOWHERE: Final = "http://127.0.0.1:9/webhooks/stripe"


@contextmanager
def standing_in(webhook: str = NOWHERE, *, clock: Any = lambda: NOON) -> Iterator[Server]:
    """Run the stand-in; what it tells of goes to a webhook, or nowhere."""
    server = Server(0, webhook, SECRET, clock=clock)
    if webhook == NOWHERE:
        server.world.faults.lose = 1.0
    with _serving(server):
        yield server


@contextmanager
def a_wallet_standing_in(*, clock: Any = lambda: NOON) -> Iterator[walletquery.Server]:
    """Run the stand-in for a wallet whose callbacks are unsigned."""
    server = walletquery.Server(0, WALLET_KEY, Operator(clock=clock))
    with _serving(server):
        yield server


@contextmanager
def a_push_standing_in(*, clock: Any = lambda: NOON) -> Iterator[walletpush.Server]:
    """Run the stand-in for a wallet that asks on phones, whose callbacks are lost."""
    operator = walletpush.Operator(clock=clock)
    operator.lose_callbacks = True
    server = walletpush.Server(0, PUSH_KEY, operator)
    with _serving(server):
        yield server


@contextmanager
def a_bank_standing_in(*, clock: Any = lambda: NOON) -> Iterator[cardpage.Server]:
    """Run the stand-in for a bank's card page, to which a form leads."""
    server = cardpage.Server(0, Bank(STORE_KEY, CLIENT_ID, clock=clock))
    with _serving(server):
        yield server


@contextmanager
def codes_standing_in(*, clock: Any = lambda: NOON) -> Iterator[aggregatorpage.Server]:
    """Run the stand-in for who makes codes that agencies take."""
    orders = Aggregator(YouCanDialect(CODES_KEY), clock=clock)
    server = aggregatorpage.Server(0, "youcan", CODES_KEY, "cashplus", orders)
    with _serving(server):
        yield server


@contextmanager
def _serving(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def pages_of(world: World) -> StripePages:
    """Return the provider that asks a stand-in."""
    values = {"secrets": [SECRET], "api_key": "sk_test_1234", "api_base": world.address}
    return StripePages("stripe", StripeSettings.model_validate(values), live=False)


def providers_file(address: str) -> str:
    """Return a providers file whose one provider asks the stand-in at an address."""
    return (
        '[[provider]]\nname = "stripe"\nkind = "stripe"\napi_key = "sk_test_1234"\n'
        f'secrets = ["{SECRET}"]\napi_base = "{address}"\n'
    )


def wallet_entry(address: str) -> str:
    """Return the entry of a providers file whose wallet is the stand-in at an address."""
    return (
        f'[[provider]]\nname = "wallet"\nkind = "status-query"\napi_key = "{WALLET_KEY}"\n'
        f'request_url = "{address}/webpayment"\nstatus_url = "{address}/transactionstatus"\n'
    )


def push_entry(address: str) -> str:
    """Return the entry of a providers file whose wallet asks on phones, by a stand-in."""
    return (
        f'[[provider]]\nname = "momo"\nkind = "status-query"\nstyle = "push"\n'
        f'api_key = "{PUSH_KEY}"\nrequest_url = "{address}/requesttopay"\n'
        f'status_url = "{address}/requesttopay"\n'
    )


def bank_entry(address: str) -> str:
    """Return the entry of a providers file whose card page is a bank's, by a stand-in."""
    return (
        f'[[provider]]\nname = "cmi"\nkind = "cmi"\nclient_id = "{CLIENT_ID}"\n'
        f'store_key = "{STORE_KEY}"\napi_base = "{address}"\n'
    )


def codes_entry(address: str) -> str:
    """Return the entry of a providers file by whom codes are made, by a stand-in."""
    return (
        f'[[provider]]\nname = "cashplus"\nkind = "youcan"\nmethod = "cashplus"\n'
        f'api_key = "{CODES_KEY}"\npublic_key = "pub_sandbox_0"\napi_base = "{address}/api"\n'
    )


def sessions(world: World) -> list[dict[str, Any]]:
    """Return the pages that were made, oldest first."""
    return world.all("checkout.session")
