"""The product's stand-in for Stripe, run in this process for a test, and the provider to ask it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from gateway.providers.stripe import StripeSettings
from gateway.providers.stripe_pages import StripePages
from gateway.simulators.stripe import Server, World
from tests.factories import NOON

SECRET: Final = "whsec_sandbox_0123456789"
NOWHERE: Final = "http://127.0.0.1:9/webhooks/stripe"


@contextmanager
def standing_in(webhook: str = NOWHERE, *, clock: Any = lambda: NOON) -> Iterator[Server]:
    """Run the stand-in; what it tells of goes to a webhook, or nowhere."""
    server = Server(0, webhook, SECRET, clock=clock)
    if webhook == NOWHERE:
        server.world.faults.lose = 1.0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
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


def sessions(world: World) -> list[dict[str, Any]]:
    """Return the pages that were made, oldest first."""
    return world.all("checkout.session")
