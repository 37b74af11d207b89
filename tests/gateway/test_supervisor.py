"""`wasl up` with real processes: the services, and small programs in place of web and worker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.embedded.processes import free_port, started_ticks
from gateway.services import running_services
from gateway.settings import Settings
from gateway.supervisor import product

PATIENCE_SECONDS = 20

# What a test supervises. "web" answers as the product's web process would; "forker" is a parent
# whose own child must not outlive it, as a worker with a pool is.
PROGRAMS = {
    "web": """
import http.server, os, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
""",
    "idle": "import time; time.sleep(600)",
    "forker": """
import os, signal, sys, time
from pathlib import Path
if os.fork() == 0:
    Path(os.environ["WASL_HOME"], "grandchild").write_text(str(os.getpid()))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
""",
    "stubborn": """
import os, signal, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path(os.environ["WASL_HOME"], "stubborn").touch()
time.sleep(600)
""",
    "telling": """
import json, os, time
from pathlib import Path
home = Path(os.environ["WASL_HOME"])
(home / "draft").write_text(json.dumps({k: v for k, v in os.environ.items() if "WASL" in k}))
(home / "draft").rename(home / "told")
time.sleep(600)
""",
    "broken": "raise SystemExit('broken by design')",
}

SUPERVISOR = """
import json, sys
import gateway.supervisor
from gateway.errors import WaslError
from gateway.settings import settings
from gateway.supervisor import Child, supervise

port, programs = int(sys.argv[1]), json.loads(sys.argv[2])
for name, limit in json.loads(sys.argv[3]).items():
    assert hasattr(gateway.supervisor, name)
    setattr(gateway.supervisor, name, limit)

def children(home, port):
    return [Child(name, [sys.executable, "-c", source, str(port)]) for name, source in programs]

def prepare(database_url):
    assert database_url.startswith("postgresql://")
    sys.stderr.write("prepared\\n")

try:
    code = supervise(settings(), port, children=children, prepare=prepare)
except WaslError as error:
    sys.stderr.write(f"{type(error).__name__}: {error}\\n")
    code = 2
sys.exit(code)
"""


class Up:
    """A supervisor in a process of its own."""

    def __init__(
        self,
        home: Path,
        *programs: str,
        port: int = 0,
        limits: dict[str, float] | None = None,
        **variables: str,
    ) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("WASL_")}
        chosen = [(name, PROGRAMS[name]) for name in programs]
        self.home = home
        home.parent.mkdir(parents=True, exist_ok=True)
        self._said = home.parent / f"said-{time.monotonic_ns()}"
        with self._said.open("w") as errors:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", SUPERVISOR),
                    *(str(port), json.dumps(chosen), json.dumps(limits or {})),
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=kept | {"WASL_HOME": str(home)} | variables,
            )

    @property
    def said(self) -> str:
        return self._said.read_text()

    @property
    def state(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.home / "run" / "up.json").read_text())
        return content

    def pids(self) -> dict[str, int]:
        return dict(self.state["pids"])

    def wait_ready(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready "), self.said
        return line.removeprefix("ready ").strip()

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def rest_of_output(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read()


@contextmanager
def going_up(home: Path, *programs: str, **options: Any) -> Iterator[Up]:
    up = Up(home, *programs, **options)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.tell(signal.SIGTERM)
            try:
                up.process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                up.process.kill()
                up.process.wait()
        assert up.process.stdout is not None
        up.process.stdout.close()


@pytest.fixture(scope="module")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a cluster in it, to copy: making one is most of a first start."""
    place = tmp_path_factory.mktemp("made") / "home"
    with running_services(in_home(place)):
        pass
    return place


@pytest.fixture
def home(tmp_path: Path, made_home: Path) -> Path:
    return Path(shutil.copytree(made_home, tmp_path / "home"))


def in_home(home: Path) -> Settings:
    return Settings(home=home, database_url=None, redis_url=None, mode="sandbox")


def what_was_told(home: Path) -> dict[str, str]:
    """Return the environment that a program was given; it writes it down after it has started."""
    assert eventually((home / "told").exists)
    told: dict[str, str] = json.loads((home / "told").read_text())
    return told


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_running(pid: int) -> bool:
    return started_ticks(pid) is not None


def kill_and_see_again(up: Up, name: str) -> None:
    before = up.pids()[name]
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: up.pids().get(name, before) != before), up.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_all_of_it_comes_up_says_so_once_and_goes_down_on_a_signal(
    home: Path, number: signal.Signals
) -> None:
    with going_up(home, "web", "idle") as up:
        url = up.wait_ready()
        state = up.state
        assert (state["pid"], state["base_url"]) == (up.process.pid, url)
        assert url == f"http://127.0.0.1:{state['port']}"
        assert set(state["pids"]) == {"postgres", "valkey", "web", "idle"}
        assert all(is_running(pid) for pid in state["pids"].values())
        assert up.said.endswith("prepared\n")
        up.tell(number)
        assert up.exit_code() == 0
        assert up.rest_of_output() == ""
        assert not any(is_running(pid) for pid in state["pids"].values())
        assert not (home / "run" / "up.json").exists()


def test_whatever_is_killed_is_started_again_and_the_rest_goes_on(home: Path) -> None:
    with going_up(home, "web", "idle", "telling") as up:
        up.wait_ready()
        before, url = up.pids(), what_was_told(home)["WASL_DATABASE_URL"]
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        for name in ("web", "postgres", "valkey"):
            kill_and_see_again(up, name)
            assert f"{name} ended; starting it again in 0.2 s" in up.said
        assert up.pids()["idle"] == before["idle"]

        def kept() -> bool:
            try:
                with psycopg.connect(url) as connection:
                    return connection.execute("SELECT n FROM kept").fetchone() == (42,)
            except psycopg.OperationalError:
                return False

        assert eventually(kept), "PostgreSQL is back on its port with its data"
        up.tell(signal.SIGTERM)
        assert up.exit_code() == 0
        assert up.rest_of_output() == "", "ready is said once"


def test_each_death_makes_the_pause_longer(home: Path) -> None:
    with going_up(home, "web") as up:
        up.wait_ready()
        for seconds in ("0.2", "0.4"):
            kill_and_see_again(up, "web")
            assert f"web ended; starting it again in {seconds} s" in up.said


def test_what_a_killed_program_forked_ends_with_it(home: Path) -> None:
    with going_up(home, "web", "forker") as up:
        up.wait_ready()
        note = home / "grandchild"
        assert eventually(lambda: note.exists() and note.read_text() != "")
        grandchild = int(note.read_text())
        kill_and_see_again(up, "forker")
        assert eventually(lambda: not is_running(grandchild))
        assert eventually(lambda: int(note.read_text() or grandchild) != grandchild)
        grandchild = int(note.read_text())
        up.tell(signal.SIGTERM)
        assert up.exit_code() == 0
        assert not is_running(grandchild)


def test_the_programs_are_told_what_is_in_force(home: Path) -> None:
    with going_up(home, "web", "telling", WASL_CLOCK="2026-11-18T11:06:40Z") as up:
        url = up.wait_ready()
        told = what_was_told(home)
        assert told["WASL_HOME"] == str(home)
        assert told["WASL_DATABASE_URL"].startswith("postgresql://wasl:")
        assert told["WASL_REDIS_URL"].startswith("redis://:")
        assert told["WASL_BASE_URL"] == url
        assert told["WASL_CLOCK_ANCHOR"], "all programs share one running test clock"


def test_a_second_up_is_refused_in_one_sentence(home: Path) -> None:
    with going_up(home, "web") as up:
        up.wait_ready()
        with going_up(home, "web") as second:
            assert second.exit_code() == 2
            assert second.said.startswith(
                f"Unusable: Wasl is already up on this home (process {up.process.pid}): "
            )
            assert second.said.count("\n") == 1
        assert up.process.poll() is None
        assert up.pids()


def test_a_program_that_never_runs_stops_the_start(home: Path) -> None:
    with going_up(home, "idle", "broken", limits={"PAUSE_SECONDS_MAX": 0.2}) as up:
        assert up.exit_code() == 2
        assert (
            f"Unavailable: broken ended 5 times before Wasl was ready: see {home}/log/broken.log."
            in up.said
        )
        assert up.rest_of_output() == ""
    assert "broken by design" in (home / "log" / "broken.log").read_text()


def test_what_ignores_the_signal_is_killed_in_the_end(home: Path) -> None:
    with going_up(home, "web", "stubborn", limits={"STOP_SECONDS_MAX": 0.5}) as up:
        up.wait_ready()
        assert eventually((home / "stubborn").exists)
        stubborn = up.pids()["stubborn"]
        up.tell(signal.SIGTERM)
        assert up.exit_code() == 0
        assert not is_running(stubborn)


def test_a_second_signal_hurries(home: Path) -> None:
    with going_up(home, "web", "stubborn") as up:
        up.wait_ready()
        assert eventually((home / "stubborn").exists)
        stubborn = up.pids()["stubborn"]
        up.tell(signal.SIGTERM)
        time.sleep(0.5)
        assert up.process.poll() is None
        began = time.monotonic()
        up.tell(signal.SIGTERM)
        assert up.exit_code() == 0
        assert time.monotonic() - began < 5
        assert not is_running(stubborn)


def test_after_it_is_killed_nothing_is_left_and_it_comes_up_again(home: Path) -> None:
    port = free_port()
    with going_up(home, "web", "idle", port=port) as up:
        up.wait_ready()
        left = up.pids()
        up.process.kill()
        up.process.wait()
        with going_up(home, "web", "idle", port=port) as again:
            again.wait_ready()
            assert not any(is_running(pid) for pid in left.values())


def test_what_ignores_its_end_is_ended_by_the_next_up(home: Path) -> None:
    with going_up(home, "web", "stubborn") as up:
        up.wait_ready()
        assert eventually((home / "stubborn").exists)
        stubborn = up.pids()["stubborn"]
        up.process.kill()
        up.process.wait()
        assert is_running(stubborn)
        with going_up(home, "web", limits={"STOP_SECONDS_MAX": 0.5}) as again:
            again.wait_ready()
            assert not is_running(stubborn)


def test_it_waits_for_a_short_command_and_then_owns_the_services(home: Path) -> None:
    settings = in_home(home)
    with running_services(settings):
        up = Up(home, "web")
        assert eventually(lambda: "waiting for it to finish" in up.said)
        assert up.process.poll() is None
    try:
        up.wait_ready()
        assert "postgres" in up.pids()
        with running_services(settings) as services, psycopg.connect(services.database_url):
            pass
        up.tell(signal.SIGTERM)
        assert up.exit_code() == 0
    finally:
        up.process.kill()
        up.process.communicate()


def test_told_to_stop_while_it_waits_it_leaves_the_services_alone(home: Path) -> None:
    settings = in_home(home)
    with running_services(settings) as services, going_up(home, "web") as up:
        assert eventually(lambda: "waiting for it to finish" in up.said)
        up.tell(signal.SIGTERM)
        assert up.exit_code() == 0
        with running_services(settings) as same:
            assert same == services


def test_a_database_that_does_not_answer_is_said_within_seconds_and_without_its_password(
    home: Path,
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with going_up(
            home,
            "web",
            WASL_DATABASE_URL=f"postgresql://wasl:hunter2@{address}/wasl",
            WASL_REDIS_URL=f"redis://:hunter2@{address}/0",
        ) as up:
            assert up.exit_code() == 2
            assert "Unavailable: The PostgreSQL of WASL_DATABASE_URL cannot be used" in up.said
            assert "no answer within" in up.said
            assert "hunter2" not in up.said
        assert time.monotonic() - began < 8


def test_a_port_that_is_taken_is_said(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with going_up(home, "web", port=port) as up:
            assert up.exit_code() == 2
            assert f"Port {port} is taken" in up.said


def test_the_product_is_three_programs() -> None:
    from gateway.embedded.home import Home

    home = Home(Path("/somewhere"))
    web, worker, beat = product(home, 8000)
    assert [web.name, worker.name, beat.name] == ["web", "worker", "beat"]
    assert web.argv[1:] == ["-m", "gateway.serve", "--port", "8000"]
    assert str(home.run / "beat") in beat.argv
