"""Say at the end of a run how many browser journeys it left out. A plugin of pytest.

Named in `tests/conftest.py`: where tests run in several processes, the one that writes the summary
collects nothing itself and does not read the conftest beside the journeys.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.browser.chromium import VARIABLE

_COUNT: Final = pytest.StashKey[int]()
_WIRE: Final = "browser journeys left out"


def note(config: pytest.Config, count: int) -> None:
    """Keep how many were left out, for the process that writes the summary."""
    config.stash[_COUNT] = count
    to_writer: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if to_writer is not None:
        to_writer[_WIRE] = count


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what another process noted; each of them saw all tests."""
    if count := getattr(node, "workeroutput", {}).get(_WIRE):
        node.config.stash[_COUNT] = count


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Write the one line, if there is something to say."""
    if count := config.stash.get(_COUNT, 0):
        terminalreporter.write_line(
            f"{count} browser journeys were left to .ci/run, which sets {VARIABLE}."
        )
