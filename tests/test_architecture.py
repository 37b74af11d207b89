"""Rules of the house that a machine can check: style, types, directions, places."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("gateway", "webhooks", "reconciliation")
FUNCTION_LINES_MAX = 70


def sources(*packages: str) -> Iterator[Path]:
    for package in packages or PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def code_of(path: Path) -> str:
    """Return a file's code without comments and docstrings."""
    return ast.unparse(_without_docstrings(ast.parse(path.read_text("utf-8"))))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]
                child
                for child in body
                if not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant))
            ] or [ast.Pass()]
    return tree


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy"],
        ["lint-imports", "--no-cache"],
    ],
    ids=lambda command: command[0] + command[1] if len(command) > 1 else command[0],
)
def test_the_machine_finds_nothing_to_say(command: list[str]) -> None:
    tool = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [tool, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_database_module_ends_a_transaction() -> None:
    ending = re.compile(r"\.(commit|rollback)\(|sessionmaker|(?<!\w)Session\(")
    found = [p.name for p in sources() if p.name != "db.py" and ending.search(code_of(p))]
    assert found == []


def test_no_float_comes_near_money() -> None:
    rooms = ("gateway/dues", "gateway/collection", "reconciliation")
    # How long a question to a provider may take is no money.
    waits = {ROOT / "gateway/collection/attempts.py"}
    for path in [
        ROOT / "gateway/money.py",
        ROOT / "gateway/books/ledger.py",
        ROOT / "gateway/providers/standard_webhooks.py",
        *(path for path in sources(*rooms) if path not in waits),
    ]:
        tree = ast.parse(path.read_text("utf-8"))
        floats = [
            node.lineno
            for node in ast.walk(tree)
            if (isinstance(node, ast.Name) and node.id == "float")
            or (isinstance(node, ast.Constant) and isinstance(node.value, float))
            or (
                isinstance(node, ast.BinOp)
                and isinstance(node.op, ast.Div)
                and "path" not in ast.unparse(node)
            )
        ]
        assert floats == [], f"{path.name}: {floats}"


def test_decisions_read_no_clock() -> None:
    reading = re.compile(r"datetime\.(now|utcnow|today)\(|date\.today\(|(?<!\w)time\.time\(")
    allowed = {ROOT / "gateway/clock.py", ROOT / "gateway/simulators/clock.py"}
    found = [str(p) for p in sources() if p not in allowed and reading.search(code_of(p))]
    assert found == []


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in sources()
        if "migrations" not in path.parts
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path)
        for path in sources()
        if path.read_text("utf-8").strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_import_contracts_name_every_module_of_the_gateway() -> None:
    """A new module must be placed: a contract that lists modules is no use if one is missing."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    by_name = {c["name"].split(":")[0].split(",")[0]: c for c in contracts["contracts"]}
    modules = {
        f"gateway.{path.stem}"
        for path in (ROOT / "gateway").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.stem != "__init__"
    }
    roots = {
        "gateway.app",
        "gateway.bench",
        "gateway.cli",
        "gateway.demo",
        "gateway.holders",
        "gateway.migrate",
        "gateway.migrations",
        "gateway.serve",
        "gateway.simulators",
        "gateway.soak",
        "gateway.supervisor",
    }
    placed = by_name["The gateway knows neither the inbox nor reconciliation"]["source_modules"]
    assert modules - roots == set(placed)
    forbidden = by_name["Simulators import nothing of the product"]["forbidden_modules"]
    assert modules - {"gateway.simulators"} | {"webhooks", "reconciliation"} == set(forbidden)


def test_the_top_level_holds_what_it_may() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    top = {name.partition("/")[0] for name in listed}
    visible = {name for name in top if not name.startswith(".")}
    assert visible <= {
        *PACKAGES,
        "tests",
        "docs",
        "Dockerfile",
        "compose.yaml",
        "pyproject.toml",
        "uv.lock",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
    }
