"""The README's promises that a machine can hold it to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click import Group

from gateway.cli import wasl

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_it_has_two_commands_and_ci_calls_the_second_from_it() -> None:
    commands = re.findall(r"```sh\n(.+?)\n```", README, re.DOTALL)
    assert len(commands) == 2
    assert commands[0].endswith("wasl demo")
    assert commands[1].endswith("pytest")
    assert "README.md" in (ROOT / ".ci/run").read_text()


def test_it_fits_two_screens() -> None:
    assert len(README.splitlines()) <= 100


def test_every_command_it_names_exists() -> None:
    for words in re.findall(r"`wasl ([a-z ]+?)[`<\[ ]*(?:[A-Z-].*?)?`", README):
        command = wasl
        for word in words.split():
            assert isinstance(command, Group), words
            found = command.commands.get(word)
            assert found is not None, f"wasl {words}"
            command = found  # type: ignore[assignment]


def test_every_module_of_the_picture_exists() -> None:
    picture = README[README.index("```text") : README.index("```", README.index("```text") + 7)]
    for package, module in re.findall(r"\b(gateway|webhooks|reconciliation)[./](\w+)", picture):
        path = ROOT / package / module
        assert path.with_suffix(".py").exists() or path.is_dir(), f"{package}.{module}"


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)h#][^)]*)\)", README))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
