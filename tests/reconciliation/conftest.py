"""A fresh migrated database for each test that asks for one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from gateway import db, migrate

SERVER = "postgresql://w@127.0.0.1:55440"


@pytest.fixture(scope="session")
def template() -> Iterator[str]:
    name = f"recon_template_{os.getpid()}"
    with psycopg.connect(f"{SERVER}/postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        migrate.upgrade(f"{SERVER}/{name}")
        yield name
        server.execute(f"DROP DATABASE {name}")


@pytest.fixture
def database(template: str) -> Iterator[str]:
    name = f"recon_{uuid4().hex}"
    with psycopg.connect(f"{SERVER}/postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        db.connect(f"{SERVER}/{name}")
        yield f"{SERVER}/{name}"
        db.disconnect()
        server.execute(f"DROP DATABASE {name}")
