"""Shared fixtures: real services in a scratch home, one fresh migrated database a test.

The services are the product's own embedded ones. A migrated template is cloned for each test that
asks for `database`, so tests commit as the product does and leave nothing to each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from gateway import db, migrate, process
from gateway.institution import institution
from gateway.retention import retention
from gateway.services import Services, running_services
from gateway.settings import Settings, settings

# A test must not meet the services, the providers or the clock of whoever runs it.
for _name in [name for name in os.environ if name.startswith("WASL_")]:
    del os.environ[_name]

# How long an example takes says how busy the machine is, and nothing of what is right.
hypothesis.settings.register_profile("wasl", deadline=None)
hypothesis.settings.load_profile("wasl")

pytest_plugins = ["tests.browser.leftout", "tests.scratch"]

TEMPLATE = "template_wasl"


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """PostgreSQL and Valkey for the whole run, and a migrated database to clone."""
    home = tmp_path_factory.mktemp("services")
    with running_services(Settings(home=home)) as running:
        with psycopg.connect(running.database_url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        migrate.upgrade(address_of(running, TEMPLATE))
        yield running


@pytest.fixture(scope="session")
def admin(services: Services) -> Iterator[psycopg.Connection]:
    """The connection by which databases are made and dropped."""
    with psycopg.connect(services.database_url, autocommit=True) as connection:
        yield connection


def address_of(services: Services, database: str) -> str:
    """Return the address of another database of the same server."""
    parts = conninfo_to_dict(services.database_url)
    return (
        f"postgresql://{parts['user']}:{parts['password']}@{parts['host']}:{parts['port']}"
        f"/{database}"
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own: keys, heads file, providers file. The process's caches follow."""
    scratch = tmp_path / "home"
    monkeypatch.setenv("WASL_HOME", str(scratch))
    _forget()
    yield scratch
    _forget()


@pytest.fixture
def database(
    services: Services,
    admin: psycopg.Connection,
    home: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """The address of a fresh migrated database that this process is connected to."""
    name = f"test_{os.getpid()}_{abs(hash(request.node.nodeid)):x}"
    named = sql.Identifier(name)
    admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(named, sql.Identifier(TEMPLATE)))
    address = address_of(services, name)
    monkeypatch.setenv("WASL_DATABASE_URL", address)
    monkeypatch.setenv("WASL_REDIS_URL", services.redis_url)
    _forget()
    db.connect(address)
    yield address
    db.disconnect()
    admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(named))


def _forget() -> None:
    """Empty what a process reads once: each test is a process of its own in that respect."""
    settings.cache_clear()
    for once in (
        process.connect_database,
        process.signing_key,
        process.heads_file,
        process.providers,
        process.receipt_keys,
        institution,
        retention,
        process.business_clock,
    ):
        once.cache_clear()
