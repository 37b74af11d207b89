"""The pages on a database of the test's own, with the clock standing still at noon."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest
import redis
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from gateway import process
from gateway.pages import clients, site, throttle
from gateway.pages.routes import router
from gateway.services import Services
from gateway.settings import settings
from tests.factories import NOON, SECRET

_SECRETS: Final = f'secrets = ["{SECRET}"]\n'


@pytest.fixture
def app(
    database: str, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FastAPI]:
    """The pages as the web process puts them together."""
    counting = services.redis_url.rsplit("/", 1)[0] + "/7"
    with redis.Redis.from_url(counting) as counters:
        counters.flushdb()
    monkeypatch.setenv("WASL_REDIS_URL", counting)
    # Nobody whose pages to pay on are opened from ours: that is what some tests are about.
    providers = tmp_path / "no-pages.toml"
    providers.write_text(f'[[provider]]\nname="cashplus"\nkind="standard-webhooks"\n{_SECRETS}')
    monkeypatch.setenv("WASL_PROVIDERS", str(providers))
    set_clock(monkeypatch, NOON)
    forget()
    made = FastAPI()
    made.include_router(router)
    made.add_exception_handler(HTTPException, site.http_error)
    yield made
    forget()


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    """A browser without scripts that follows nothing by itself and reads French."""
    return a_client(app)


def a_client(app: FastAPI, host: str = "196.200.0.1") -> TestClient:
    """Return a browser at an address."""
    return TestClient(
        app,
        base_url="https://amo.example.ma",
        headers={"Accept-Language": "fr-MA"},
        follow_redirects=False,
        client=(host, 5000),
    )


def set_clock(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    """Have the business clock stand still at a moment."""
    monkeypatch.setenv("WASL_CLOCK", f"={moment.isoformat()}")
    settings.cache_clear()
    process.business_clock.cache_clear()


def forget() -> None:
    """Empty what the pages keep for the life of a process."""
    if throttle.counters.cache_info().currsize and (shared := throttle.counters()._shared):
        shared.storage.get_connection().connection_pool.disconnect()  # type: ignore[attr-defined]
    for once in (clients._key, throttle.counters, throttle.misses, throttle.photos):
        once.cache_clear()
