"""Fixtures of the browser journeys: one product, one Chromium, for all of them.

The journeys need a browser that the project's Python packages do not bring. `.ci/run` installs it
and says so in a variable; a run without the variable leaves them out and ends by saying how many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from gateway.services import Services
from tests.browser.chromium import VARIABLE, chromium
from tests.browser.leftout import note
from tests.browser.site import Site, running_site

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the journeys out where no browser was named."""
    if os.environ.get(VARIABLE):
        return
    ours = {item for item in items if item.path.is_relative_to(_HERE)}
    if ours:
        note(config, len(ours))
        config.hook.pytest_deselected(items=list(ours))
        items[:] = [item for item in items if item not in ours]


# Of the package, not of the session: the browser's driver keeps an event loop in this thread, and
# tests elsewhere start one of their own.
@pytest.fixture(scope="package")
def site(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The product with rows of every kind, as its own process answers for it."""
    with running_site(services, tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The one Chromium of the run."""
    with chromium(os.environ[VARIABLE], tmp_path_factory.mktemp("chromium")) as running:
        yield running
