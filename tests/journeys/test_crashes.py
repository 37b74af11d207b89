"""Whatever dies, and whenever: running the same steps again leads to the same books.

Each test starts from a half-done state, made by a real process that is killed or by the row that it
would leave, runs the ordinary steps again, and compares with a run that nothing disturbed.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

from gateway import db, outbox, process, receipts
from gateway.books.ledger import SEAL_TASK
from gateway.collection.payment_batch import RECEIPTS_TASK
from gateway.db import transaction
from gateway.dues.tariff import tariff
from gateway.people.imports import import_contributors
from gateway.people.reading import COLUMNS
from gateway.services import Services
from gateway.settings import settings
from tests.conftest import TEMPLATE, address_of
from tests.factories import (
    NOON,
    PATIENCE_SECONDS,
    SECRET,
    Books,
    a_delivery,
    a_desk,
    a_provider,
    an_event,
    broken_promises,
    issue,
    rows_of,
    seal,
    some_invoices,
    the_books,
)
from webhooks.inbox import drain

ROOT: Final = Path(__file__).parent.parent.parent
PROVIDERS: Final = ("cashplus", "kiosk")
WAITING: Final = "SELECT count(*) FROM webhook_delivery WHERE state = 'waiting'"

# Drains the inbox in a child for each number that it is told, and kills the child at that call of
# the database: before the statement is sent, after it was done, or as the commit is about to be.
DRAINER: Final = """
import os, signal, sys
import sqlalchemy as sa
from gateway import db, process
from webhooks.inbox import Desk, drain

def run(when, left):
    process.connect_database()

    def strike(*_):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(db.engine(), when, strike)
    desk = Desk(process.providers(), process.signing_key(), process.business_clock())
    drain(desk, batches_max=50)

for line in sys.stdin:
    when, number = line.split()
    child = os.fork()
    if child == 0:
        run(when, int(number))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else f"survived {status}", flush=True)
"""


def deliver() -> None:
    """Store what two providers tell: of every outcome, some of it more than once."""
    references = some_invoices(4)
    for provider in PROVIDERS:
        for at, reference in enumerate(references):
            named = f"{provider}-{at}"
            body = an_event(reference, provider_payment_id=named)
            a_delivery(body, provider=provider, delivery_id=f"msg_{at}")
            a_delivery(body, provider=provider, delivery_id=f"msg_{at}_again")
        later = (NOON + timedelta(seconds=1)).isoformat()
        given_back = an_event(
            references[0],
            kind="payment.reversed",
            provider_payment_id=f"{provider}-0",
            timestamp=later,
        )
        lost = an_event("no such thing", provider_payment_id=f"{provider}-lost")
        part = an_event(references[3], provider_payment_id=f"{provider}-part", amount="0.01")
        for at, body in enumerate((given_back, lost, part, b'{"type": "payment.completed"}')):
            received_at = NOON + timedelta(seconds=2)
            a_delivery(body, provider=provider, delivery_id=f"x_{at}", received_at=received_at)


def act(database: str) -> None:
    """Take the ordinary steps until nothing waits: what the schedule does, every few seconds."""
    desk = a_desk(*map(a_provider, PROVIDERS))
    # A dead drainer's locks are held until the server notices; whoever comes earlier goes again.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while rows_of(database, WAITING) != [(0,)]:
        drain(desk, batches_max=50)
        assert time.monotonic() < deadline
    send_what_was_asked_for()
    seal()


def send_what_was_asked_for() -> list[str]:
    """Send the outbox; the tasks that are asked for are done here, as a worker would."""
    sent: list[str] = []
    with transaction() as session:
        outbox.drain(session, lambda task, _: sent.append(task))
    for task in sent:
        if task == SEAL_TASK:
            seal()
        else:
            assert task == RECEIPTS_TASK
            receipts.issue_all(process.receipt_keys(), lambda: NOON)
    return sent


@pytest.fixture(scope="module")
def undisturbed(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    """The books of a run that nothing disturbs, in a database and a home of its own."""
    name = sql.Identifier(f"undisturbed_{os.getpid()}")
    with psycopg.connect(services.database_url, autocommit=True) as connection:
        made = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(TEMPLATE))
        connection.execute(made)
        address = address_of(services, f"undisturbed_{os.getpid()}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WASL_HOME", str(tmp_path_factory.mktemp("undisturbed")))
            forget()
            db.connect(address)
            deliver()
            act(address)
            assert broken_promises(deliveries=True) == []
            books = the_books()
            db.disconnect()
        forget()
        yield books
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def forget() -> None:
    settings.cache_clear()
    process.signing_key.cache_clear()
    process.heads_file.cache_clear()


@pytest.fixture
def inbox(undisturbed: Books, database: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database in which the same deliveries are stored and nothing was rung: crash (1)."""
    assert len(undisturbed.transfers) > len(PROVIDERS) * 5
    home.mkdir(exist_ok=True)
    (home / "providers.toml").write_text(
        "".join(
            f'[[provider]]\nname = "{name}"\nkind = "standard-webhooks"\nsecrets = ["{SECRET}"]\n'
            for name in PROVIDERS
        )
    )
    monkeypatch.setenv("WASL_CLOCK", f"={NOON.isoformat()}")
    deliver()
    return database


def assert_the_same(database: str, undisturbed: Books) -> None:
    act(database)
    assert the_books() == undisturbed
    assert broken_promises(deliveries=True) == []


@contextmanager
def program(source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program on this test's database and home."""
    child = subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def ends(source: str, *arguments: str) -> int:
    """Run a program to its end; return its status, negative for the signal that killed it."""
    with program(source, *arguments) as child:
        child.communicate(timeout=PATIENCE_SECONDS)
        return child.returncode


# -- 1, 2: the inbox ------------------------------------------------------------------------------


def test_deliveries_that_nobody_rang_for_are_acted_on(inbox: str, undisturbed: Books) -> None:
    assert_the_same(inbox, undisturbed)


@pytest.mark.parametrize("when", ["before_cursor_execute", "after_cursor_execute", "commit"])
def test_a_drainer_killed_at_any_call_of_the_database_leaves_no_half_and_no_double(
    inbox: str, undisturbed: Books, when: str
) -> None:
    """Each child comes one call further than the one before; each finds what those left behind."""
    ends_of_children: list[str] = []
    committed = [the_books()]
    with program(DRAINER) as drainer:
        assert drainer.stdin is not None
        assert drainer.stdout is not None
        while not (ends_of_children and ends_of_children[-1] == "survived 0"):
            drainer.stdin.write(f"{when} {len(ends_of_children) + 1}\n")
            drainer.stdin.flush()
            ends_of_children.append(drainer.stdout.readline().strip())
            assert ends_of_children[-1] in {"killed", "survived 0"}
            until_the_server_noticed(inbox)
            if (books := the_books()) != committed[-1]:
                committed.append(books)
            seal()
            assert broken_promises(deliveries=True) == []
    # It was killed before, inside and after each transaction, or the test proves nothing.
    assert len(ends_of_children) > {"commit": 4}.get(when, 20)
    assert len(committed) == 1 + len(PROVIDERS)
    assert_the_same(inbox, undisturbed)


def until_the_server_noticed(database: str) -> None:
    """Wait until no session but ours is left in the database."""
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND state <> 'idle' AND pid <> pg_backend_pid()"
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while rows_of(database, others) != [(0,)]:
        assert time.monotonic() < deadline


# Kills itself where the product calls what it was given: the clock, the dialect, the key.
STRIKER: Final = """
import os, signal, sys
from gateway import process
from gateway.books.seals import BooksKey
from webhooks.inbox import Desk, drain

process.connect_database()
where, left = sys.argv[1], int(sys.argv[2])

def strike(what):
    global left
    if what == where:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

class Dialect:
    def __init__(self, inner):
        self.inner, self.name = inner, inner.name

    def parse(self, *arguments, **named):
        strike("parse")
        return self.inner.parse(*arguments, **named)

class Key(BooksKey):
    def sign(self, head):
        strike("sign")
        return super().sign(head)

def clock():
    strike("clock")
    return process.business_clock()()

key = process.signing_key()
providers = {name: Dialect(inner) for name, inner in process.providers().items()}
drain(Desk(providers, Key(key._private), clock), batches_max=50)
"""


@pytest.mark.parametrize(
    ("where", "nth"),
    [
        pytest.param("parse", 1, id="the batch is claimed"),
        pytest.param("parse", 9, id="half of the batch is read"),
        pytest.param("clock", 1, id="all of the batch is read"),
        pytest.param("sign", 1, id="payments and invoices are written and nothing is posted"),
        pytest.param("sign", 2, id="another provider is done and this one is not"),
        pytest.param("clock", 3, id="both are done and the variants are not"),
    ],
)
def test_a_worker_killed_inside_its_work_is_made_good(
    inbox: str, undisturbed: Books, where: str, nth: int
) -> None:
    assert ends(STRIKER, where, str(nth)) == -signal.SIGKILL
    assert_the_same(inbox, undisturbed)


def test_a_worker_and_another_that_is_killed_beside_it_do_not_book_twice(
    inbox: str, undisturbed: Books
) -> None:
    with program(STRIKER, "sign", "2") as doomed:
        act(inbox)
        doomed.wait(PATIENCE_SECONDS)
    assert_the_same(inbox, undisturbed)


# -- 3, 4, 5, 6: after the commit -----------------------------------------------------------------


def drained(database: str) -> None:
    assert drain(a_desk(*map(a_provider, PROVIDERS)), batches_max=50) > 0
    assert rows_of(database, WAITING) == [(0,)]


def test_what_was_asked_for_and_not_sent_is_sent(inbox: str, undisturbed: Books) -> None:
    drained(inbox)
    asked = rows_of(inbox, "SELECT DISTINCT task FROM outbox_message ORDER BY 1")
    assert asked == [(RECEIPTS_TASK,), (SEAL_TASK,)]
    assert_the_same(inbox, undisturbed)
    assert rows_of(inbox, "SELECT count(*) FROM outbox_message") == [(0,)]


def test_what_was_sent_and_whose_sending_was_forgotten_is_sent_again_and_does_no_harm(
    inbox: str, undisturbed: Books
) -> None:
    drained(inbox)
    killed = """
import os, signal
from gateway import outbox, process, receipts
from gateway.books import ledger
from gateway.db import transaction

def send(task, arguments):
    if task == ledger.SEAL_TASK:
        with transaction() as session:
            ledger.seal(session, process.heads_file(), process.signing_key())
    else:
        receipts.issue_all(process.receipt_keys(), process.business_clock())
    print(task, flush=True)

process.connect_database()
with transaction() as session:
    outbox.drain(session, send)
    session.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with program(killed) as child:
        sent, _ = child.communicate(timeout=PATIENCE_SECONDS)
        assert sorted(sent.split()) == [RECEIPTS_TASK, SEAL_TASK]
        assert child.returncode == -signal.SIGKILL
    sealed = settings().heads_file.read_bytes()
    until_the_server_noticed(inbox)
    assert sorted(send_what_was_asked_for()) == [RECEIPTS_TASK, SEAL_TASK]
    assert settings().heads_file.read_bytes() == sealed
    assert_the_same(inbox, undisturbed)


def test_what_was_posted_and_not_sealed_is_sealed_by_whoever_comes_next(
    inbox: str, undisturbed: Books
) -> None:
    drained(inbox)
    with transaction() as session:
        outbox.drain(session, lambda _task, _arguments: None)  # The bell rang and nobody heard.
    assert process.heads_file().last_batch() == 0
    assert_the_same(inbox, undisturbed)
    assert len(settings().heads_file.read_bytes().splitlines()) == len(PROVIDERS)


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_line_of_the_heads_file_cut_by_a_crash_is_written_again(
    inbox: str, undisturbed: Books, kept: int
) -> None:
    drained(inbox)
    assert seal() == len(PROVIDERS)
    whole = settings().heads_file.read_bytes()
    first, last = whole.splitlines(keepends=True)
    settings().heads_file.write_bytes(first + last[:kept])
    assert_the_same(inbox, undisturbed)
    assert settings().heads_file.read_bytes() == whole


# -- 7, 8: the bulk commands ----------------------------------------------------------------------


def people(path: Path, how_many: int) -> Path:
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, COLUMNS)
        out.writeheader()
        for number in range(how_many):
            out.writerow(
                {
                    "cnss_number": f"{number + 1:09d}",
                    "family_name": "Alaoui",
                    "given_name": f"Amina {number}",
                    "category": "artisan-untaxed",
                    "registered_on": "2022-01-01",
                }
            )
    return path


IMPORTER: Final = """
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from gateway import db, process
from gateway.people import imports
from gateway.dues.tariff import tariff

imports.PROGRESS_LINES = 100
process.connect_database()
when, left = sys.argv[2], int(sys.argv[3])

def strike(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

if when != "progress":
    sa.event.listen(db.engine(), when, strike)
imports.import_contributors(
    Path(sys.argv[1]), tariff(), now=process.business_clock()(),
    progress=strike if when == "progress" else lambda _: None,
)
"""


@pytest.mark.parametrize(
    ("when", "nth"),
    [
        pytest.param("progress", 1, id="while the first lines are read"),
        pytest.param("progress", 7, id="while later lines are read"),
        pytest.param("progress", 11, id="when all lines are read"),
        pytest.param("commit", 1, id="before the commit"),
    ],
)
def test_an_import_killed_in_the_middle_leaves_the_register_as_it_was(
    database: str, tmp_path: Path, when: str, nth: int
) -> None:
    file = people(tmp_path / "people.csv", 1_000)
    assert ends(IMPORTER, str(file), when, str(nth)) == -signal.SIGKILL
    until_the_server_noticed(database)
    assert rows_of(database, "SELECT count(*) FROM contributor") == [(0,)]
    again = import_contributors(file, tariff(), now=NOON)
    assert (again.read, again.loaded, again.unchanged) == (1_000, 1_000, 0)
    assert import_contributors(file, tariff(), now=NOON).unchanged == 1_000


ISSUER: Final = """
import os, signal, sys
import sqlalchemy as sa
from gateway import db, process
from gateway.billing import issuing, orders
from gateway.dues.periods import parse_period
from gateway.dues.tariff import tariff

orders.CHUNK = 30
process.connect_database()
when, left = sys.argv[1], int(sys.argv[2])

def strike(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

if when != "progress":
    sa.event.listen(db.engine(), when, strike)
issuing.issue_invoices(
    tariff(), parse_period("2026-11"), category="artisan-untaxed",
    key=process.signing_key(), clock=process.business_clock(), workers=1,
    progress=strike if when == "progress" else lambda *_: None,
)
"""


@pytest.mark.parametrize(
    ("when", "nth", "issued"),
    [
        pytest.param("commit", 2, 0, id="inside the first chunk"),
        pytest.param("progress", 1, 30, id="after the first chunk"),
        pytest.param("commit", 4, 60, id="inside the third chunk"),
        pytest.param("progress", 4, 100, id="after the last chunk"),
    ],
)
def test_an_issue_of_invoices_killed_in_the_middle_is_continued(
    database: str, tmp_path: Path, when: str, nth: int, issued: int
) -> None:
    import_contributors(people(tmp_path / "people.csv", 100), tariff(), now=NOON)
    assert ends(ISSUER, when, str(nth)) == -signal.SIGKILL
    until_the_server_noticed(database)
    assert rows_of(database, "SELECT count(*) FROM invoice") == [(issued,)]
    again = issue_all()
    assert (again.issued, again.already) == (100 - issued, issued)
    assert issue_all().issued == 0
    billed = rows_of(
        database,
        "SELECT count(*), count(DISTINCT contributor_id), count(DISTINCT reference),"
        " sum(amount_minor)::bigint, (SELECT sum(amount_minor) FROM invoice_line)::bigint"
        " FROM invoice",
    )
    assert billed == [(100, 100, 100, 100 * 16352, 100 * 16352)]
    assert broken_promises() == []


def issue_all() -> Any:
    return issue("2026-11", "artisan-untaxed")
