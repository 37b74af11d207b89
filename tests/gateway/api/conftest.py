"""The web process as it is put together, on a database of the test's own, at noon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from fastapi import FastAPI
from httpx2 import Response
from starlette.testclient import TestClient

from gateway.api import limits, paging
from gateway.db import transaction
from gateway.models import Role
from gateway.services import Services
from gateway.staff import create_key
from tests.factories import NOON
from tests.gateway.pages.conftest import forget, set_clock

FES, RABAT = "Fès-Meknès", "Rabat-Salé-Kénitra"


@dataclass(frozen=True)
class Program:
    """A caller with a key, or without one."""

    client: TestClient
    key: str | None

    def ask(
        self, method: str, path: str, body: Any = None, *, once: str | None = None, **options: Any
    ) -> Response:
        headers = dict(options.pop("headers", {}))
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        if once is not None:
            headers["Idempotency-Key"] = once
        if body is not None:
            options["json"] = body
        return self.client.request(method, f"/v1{path}", headers=headers, **options)

    def get(self, path: str, **options: Any) -> Response:
        return self.ask("GET", path, **options)

    def post(self, path: str, body: Any, **options: Any) -> Response:
        return self.ask("POST", path, body, **options)


ProgramOf = Callable[..., Program]


@pytest.fixture
def app(database: str, services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    """The application, counting in a Redis database that is empty."""
    counting = services.redis_url.rsplit("/", 1)[0] + "/8"
    with redis.Redis.from_url(counting) as counters:
        counters.flushdb()
    monkeypatch.setenv("WASL_REDIS_URL", counting)
    set_clock(monkeypatch, NOON)
    forget_all()
    # It reads the environment when it is imported.
    from gateway.app import create_app

    yield create_app()
    forget_all()


def forget_all() -> None:
    """Empty what the API keeps for the life of a process."""
    forget()
    for once in (limits.unknown_keys, limits.misses, paging.cursor_key):
        once.cache_clear()


@pytest.fixture
def program(app: FastAPI) -> ProgramOf:
    """Make a caller of a role, or a stranger."""
    client = TestClient(app, raise_server_exceptions=False, follow_redirects=False)

    def make(role: Role | None = Role.ADMIN, scope: str | None = None) -> Program:
        if role is None:
            return Program(client, None)
        with transaction() as session:
            # Who approves is another person than who asks.
            label = "theirs" if role is Role.APPROVER else "ours"
            return Program(client, create_key(session, role, now=NOON, scope=scope, label=label))

    return make
