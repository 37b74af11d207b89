"""The sandbox's own providers file, and the programs that play the providers in it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway import supervisor
from gateway.errors import Unavailable
from gateway.providers.calls import AnsweringProvider
from gateway.providers.registry import load_providers, read_providers, unsafe_in_production
from gateway.providers.sandbox import NAMES, OTHERS, SIGNED, STAND_INS, sandbox_file, stand_ins
from gateway.settings import Settings
from gateway.supervisor import Keeper, played


def test_the_file_has_a_provider_of_each_kind_that_is_simulated() -> None:
    providers = read_providers(sandbox_file().decode(), "providers.toml")
    assert tuple(providers) == NAMES == (*SIGNED, *OTHERS)
    waiting = {n for n, p in providers.items() if isinstance(p, AnsweringProvider)}
    assert waiting == set(OTHERS) - {"chari", "youcan"}
    # What a sandbox made is refused where real money is.
    for name in NAMES:
        (said,) = unsafe_in_production({name: providers[name]})[:1]
        assert name in said
    assert sandbox_file() != sandbox_file()


def test_what_plays_the_pages_is_where_the_file_says(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    load_providers(settings)
    made = stand_ins(settings.providers_file, tmp_path / STAND_INS)
    assert list(made) == ["cmi", "wallet-query", "chari", "youcan"]
    text = settings.providers_file.read_text()
    for each in made.values():
        assert f"http://127.0.0.1:{each.port}" in text
        assert each.argv[each.argv.index("--port") + 1] == str(each.port)
        assert each.journal.parent == tmp_path / STAND_INS
    pages = ["card-page", "wallet-page", "chari-page", "youcan-page"]
    assert [child.name for child in played(settings)] == pages
    assert not any(child.needed for child in played(settings))


def test_a_page_whose_port_is_taken_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(home=tmp_path)
    load_providers(settings)
    card = stand_ins(settings.providers_file, tmp_path)["cmi"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", card.port))
        taken.listen()
        left = [child.name for child in played(settings)]
        assert left == ["wallet-page", "chari-page", "youcan-page"]
    said = capsys.readouterr().err
    assert f"Port {card.port} is taken, so card-page is left out" in said


def test_nobody_is_played_by_files_of_others_or_of_before_or_in_production(tmp_path: Path) -> None:
    own = Settings(home=tmp_path)
    assert played(own) == []
    own.providers_file.parent.mkdir(parents=True, exist_ok=True)
    before = sandbox_file().decode().partition('[[provider]]\nname = "cmi"')[0]
    own.providers_file.write_text(before)
    own.providers_file.chmod(0o600)
    assert tuple(load_providers(own)) == SIGNED
    assert played(own) == []
    own.providers_file.write_bytes(sandbox_file())
    assert len(played(own)) == 4
    file = own.providers_file
    assert played(Settings(home=tmp_path, providers=file)) == []
    assert played(Settings(home=tmp_path, mode="production")) == []
    file.write_text("[[provider]\n")
    assert played(own) == []


@dataclass
class Dying:
    """A program that ends whenever it is looked at."""

    name: str
    log: Path
    pid: int | None = None
    starts: int = 0

    def start(self) -> None:
        self.starts += 1

    def is_alive(self) -> bool:
        return False

    def ask_to_stop(self) -> None: ...

    def stop(self, seconds: float) -> None: ...

    def wait(self, seconds: float) -> bool:
        return seconds >= 0


@pytest.mark.parametrize("needed", [True, False])
def test_what_keeps_ending_stops_the_start_only_if_it_is_needed(
    *, needed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 10_000, 10))
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: next(now)))
    kept: list[Sequence[str]] = []
    keeper = Keeper(
        lambda services: kept.append([service.name for service in services]),
        lambda: () if needed else {"card-page"},
    )
    dying = Dying("card-page", tmp_path / "log")
    keeper.start([dying])
    if needed:
        with pytest.raises(Unavailable, match="card-page ended"):
            look_often(keeper)
        return
    look_often(keeper)
    assert kept[-1] == []
    assert dying.starts == supervisor.DEATHS_BEFORE_READY_MAX


def look_often(keeper: Keeper) -> None:
    for _ in range(30):
        keeper.look()
