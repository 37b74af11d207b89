from __future__ import annotations

import os
import shutil
import signal
from multiprocessing.process import BaseProcess
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


def test_what_a_process_that_dies_leaves_behind_is_printed_by_the_one_that_started_it(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = some_invoices(6)
    run = ordered(tmp_path / "out")
    start = printers._start
    killed = []

    def start_and_kill(run_id: int) -> BaseProcess:
        process = start(run_id)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        killed.append(process)
        return process

    monkeypatch.setattr(printers, "_start", start_and_kill)
    assert print_all(run, workers=3).finished
    assert [process.exitcode for process in killed] == [-signal.SIGKILL] * 2
    assert sorted(references_in(tmp_path / "out")) == sorted(references)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_stops_printing_is_said(database: str, tmp_path: Path, workers: int) -> None:
    some_invoices(4)
    run = ordered(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(Unusable, match="cannot be written: No such file"):
        print_all(run, workers=workers)
    assert not how_far(run).finished
