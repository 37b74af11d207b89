"""What is wrong, unsafe or unwise about the settings: all of it at once, each in a sentence."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import psycopg
import pytest
from celery.signals import celeryd_init
from click.testing import CliRunner
from psycopg import sql

from gateway.cli.running import check_settings, migrate
from gateway.cli.shared import Refused
from gateway.errors import Unusable
from gateway.institution import institution
from gateway.migrate import newest
from gateway.providers.registry import load_providers, read_providers, unsafe_in_production
from gateway.services import Services
from gateway.settings import Settings, settings
from gateway.startup import Finding, Program, findings, findings_here, require
from tests.factories import SECRET

GOOD_SECRET = (
    "whsec_" + base64.b64encode(b"\x17\xa3 forty-two quite unguessable bytes \x99\xfe").decode()
)
CELERY = ("celery", "--app", "gateway.worker:app")


def providers_file(folder: Path, *secrets: str) -> Path:
    listed = ", ".join(f'"{secret}"' for secret in secrets)
    path = folder / f"providers-{len(list(folder.iterdir()))}.toml"
    path.write_text(
        f'[[provider]]\nname = "cashplus"\nkind = "standard-webhooks"\nsecrets = [{listed}]\n'
    )
    path.chmod(0o600)
    return path


@pytest.fixture
def production(home: Path, tmp_path: Path) -> Callable[..., Settings]:
    """Return settings that nothing can be said against, save what a test changes."""
    home.mkdir()
    house = tmp_path / "institution.toml"
    shipped = Path(__file__).parents[2] / "gateway" / "institution.toml"
    house.write_text(shipped.read_text("utf-8").replace("verified = false", "verified = true"))

    def made(**changed: Any) -> Settings:
        values: dict[str, Any] = {
            "WASL_HOME": home,
            "WASL_MODE": "production",
            "WASL_BASE_URL": "https://amo.example.ma",
            "WASL_PROVIDERS": providers_file(tmp_path, GOOD_SECRET),
            "WASL_INSTITUTION": house,
            "WASL_TRUSTED_PROXIES": "none",
            "WASL_METRICS_TOKEN": "an-uncommon-word-of-ours",
            "WASL_DATABASE_URL": "postgresql://wasl:x@127.0.0.1:1/wasl",
            "WASL_REDIS_URL": "redis://127.0.0.1:1/0",
        }
        values.update({f"WASL_{name.upper()}": value for name, value in changed.items()})
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = str(value)
        settings.cache_clear()
        institution.cache_clear()
        return settings()

    return made


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the environment back: fixtures above set it by hand."""
    for name in Settings.model_fields:
        monkeypatch.setenv(f"WASL_{name.upper()}", "")


def sentences(chosen: Settings, program: Program = "web", *, stops: bool) -> list[str]:
    return [f.sentence for f in findings(chosen, program) if f.stops is stops]


def test_good_settings_are_passed_over_in_silence(
    production: Callable[..., Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    for program in get_args(Program):
        production()
        require(program)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"database_url": None}, "Production runs on no embedded services"),
        ({"redis_url": None}, "Production runs on no embedded services"),
        ({"clock": "=2026-11-18T11:06:40Z"}, "WASL_CLOCK is set in production"),
        ({"base_url": "http://amo.example.ma"}, "WASL_BASE_URL is http://amo.example.ma"),
        ({"database_url": "mysql://w:x@127.0.0.1/w"}, "WASL_DATABASE_URL is no address"),
        ({"database_url": "postgresql://w:x@127.0.0.1:xx/w"}, "WASL_DATABASE_URL is no address"),
        ({"redis_url": "127.0.0.1:6379"}, "WASL_REDIS_URL is no address"),
        ({"redis_url": "redis://:x@127.0.0.1:xx/0"}, "WASL_REDIS_URL is no address"),
        ({"base_url": None}, "WASL_BASE_URL is http://127.0.0.1:8000"),
        ({"trusted_proxies": None}, "WASL_TRUSTED_PROXIES is not set"),
        ({"providers": None}, "set WASL_PROVIDERS"),
        ({"providers": "/nowhere/at.all"}, "/nowhere/at.all cannot be read"),
        ({"institution": "/nowhere/at.all"}, "WASL_INSTITUTION: /nowhere/at.all"),
        ({"home": "/dev/null/wasl"}, "WASL_HOME: /dev/null/wasl cannot be written"),
        ({"home": "/proc/wasl"}, "WASL_HOME: /proc/wasl cannot be written"),
    ],
)
def test_what_production_refuses(
    production: Callable[..., Settings], changed: dict[str, Any], said: str
) -> None:
    chosen = production(**changed)
    (sentence,) = sentences(chosen, stops=True)
    assert said in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    with pytest.raises(Unusable) as raised:
        require("web")
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        (["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "a secret is that of a published example"),
        ([GOOD_SECRET, SECRET], "a secret is that of a published example"),
        (["whsec_" + "A" * 44], "a secret is that of a published example"),
    ],
)
def test_published_secrets_are_refused(
    production: Callable[..., Settings], tmp_path: Path, secrets: list[str], said: str
) -> None:
    chosen = production(providers=providers_file(tmp_path, *secrets))
    assert sentences(chosen, stops=True) == [f"Provider cashplus: {said}."]


def test_a_sandboxs_secrets_are_known_wherever_they_are_copied_to(
    production: Callable[..., Settings], tmp_path: Path
) -> None:
    made = load_providers(Settings(home=tmp_path / "sandbox"))
    said = " ".join(unsafe_in_production(made))
    assert "cashplus, kiosk, wallet, card, bank: a secret was made by a sandbox." in said
    for name in ("cmi", "mobile-money", "bill-hub", "wallet-query", "chari", "youcan"):
        assert re.search(rf"Provider (?:[^:]+, )?{name}[,:]", said), name
    text = (tmp_path / "sandbox" / "providers.toml").read_text()
    one = next(line for line in text.splitlines() if line.startswith("secrets"))
    copied = f'[[provider]]\nname = "mine"\nkind = "standard-webhooks"\n{one}\n'
    assert unsafe_in_production(read_providers(copied, "file")) == [
        "Provider mine: a secret was made by a sandbox."
    ]
    path = tmp_path / "copied.toml"
    path.write_text(copied)
    assert len(sentences(production(providers=path), stops=True)) == 1


def test_all_of_it_is_said_at_once(
    production: Callable[..., Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    production(base_url="http://here", trusted_proxies=None, clock="=2026-11-18T11:06:40Z")
    with pytest.raises(Unusable, match="3 settings are missing or unsafe: nothing was started"):
        require("web")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    for name in ("WASL_BASE_URL", "WASL_TRUSTED_PROXIES", "WASL_CLOCK"):
        assert sum(name in line for line in said) == 1


def test_values_that_mean_nothing_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WASL_MODE", "holiday")
    monkeypatch.setenv("WASL_BASE_URL", "ftp://there")
    settings.cache_clear()
    with pytest.raises(Unusable) as raised:
        settings()
    settings.cache_clear()
    assert "WASL_MODE is 'holiday'" in str(raised.value)
    assert "WASL_BASE_URL is 'ftp://there'" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("mode", "holiday", "WASL_MODE is 'holiday': it must be 'sandbox' or 'production'."),
        ("trusted_proxies", "0.0.0.0/0", "is everybody"),
        ("trusted_proxies", "10.0.0.1, ::/0", "is everybody"),
        ("base_url", "https://wasl:geheim@amo.example.ma", "WASL_BASE_URL is not usable: give an"),
    ],
)
def test_a_value_that_means_nothing_hides_nothing_else(
    production: Callable[..., Settings], tmp_path: Path, name: str, value: str, said: str
) -> None:
    secret = providers_file(tmp_path, SECRET)
    production(providers=secret, clock="noon")
    os.environ[f"WASL_{name.upper()}"] = value
    first, *others = [finding.sentence for finding in findings_here("web")]
    assert said in first
    assert "geheim" not in first
    assert "rror" not in first
    assert any("WASL_CLOCK" in sentence for sentence in others)
    assert not any(f"WASL_{name.upper()}" in sentence for sentence in others)


def test_who_only_rings_needs_nothing_but_redis(production: Callable[..., Settings]) -> None:
    needless = {"database_url": None, "trusted_proxies": None, "home": "/dev/null/x"}
    assert sentences(production(**needless), "beat", stops=True) == []
    (said,) = sentences(production(**needless, redis_url=None), "beat", stops=True)
    assert "WASL_REDIS_URL is not set" in said


@pytest.mark.parametrize(
    "address",
    [
        "https://127.0.0.1:8000",
        "https://localhost",
        "https://[::1]",
        "https://localhost.",
        "https://127.1",
        "https://0",
        "https://[::ffff:127.0.0.1]",
    ],
)
def test_a_public_address_that_is_this_machine_is_warned_of(
    production: Callable[..., Settings], address: str
) -> None:
    (said,) = findings(production(base_url=address), "web")
    assert (said.stops, "is this machine" in said.sentence) == (False, True)


@pytest.mark.parametrize(
    ("mode", "may", "stops"), [(0o644, "read", False), (0o622, "changed", True)]
)
def test_a_providers_file_that_others_may_read_or_change(
    production: Callable[..., Settings], tmp_path: Path, mode: int, may: str, stops: bool
) -> None:
    path = providers_file(tmp_path, GOOD_SECRET)
    path.chmod(mode)
    assert findings(production(providers=path), "web") == []
    tmp_path.chmod(0o755)
    (said,) = findings(production(providers=path), "web")
    assert said == Finding(
        f"{path} may be {may} by everybody on this machine: chmod 600 it.", stops=stops
    )


def test_a_sandbox_without_a_provider_is_told(home: Path, tmp_path: Path) -> None:
    (tmp_path / "none.toml").write_text("")
    (said,) = findings(Settings(home=home, providers=tmp_path / "none.toml"), "up")
    assert (said.stops, "names no provider" in said.sentence) == (False, True)


@pytest.mark.parametrize(
    ("file", "folder", "said", "stops"),
    [
        (0o600, 0o700, None, False),
        (0o644, 0o700, None, False),
        (0o600, 0o755, None, False),
        (0o640, 0o750, "its group", False),
        (0o644, 0o755, "everybody on this machine", True),
    ],
)
def test_keys_that_others_may_read(
    production: Callable[..., Settings],
    home: Path,
    file: int,
    folder: int,
    said: str | None,
    stops: bool,
) -> None:
    chosen = production()
    (home / "keys").mkdir(mode=0o700)
    (home / "keys" / "books.key").write_bytes(bytes(32))
    (home / "keys" / "books.key").chmod(file)
    (home / "keys").chmod(folder)
    expected = [Finding(f"{home}/keys/books.key may be read by {said}: chmod 600 it.", stops)]
    assert findings(chosen, "web") == (expected if said else [])
    if said and stops:
        sandbox = production(mode="sandbox")
        assert [f.stops for f in findings(sandbox, "web")] == [False]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"database_url": "postgresql://w:x@192.0.2.1/w?connect_timeout=2"}, "insist on TLS"),
        ({"redis_url": "redis://192.0.2.1/0"}, "no password"),
        ({"redis_url": "redis://:redis@192.0.2.1/0"}, "guessed first"),
        ({"metrics_token": "short"}, "WASL_METRICS_TOKEN is shorter"),
        ({"metrics_token": None}, "WASL_METRICS_TOKEN is not set"),
        ({"trusted_proxies": "10.0.0.0/8, 93.184.0.0/16"}, "93.184.0.0/16 is a network"),
        ({"institution": None}, "WASL_INSTITUTION is not set"),
        (
            {"institution": Path(__file__).parents[2] / "gateway/institution.toml"},
            "marked unverified",
        ),
    ],
)
def test_what_is_only_unwise_is_said_and_goes_on(
    production: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, Any],
    said: str,
) -> None:
    def away(*_: object, **__: object) -> None:
        raise psycopg.OperationalError

    monkeypatch.setattr(psycopg, "connect", away)
    production(**changed)
    require("web")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("wasl: warning: ")
    assert said in line


def test_who_insists_on_tls_is_left_in_peace(
    production: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://w:x@127.0.0.1:1/w?sslmode=verify-full"
    assert findings(production(database_url=url), "web") == []


def test_a_superuser_is_noticed(production: Callable[..., Settings], database: str) -> None:
    (said,) = sentences(production(database_url=database), stops=False)
    assert "superuser" in said
    with psycopg.connect(database, autocommit=True) as connection:
        name = sql.Identifier(f"plain_{os.getpid()}")
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'plain'").format(name))
        try:
            plain = psycopg.conninfo.make_conninfo(
                database, user=f"plain_{os.getpid()}", password="plain"
            )
            assert sentences(production(database_url=plain), stops=False) == []
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(name))


def test_a_sandbox_needs_nothing_but_a_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.cache_clear()
    assert findings(Settings(home=home), "up") == []
    assert not home.exists()
    missing = sentences(Settings(home=home), "worker", stops=True)
    assert [sentence.split(" ")[0] for sentence in missing] == [
        "WASL_DATABASE_URL",
        "WASL_REDIS_URL",
    ]


# -- the programs themselves ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        ("gateway.cli", "up", "--port", "0"),
        ("gateway.serve", "--port", "0"),
        (*CELERY, "worker", "--pool", "solo"),
        (*CELERY, "beat", "--schedule", "beat", "--pidfile", ""),
    ],
    ids=lambda program: program[-3] if program[0] == "celery" else program[0],
)
def test_a_program_that_must_not_start_says_why_and_ends(
    production: Callable[..., Settings], tmp_path: Path, program: tuple[str, ...]
) -> None:
    sandbox = tmp_path / "sandbox"
    load_providers(Settings(home=sandbox))
    production(
        base_url="http://127.0.0.1:8000",
        redis_url=None,
        clock="=2026-11-18T11:06:40Z",
        providers=sandbox / "providers.toml",
    )
    done = subprocess.run(
        [sys.executable, "-m", *program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    # The schedule is given neither keys nor secrets, so it looks at none.
    secrets = (
        []
        if "beat" in program
        else ["Provider cashplus, kiosk, wallet, card, bank: a secret was made by a sandbox"]
    )
    for said in ("WASL_BASE_URL", "WASL_CLOCK", "WASL_REDIS_URL", *secrets):
        assert sum(said in line for line in done.stderr.splitlines()) == 1


def wasl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_settings_can_be_checked_without_starting_anything(
    production: Callable[..., Settings],
) -> None:
    production()
    checked = CliRunner().invoke(check_settings, ["--json"])
    assert (checked.exception, json.loads(checked.stdout)) == (None, {"ok": True, "findings": []})
    os.environ["WASL_MODE"] = "holiday"
    checked = CliRunner().invoke(check_settings, ["--json"])
    assert isinstance(checked.exception, Refused)
    assert json.loads(checked.stdout)["findings"][0]["stops"]
    production(clock="=2026-11-18T11:06:40Z", metrics_token="short")
    done = wasl("check-settings", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["ok"]) == (1, False)
    assert [(f["stops"], f["sentence"].split(" ")[0]) for f in said["findings"]] == [
        (True, "WASL_CLOCK"),
        (False, "WASL_METRICS_TOKEN"),
    ]


def test_the_database_is_migrated_by_a_command(
    database: str, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        monkeypatch.setenv("WASL_DATABASE_URL", database)
        monkeypatch.setenv("WASL_REDIS_URL", services.redis_url)
        settings.cache_clear()
        for _ in range(2):
            done = CliRunner().invoke(migrate, ["--json"], catch_exceptions=False)
            assert json.loads(done.stdout) == {"revision": newest()}
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (
            newest(),
        )


def test_the_workers_log_begins_with_no_banner(production: Callable[..., Settings]) -> None:
    production()
    from gateway import worker

    begun = SimpleNamespace(quiet=False)
    celeryd_init.send(sender="worker", instance=begun, conf=worker.app.conf, options={})
    assert begun.quiet
