"""Keep the run's scratch folders in memory where there is plenty. A plugin of pytest.

A database is made and dropped for nearly every other test, and PostgreSQL waits for the disk each
time. No test pulls the plug: programs are killed, and what a killed one wrote is there all the
same. Who names a folder by `--basetemp` or PYTEST_DEBUG_TEMPROOT has it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")  # noqa: S108
BYTES_MIN: Final = 8 * 2**30
"""Free there, and free in the machine; a run takes three at most."""

_VARIABLE: Final = "PYTEST_DEBUG_TEMPROOT"


def _has_plenty() -> bool:
    try:
        there = shutil.disk_usage(MEMORY).free
        machine = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return min(there, machine) >= BYTES_MIN and os.access(MEMORY, os.W_OK | os.X_OK)
    except (OSError, ValueError):
        return False


if _VARIABLE not in os.environ and _has_plenty():
    os.environ[_VARIABLE] = str(MEMORY)
