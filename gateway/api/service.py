"""`/v1/service`: how the service stands. `/v1/me`: whose key it is. `/v1/keys`: all keys."""

from __future__ import annotations

import tomllib
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final, Literal

from fastapi import APIRouter
from pydantic import Field

from gateway import process
from gateway.api.access import MAY, Right, ThisRequest
from gateway.api.limits import REQUESTS_PER_MINUTE
from gateway.api.route import new_router, operation
from gateway.api.schemas import Said, example
from gateway.db import execute, snapshot
from gateway.errors import Unusable
from gateway.models import ApiKey, Role
from gateway.settings import settings
from gateway.staff import list_keys

router: APIRouter = new_router("service")


class ServiceProvider(Said):
    """A provider that is switched on."""

    name: str
    kind: str


class Waiting(Said):
    """What is not done yet."""

    deliveries: int = Field(description="Taken in and not acted on.")
    parked_deliveries: int = Field(description="Given up on: what they say is in no book.")
    receipts: int = Field(description="Booked payments whose receipt is not signed.")
    open_exceptions: int


class ServiceStanding(Said):
    """How the service stands."""

    model_config = example(
        mode="sandbox",
        version="0.1.0",
        revision="0004",
        now="2026-11-18T11:06:40Z",
        providers=[{"name": "cashplus", "kind": "standard-webhooks"}],
        last_batch=812,
        last_sealed_batch=812,
        waiting={
            "deliveries": 0,
            "parked_deliveries": 0,
            "receipts": 0,
            "open_exceptions": 3,
        },
    )

    mode: Literal["sandbox", "production"]
    version: str
    revision: str = Field(description="Of the database's schema.")
    now: datetime = Field(description="By the business clock, the only one that decisions read.")
    providers: list[ServiceProvider]
    last_batch: int = Field(description="The last batch of the books; 0: none yet.")
    last_sealed_batch: int | None = Field(
        description="The last one whose signed head is in the file outside the database; null:"
        " the file cannot be read."
    )
    waiting: Waiting


class RateLimit(Said):
    """How often a key may ask."""

    requests: int
    seconds: int


class Me(Said):
    """Whose key this is, and what it may."""

    model_config = example(
        key_id="9f86d081884c7d65",
        label="till software, Fès",
        role="agent",
        scope=None,
        rights=["me:read", "references:read"],
        limit={"requests": REQUESTS_PER_MINUTE, "seconds": 60},
    )

    key_id: str
    label: str
    role: Role
    scope: str | None = Field(description="A chamber's region, a provider's name.")
    rights: list[Right]
    limit: RateLimit


class KeyRecord(Said):
    """A bearer key, without its secret."""

    model_config = example(
        id="9f86d081884c7d65",
        label="till software, Fès",
        role="agent",
        scope=None,
        created_at="2026-11-01T08:00:00Z",
        revoked_at=None,
    )

    id: str
    label: str
    role: Role
    scope: str | None
    created_at: datetime
    revoked_at: datetime | None


class Keys(Said):
    """All keys, oldest first, revoked ones too."""

    data: list[KeyRecord]


@router.get("/service", **operation(Right.READ_SERVICE))
def read_service(asked: ThisRequest) -> ServiceStanding:
    """Say how the service stands."""
    with snapshot() as session:
        counted = execute(session, _COUNTED).one()._asdict()
    return ServiceStanding(
        mode=settings().mode,
        version=version("wasl"),
        revision=counted.pop("revision"),
        now=asked.now,
        providers=_providers(),
        last_batch=counted.pop("last_batch"),
        last_sealed_batch=_last_sealed(),
        waiting=Waiting(**counted),
    )


@router.get("/me", **operation(Right.BE_KNOWN))
def read_me(asked: ThisRequest) -> Me:
    """Say whose key this is, what it may and how often."""
    caller = asked.caller
    return Me(
        key_id=caller.key_id,
        label=caller.label,
        role=caller.role,
        scope=caller.scope,
        rights=sorted(MAY[caller.role]),
        limit=RateLimit(requests=REQUESTS_PER_MINUTE, seconds=60),
    )


@router.get("/keys", **operation(Right.READ_KEYS))
def read_keys() -> Keys:
    """List all keys. Only the command line makes and revokes them: `wasl keys create`, `revoke`."""
    with snapshot() as session:
        return Keys(data=[_said(key) for key in list_keys(session)])


# The inbox is another package, and the API reads no more of it than how many rows wait.
_COUNTED: Final = """
    SELECT (SELECT version_num FROM alembic_version) AS revision,
        (SELECT coalesce(max(id), 0) FROM ledger_batch) AS last_batch,
        (SELECT count(*) FROM webhook_delivery WHERE state = 'waiting') AS deliveries,
        (SELECT count(*) FROM webhook_delivery WHERE state = 'parked') AS parked_deliveries,
        (SELECT count(*) FROM receipt_due) AS receipts,
        (SELECT count(*) FROM coded_exception WHERE resolved_at IS NULL) AS open_exceptions
"""


def _said(key: ApiKey) -> KeyRecord:
    return KeyRecord(**key.model_dump(exclude={"secret_sha256"}))


def _providers() -> list[ServiceProvider]:
    """Return the providers of the file that this process has read, with their kinds."""
    try:
        entries = tomllib.loads(settings().providers_file.read_text("utf-8"))["provider"]
        kinds: dict[str, Any] = {entry["name"]: entry["kind"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        # Somebody may be at it: which providers there are, this process knows.
        kinds = {}
    return [
        ServiceProvider(name=name, kind=str(kinds.get(name, "unknown")))
        for name in sorted(process.providers())
    ]


def _last_sealed() -> int | None:
    heads = process.heads_file()
    try:
        return heads.last_batch()
    except (Unusable, OSError):
        return None
