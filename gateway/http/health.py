"""`/healthz`: alive. `/readyz`: able to serve."""

from __future__ import annotations

from typing import Final

import redis
from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway import migrate
from gateway.db import execute, transaction
from gateway.settings import settings

REDIS_SECONDS_MAX: Final = 2.0

router = APIRouter(tags=["standing of the service"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """Alive: the process answers. Asks nothing of anybody else."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "The database is away or not migrated"}})
def readyz() -> JSONResponse:
    """Able to serve: the database answers and has this version's schema.

    Redis is reported and not required: without it deliveries are still stored and acknowledged,
    and are acted on when it is back.
    """
    parts = {"database": _database(), "redis": _redis()}
    ready = parts["database"] == "ok"
    return JSONResponse({"ready": ready, **parts}, 200 if ready else 503)


def _database() -> str:
    try:
        with transaction() as session:
            revision = execute(session, "SELECT version_num FROM alembic_version").scalar()
    except (DBAPIError, PoolTimeout):
        return "does not answer"
    return "ok" if revision == migrate.newest() else f"at revision {revision}"


def _redis() -> str:
    url = settings().redis_url
    if url is None:
        return "not configured"
    try:
        with redis.Redis.from_url(
            url.get_secret_value(),
            socket_timeout=REDIS_SECONDS_MAX,
            socket_connect_timeout=REDIS_SECONDS_MAX,
        ) as client:
            client.ping()
    except redis.RedisError:
        return "does not answer"
    return "ok"
