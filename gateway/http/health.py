"""`/healthz`: alive. `/readyz`: able to serve."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import asyncpg
import redis.asyncio as redis
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from gateway import migrate
from gateway.db import asyncpg_address
from gateway.settings import settings

ANSWER_SECONDS_MAX: Final = 3.0

router = APIRouter(tags=["standing of the service"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Alive: the process answers. Asks nothing of anybody else, not even for a thread."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "The database is away or not migrated"}})
async def readyz() -> JSONResponse:
    """Able to serve: the database answers and has this version's schema.

    Redis is reported and not required: without it deliveries are still stored and acknowledged,
    and are acted on when it is back. Answers within ANSWER_SECONDS_MAX, also of services that are
    frozen and not even refuse.
    """
    database, broker = await asyncio.gather(_database(), _redis())
    ready = database == "ok"
    said = {"ready": ready, "database": database, "redis": broker}
    return JSONResponse(said, 200 if ready else 503)


async def _database() -> str:
    url = settings().database_url
    if url is None:
        return "not configured"
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            connection = await asyncpg.connect(asyncpg_address(url.get_secret_value()))
        try:
            revision = await connection.fetchval(
                "SELECT version_num FROM alembic_version", timeout=ANSWER_SECONDS_MAX
            )
        finally:
            # Not close(), which waits for the server.
            connection.terminate()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return "does not answer"
    return "ok" if revision == migrate.newest() else f"at revision {revision}"


async def _redis() -> str:
    url = settings().redis_url
    if url is None:
        return "not configured"
    client = redis.Redis.from_url(
        url.get_secret_value(),
        socket_timeout=ANSWER_SECONDS_MAX,
        socket_connect_timeout=ANSWER_SECONDS_MAX,
    )
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            await client.ping()
    except (OSError, TimeoutError, redis.RedisError):
        return "does not answer"
    finally:
        with contextlib.suppress(OSError, redis.RedisError):
            await client.aclose()
    return "ok"
