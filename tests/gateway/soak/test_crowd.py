"""Payers who try and try, and get no answer, do not hold a soak for ever."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gateway.demo import crowd
from gateway.errors import Unavailable

IN_VAIN = """
import sys, time
for number in range(3000):
    with open(sys.argv[1], "a") as journal:
        print('{"line":"send","step":"%d.0"}' % number, file=journal)
        print('{"line":"answer","as_expected":false,"last":false}', file=journal)
    time.sleep(0.01)
"""


def test_lines_of_those_who_gave_up_are_no_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "STANDSTILL_SECONDS_MAX", 0.5)
    journal = tmp_path / "bank.jsonl"
    argv = [sys.executable, "-c", IN_VAIN, str(journal)]
    part = crowd.Part("bank", argv, os.environ, journal, tmp_path / "bank.log")
    with pytest.raises(Unavailable, match="payers of bank have got no answer"):
        crowd.play([part], lambda _done, _of: None)
    assert journal.exists()
