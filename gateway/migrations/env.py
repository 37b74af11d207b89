"""Alembic's entry: runs migrations on the connection that gateway.migrate hands over.

One of the places where the packages are put together: their tables share one metadata.
"""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

# Each import registers its package's tables.
import gateway.models  # noqa: F401
import reconciliation.models
import reconciliation.sources.models  # noqa: F401
import webhooks.models  # noqa: F401

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    compare_server_default=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
