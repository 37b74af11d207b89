"""The product's stand-ins for Stripe and for a wallet, run in this process for a test, and the
providers to ask them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any, Final

from gateway.providers.stripe import StripeSettings
from gateway.providers.stripe_pages import StripePages
from gateway.simulators import walletquery
from gateway.simulators.stripe import Server, World
from gateway.simulators.walletoperator import Operator
from tests.factories import NOON

SECRET: Final = "whsec_sandbox_0123456789"
WALLET_KEY: Final = "sandbox-of-a-wallet"
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


def sessions(world: World) -> list[dict[str, Any]]:
    """Return the pages that were made, oldest first."""
    return world.all("checkout.session")
