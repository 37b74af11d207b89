"""A session on the scratch server; the engine on PostgreSQL needs none of the product's tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from gateway.db import sqlalchemy_url
from gateway.services import Services


@pytest.fixture(scope="module")
def server(services: Services) -> Iterator[Session]:
    """Roll back after each matching: all that it makes is temporary."""
    engine = sa.create_engine(sqlalchemy_url(services.database_url))
    with Session(engine) as session:
        yield session
    engine.dispose()
