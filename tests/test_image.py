"""Dockerfile, compose.yaml and handbook, held against the code. No image is built here."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from gateway.settings import Settings

ROOT: Final = Path(__file__).parent.parent
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text()
OURS: Final = ("web", "worker", "beat", "migrate")
TOOLS: Final = Path(sys.executable).parent


@cache
def compose() -> dict[str, Any]:
    read: dict[str, Any] = YAML(typ="safe").load((ROOT / "compose.yaml").read_text())
    return read


def stages() -> list[str]:
    return re.split(r"^(?=FROM )", DOCKERFILE, flags=re.MULTILINE)[1:]


def commands() -> dict[str, list[str]]:
    """Return what each of our containers runs."""
    (by_default,) = re.findall(r"^CMD (\[.*\])$", stages()[-1], flags=re.MULTILINE)
    services = compose()["services"]
    return {name: services[name].get("command") or json.loads(by_default) for name in OURS}


def test_hadolint_finds_nothing_to_say() -> None:
    done = subprocess.run(
        [TOOLS / "hadolint", "--no-color", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_compose_is_what_its_specification_says() -> None:
    done = subprocess.run(
        [
            *(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"),
            ROOT / "compose.yaml",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_python_of_the_image_is_one_we_support_and_test() -> None:
    used = set(re.findall(r"^FROM python:(\S+)", DOCKERFILE, flags=re.MULTILINE))
    assert len(used) == 1
    (tag,) = used
    number = re.fullmatch(r"(3\.[0-9]+)\.[0-9]+-slim-bookworm", tag)
    assert number, f"{tag} is not pinned"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={number[1]}"
    assert number[1] == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_the_image_has_neither_tests_nor_embedded_services_nor_secrets() -> None:
    for line in re.findall(r"^RUN uv sync.*", DOCKERFILE, flags=re.MULTILINE):
        assert "--locked" in line
        assert "--no-default-groups" in line
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, flags=re.MULTILINE)
    sources = {name for line in copied for name in line.split()}
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert kept[1] == "*"
    assert {line[1:] for line in kept if line.startswith("!")} == sources
    assert all((ROOT / name).exists() for name in sources)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())
    built = packages["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(built) <= sources
    assert not re.search(r"PASSWORD|SECRET|TOKEN|_KEY|whsec_", DOCKERFILE)


def test_it_runs_as_nobody_in_particular() -> None:
    last = stages()[-1]
    (user,) = re.findall(r"^USER (\d+):\d+$", last, flags=re.MULTILINE)
    assert int(user) > 0
    assert f"--uid {user}" in last


@pytest.mark.parametrize("name", OURS)
def test_what_the_containers_run_is_there(name: str) -> None:
    argv = commands()[name]
    match argv:
        case ["python", "-m", module, *options]:
            assert importlib.util.find_spec(module)
            done = subprocess.run(
                [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
            )
            assert all(o in done.stdout for o in options if o.startswith("--"))
        case ["celery", "--app", app, program, *options]:
            assert app == "gateway.worker:app"
            done = subprocess.run(
                [TOOLS / "celery", program, "--help"], capture_output=True, text=True, check=True
            )
            assert all(o in done.stdout for o in options if o.startswith("--"))
        case ["wasl", *words]:
            from gateway.cli import wasl

            assert CliRunner().invoke(wasl, [*words, "--help"]).exit_code == 0
        case _:
            raise AssertionError(f"{name} runs {shlex.join(argv)}")


def test_the_programs_run_as_wasl_up_runs_them() -> None:
    """The same flags, save what is about the place: ports, folders, how much at once."""
    from gateway.embedded.home import Home
    from gateway.supervisor import product

    place = {"--port", "--host", "--schedule", "--concurrency", "--pidfile"}
    ours = commands()
    for child in product(Home(Path("/somewhere")), 8000):
        theirs = {word for word in child.argv if word.startswith("--")}
        assert {w for w in ours[child.name] if w.startswith("--")} - place == theirs - place


def test_every_variable_of_ours_is_a_setting() -> None:
    settings = {f"WASL_{name.upper()}" for name in Settings.model_fields}
    for path in ("Dockerfile", "compose.yaml", "docs/operations.md"):
        named = set(re.findall(r"\bWASL_[A-Z_]*[A-Z]\b", (ROOT / path).read_text()))
        assert named <= settings, path
    table = re.findall(r"`(WASL_[A-Z_]+)`", (ROOT / "docs/formats.md").read_text())
    assert settings <= set(table)


def test_containers_may_do_no_more_than_they_must() -> None:
    for name, service in compose()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["mem_limit"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "healthcheck" in service or name == "web", name
        assert "privileged" not in service, name
    assert "cap_add" not in {key for name in OURS for key in compose()["services"][name]}
    ports = {name: service.get("ports") for name, service in compose()["services"].items()}
    assert ports == {**dict.fromkeys(ports), "web": ["127.0.0.1:8000:8000"]}


def test_who_is_given_secrets() -> None:
    given = {name: s.get("secrets", []) for name, s in compose()["services"].items()}
    assert given["beat"] == given["migrate"] == []
    assert given["web"] == given["worker"] == ["providers"]
    assert {secret for listed in given.values() for secret in listed} == set(compose()["secrets"])
    homes = {
        n for n, s in compose()["services"].items() if "home:/var/lib/wasl" in s.get("volumes", [])
    }
    assert homes == {"web", "worker"}
    text = (ROOT / "compose.yaml").read_text()
    assert not re.search(r"(?i)password['\"]?\s*[:=]\s*['\"]?[a-z0-9]{6,}\s*$", text, re.MULTILINE)


def test_the_metrics_that_operators_are_told_of_exist() -> None:
    """Every metric in the handbook is one that the code names, and the other way round."""
    code = "".join(path.read_text() for path in (ROOT / "gateway/http").glob("*.py"))
    named = {name.removesuffix("_total") for name in re.findall(r'"(wasl_[a-z_]+)"', code)}
    handbook = (ROOT / "docs/operations.md").read_text()
    told = {
        re.sub(r"_(total|bucket)$", "", name) for name in re.findall(r"\b(wasl_[a-z_]+)", handbook)
    }
    assert told == named
