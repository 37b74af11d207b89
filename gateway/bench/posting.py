"""`wasl bench posting`: a full inbox acted on as the worker does, beside what the intake takes in.

Ours is the worker's own task in as many processes as the worker has: claiming deliveries, reading
them, deciding, payments, invoices, allocations, exceptions, the chain of the books with its
signatures, the feed. Receipts are signed later, by another task, and are not in it. The limit is
how many deliveries the web process stores and answers in the same run (`wasl bench webhooks`):
whoever posts no slower than that never falls behind.

Each round has a database of its own, cloned from one whose inbox is full. In the end of each, all
must have been booked once, and the books' promises must hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from gateway import db, migrate
from gateway.bench.measure import Measured, Progress, interleaved
from gateway.bench.webhooks import taking
from gateway.billing.issuing import Issuer, work_off
from gateway.billing.orders import order_issue
from gateway.books import ledger
from gateway.books.seals import HeadsFile, books_key
from gateway.checks import run_checks
from gateway.checks.promises import books_checks
from gateway.db import snapshot, transaction
from gateway.dues.periods import parse_period
from gateway.dues.tariff import keep_categories, tariff
from gateway.errors import Unusable
from gateway.migrate import judges
from gateway.models import Channel
from gateway.money import format_amount
from gateway.providers.registry import load_providers
from gateway.references import with_check_digits
from gateway.services import Services
from gateway.settings import settings
from gateway.supervisor import WORKER_PROCESSES
from webhooks.checks import CHECKS as INBOX_CHECKS

_FULL: Final = "posting_full"
_FRESH: Final = "posting_round"
_PERIOD: Final = "2026-11"
_NOW: Final = datetime(2026, 11, 18, 12, tzinfo=UTC)
_START_SECONDS_MAX: Final = 120
_ROUND_SECONDS_MAX: Final = 3_600
_IDLE_SECONDS: Final = 0.01
_UNKNOWN: Final = 9_000_000_000
"""References from here on are nobody's."""

_CHANNELS: Final = {
    "cashplus": Channel.CASH_AGENT,
    "kiosk": Channel.KIOSK,
    "wallet": Channel.WALLET,
    "card": Channel.CARD,
    "bank": Channel.TRANSFER,
}
"""The providers whose deliveries wait, as a sandbox names them."""


def bench_posting(
    deliveries: int, *, rounds: int, progress: Progress, seconds: float = 4.0
) -> Measured:
    """Measure how many deliveries a second are acted on, in scratch homes of its own.

    Args:
        deliveries: How many wait in the inbox at the beginning of a round.
        rounds: How often ours and the limit are measured, in turns.
        progress: Told after each turn.
        seconds: How long the limit is measured.

    Raises:
        Unavailable: The services or the web process cannot be started.
        Unusable: Not all was booked once, or a promise of the books does not hold.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wasl-bench-")))
        (scratch / "taking").mkdir()
        services, take = stack.enter_context(taking(str(scratch / "taking")))
        stage = _prepared(services, scratch, deliveries)
        return interleaved(
            f"posting, {deliveries} deliveries",
            ours=stage.post,
            limit=lambda: take(seconds),
            unit="deliveries/s",
            rounds=rounds,
            progress=progress,
        )


@dataclass(frozen=True, slots=True)
class _Inbox:
    """What waits, and what it must come to."""

    outcomes: Mapping[str, int]
    total_minor: int
    """Of all payments, each counted once."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """A server with a database to clone whose inbox is full, and the home of its keys."""

    services: Services
    home: Path
    inbox: _Inbox

    def post(self) -> float:
        """Drain a fresh clone; return deliveries a second."""
        with self._clone() as (url, home):
            rate = sum(self.inbox.outcomes.values()) / self._drained(url, home)
            self._prove(url, home)
            return rate

    @contextmanager
    def _clone(self) -> Iterator[tuple[str, Path]]:
        """Give a database whose inbox is full, and a home with its keys and no signed heads."""
        with psycopg.connect(_named(self.services, "postgres"), autocommit=True) as admin:
            fresh, full = sql.Identifier(_FRESH), sql.Identifier(_FULL)
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(fresh))
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(fresh, full))
            admin.execute("CHECKPOINT")
        home = self.home / "round"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        shutil.copytree(self.home / "keys", home / "keys")
        shutil.copy(self.home / "providers.toml", home)
        HeadsFile(_settings(home).heads_file).create()
        yield _named(self.services, _FRESH), home

    def _drained(self, url: str, home: Path) -> float:
        """Drain by the worker's processes; return the seconds until the inbox was empty."""
        environment = {
            "WASL_HOME": str(home),
            "WASL_DATABASE_URL": url,
            "WASL_REDIS_URL": self.services.redis_url,
            "WASL_CLOCK": f"={_NOW.isoformat()}",
        }
        context = get_context("spawn")
        start, ended = context.Barrier(WORKER_PROCESSES + 1), context.Queue()
        workers = [
            context.Process(target=_work, args=(environment, start, ended), daemon=True)
            for _ in range(WORKER_PROCESSES)
        ]
        for worker in workers:
            worker.start()
        start.wait(_START_SECONDS_MAX)
        began = time.perf_counter()
        for _ in workers:
            ended.get(timeout=_ROUND_SECONDS_MAX)
        took = time.perf_counter() - began
        for worker in workers:
            worker.join()
        return took

    def _prove(self, url: str, home: Path) -> None:
        """Compare the books with what waited.

        Raises:
            Unusable: They differ, or a promise of the books does not hold.
        """
        with psycopg.connect(url) as connection:
            outcomes: dict[str, int] = dict(
                connection.execute(
                    "SELECT outcome, count(*) FROM webhook_delivery WHERE state = 'done' GROUP BY 1"
                ).fetchall()
            )
            total = connection.execute(
                "SELECT sum(amount_minor)::bigint FROM ledger_transfer"
            ).fetchone()
        if (outcomes, total) != (self.inbox.outcomes, (self.inbox.total_minor,)):
            raise Unusable(
                f"The deliveries came to {outcomes}, {total}, and not to {self.inbox.outcomes},"
                f" {self.inbox.total_minor}."
            )
        heads, key = HeadsFile(_settings(home).heads_file), books_key(home / "keys")
        db.connect(url)
        try:
            with transaction() as session:
                ledger.seal(session, heads, key)
            db.renew_figures()
            with snapshot() as session:
                broken = run_checks(session, [*books_checks(key, heads, judges()), *INBOX_CHECKS])
        finally:
            db.disconnect()
        if broken:
            raise Unusable(f"After posting, {broken[0].what} does not hold: {broken[0].where}.")


def _work(environment: Mapping[str, str], start: Any, ended: Any) -> None:
    """Be a process of the worker: run its task whenever something waits, until nothing does."""
    os.environ.update(environment)
    from gateway.worker import app, collect_seldom
    from webhooks.tasks import desk, drain_inbox

    desk()
    collect_seldom()
    # A worker that runs has its broker open.
    with app.producer_or_acquire() as producer:
        producer.connection.ensure_connection(max_retries=3)
    waiting = "SELECT EXISTS (SELECT FROM webhook_delivery WHERE state = 'waiting')"
    with psycopg.connect(environment["WASL_DATABASE_URL"], autocommit=True) as connection:
        start.wait(_START_SECONDS_MAX)
        while connection.execute(waiting).fetchone() == (True,):
            drain_inbox()
            time.sleep(_IDLE_SECONDS)
    ended.put(os.getpid())
    db.disconnect()


def _settings(home: Path) -> Any:
    return settings().model_copy(update={"home": home})


def _named(services: Services, database: str) -> str:
    url = make_url(services.database_url).set(database=database)
    return url.render_as_string(hide_password=False)


# -- what is prepared -----------------------------------------------------------------------------


def _prepared(services: Services, home: Path, deliveries: int) -> _Stage:
    """Make a database of invoices whose inbox is full of payments of them, to be cloned."""
    with psycopg.connect(_named(services, "postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_FULL)))
    url = _named(services, _FULL)
    migrate.upgrade(url)
    load_providers(_settings(home))
    db.connect(url)
    try:
        _issue(url, home, deliveries)
    finally:
        db.disconnect()
    with psycopg.connect(url, autocommit=True) as connection:
        inbox = _fill(connection, deliveries)
        connection.execute("VACUUM ANALYZE")
    return _Stage(services, home, inbox)


def _issue(url: str, home: Path, people: int) -> None:
    with transaction() as session:
        keep_categories(session, tariff())
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO contributor (cnss_number, family_name, given_name, category_code,"
            " registered_on, changed_at) SELECT lpad(n::text, 9, '0'), 'Alaoui', 'Amina',"
            " 'artisan-untaxed', '2022-01-01', now() FROM generate_series(1, %s) AS n",
            [people],
        )
    issuer = Issuer(tariff(), books_key(home / "keys"), lambda: _NOW)
    with transaction() as session:
        order = order_issue(session, tariff(), parse_period(_PERIOD), category=None, now=_NOW)
    work_off(order, issuer, progress=lambda _done, _of: None, workers=1)


def _fill(connection: psycopg.Connection[Any], deliveries: int) -> _Inbox:
    """Let deliveries wait that are like a day's: most pay one invoice, in any order.

    One in twenty pays a part, one in fifty quotes a reference that is nobody's, and one in thirty
    is told again under another delivery id.
    """
    chance = random.Random(1)  # noqa: S311 - a mixture, no secret
    invoices = connection.execute("SELECT reference, amount_minor FROM invoice ORDER BY id")
    rows = invoices.fetchall()
    chance.shuffle(rows)
    outcomes = {"booked": 0, "repeated": 0}
    total = stored = 0
    copy = (
        "COPY webhook_delivery (provider, delivery_id, body, body_sha256, received_at)"
        " FROM STDIN (FORMAT BINARY)"
    )
    with connection.cursor() as cursor, cursor.copy(copy) as to:
        to.set_types(["text", "text", "bytea", "bytea", "timestamptz"])
        for number, (reference, minor) in enumerate(rows):
            again = chance.random() < 1 / 30
            paid = minor // 2 if chance.random() < 1 / 20 else minor
            quoted = reference
            if chance.random() < 1 / 50:
                quoted = with_check_digits(_UNKNOWN + number)
            provider, body = _delivery(number, quoted, paid, chance)
            told = ["booked", "repeated"][: min(1 + again, deliveries - stored)]
            for outcome in told:
                outcomes[outcome] += 1
                stored += 1
                sha256 = hashlib.sha256(body).digest()
                to.write_row((provider, f"msg_{stored:012}", body, sha256, _NOW))
            total += paid if told else 0
    return _Inbox({name: count for name, count in outcomes.items() if count}, total)


def _delivery(number: int, reference: str, minor: int, chance: random.Random) -> tuple[str, bytes]:
    provider = list(_CHANNELS)[number % len(_CHANNELS)]
    at = (_NOW - timedelta(seconds=chance.randrange(3_600))).isoformat()
    data = {
        "provider_payment_id": f"{provider}-{number:010}",
        "reference": reference,
        "amount": format_amount(minor),
        "currency": "MAD",
        "channel": _CHANNELS[provider],
        "paid_at": at,
        "agent_id": f"A{chance.randrange(10_000):04}",
    }
    body = {"type": "payment.completed", "timestamp": at, "data": data}
    return provider, json.dumps(body).encode()
