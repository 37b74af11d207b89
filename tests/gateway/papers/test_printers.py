from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from gateway.errors import Unusable
from gateway.papers import printers, printing
from gateway.papers.printers import print_all
from tests.factories import some_invoices
from tests.gateway.papers.test_printing import how_far, ordered, references_in


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing, "PAGES_MAX", 2)


def test_processes_print_a_run_together(database: str, tmp_path: Path) -> None:
    references = some_invoices(5)
    run = ordered(tmp_path / "out")
    seen: list[tuple[int, int]] = []
    state = print_all(run, workers=2, progress=lambda done, of: seen.append((done, of)))
    assert (state.finished, state.files_printed, state.pages) == (True, 3, 5)
    assert sorted(references_in(tmp_path / "out")) == sorted(references)
    assert seen[-1] == (5, 5)
    assert print_all(run, workers=2) == state


def test_a_process_that_dies_is_said_and_another_goes_on(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_invoices(2)
    run = ordered(tmp_path / "out")
    start = printers._start

    def start_and_kill(run_id: int) -> printers._Printer:
        printer = start(run_id)
        assert printer.process.pid is not None
        os.kill(printer.process.pid, signal.SIGKILL)
        return printer

    with monkeypatch.context() as patched:
        patched.setattr(printers, "_start", start_and_kill)
        with pytest.raises(Unusable, match=r"was killed \(SIGKILL\)\. Give the same order again"):
            print_all(run, workers=1)
    assert not how_far(run).finished
    assert print_all(run, workers=1).finished


def test_what_stops_a_process_is_said_by_the_one_that_watches(
    database: str, tmp_path: Path
) -> None:
    some_invoices(2)
    run = ordered(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(Unusable, match="cannot be written: No such file"):
        print_all(run, workers=1)
