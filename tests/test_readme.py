"""The README's promises that a machine can hold it to."""

from __future__ import annotations

import re
from itertools import permutations
from pathlib import Path

import grimp
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


def test_the_picture_is_the_import_graph() -> None:
    """Every solid arrow is an import, and every import between two drawn modules is drawn."""
    picture = README[
        README.index("```mermaid") : README.index("```", README.index("```mermaid") + 3)
    ]
    drawn = set(re.findall(r"([\w.]+) --> ([\w.]+)", picture))
    modules = {module for arrow in drawn for module in arrow}
    graph = grimp.build_graph("gateway", "webhooks", "reconciliation")

    def inside(module: str) -> set[str]:
        return {module} | graph.find_descendants(module)

    imports = {
        (a, b)
        for a, b in permutations(modules, 2)
        if any(graph.find_modules_directly_imported_by(m) & inside(b) for m in inside(a))
    }
    assert drawn == imports


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)h#][^)]*)\)", README))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
