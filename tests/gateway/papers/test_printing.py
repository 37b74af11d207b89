from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from gateway.billing.invoices import cancel_invoice
from gateway.db import execute, snapshot, transaction
from gateway.errors import Unusable
from gateway.models import PrintRun
from gateway.papers import printing
from gateway.papers.notice import PAGES_MAX, notice_pdf
from gateway.papers.printing import PrintProgress, order, print_next, progress_of
from tests.factories import (
    NOON,
    PATIENCE_SECONDS,
    a_contributor,
    a_report,
    at_once,
    record,
    some_invoices,
)
from tests.gateway.papers.reading import words
from tests.gateway.papers.samples import SANDBOX, SHIPPED

WITHOUT_CHOICE: dict[str, Any] = {"period": None, "category": None, "region": None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "for" / "the shop"


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing, "PAGES_MAX", 2)


class Killed(BaseException):
    """What no handler of the product's may catch and go on."""


def ordered(folder: Path, **wanted: Any) -> PrintRun:
    with transaction() as session:
        return order(
            session,
            **{**WITHOUT_CHOICE, **wanted},
            folder=folder,
            validity_months=SHIPPED.validity.months,
            now=NOON,
        )


def printed(run_id: int | None = None) -> bool:
    with transaction() as session:
        return print_next(session, settings=SANDBOX, institution=SHIPPED, now=NOON, run_id=run_id)


def print_everything() -> int:
    files = 0
    while printed():
        files += 1
    return files


def how_far(run: PrintRun) -> PrintProgress:
    assert run.id is not None
    with snapshot() as session:
        return progress_of(session, run.id)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".order")


def references_in(folder: Path) -> list[str]:
    """Return the references on all printed pages, in the order of files and pages."""
    found = []
    for path in sorted(folder.glob("*.pdf")):
        read = words(path.read_bytes()).split(" مرجع الأداء ")[1:]
        found += ["".join(part.split()[:3]) for part in read]
    return found


# -- ordering -------------------------------------------------------------------------------------


def test_what_has_something_due_is_printed_by_region_then_number(
    database: str, folder: Path, small_files: None
) -> None:
    with transaction() as session:
        for region, number in (("Souss", "4"), ("Fès", "3"), (None, "1"), ("Fès", "2")):
            a_contributor(session, region=region, cnss_number=f"10000000{number}")
    some_invoices(0)
    run = ordered(folder)
    assert (run.pages, run.finished_at) == (4, None)
    assert print_everything() == 2
    assert names(folder) == ["notices-0001.pdf", "notices-0002.pdf"]
    with transaction() as session:
        expected = execute(
            session,
            "SELECT reference FROM invoice JOIN contributor ON contributor.id = contributor_id"
            ' ORDER BY region COLLATE "C" NULLS LAST, cnss_number',
        ).scalars()
        assert references_in(folder) == list(expected)
    assert how_far(run) == PrintProgress(
        run=run.id or 0,
        folder=str(folder),
        files=2,
        files_printed=2,
        ordered=4,
        done=4,
        pages=4,
        finished=True,
    )


def test_what_is_paid_cancelled_or_expired_is_not_ordered(database: str, folder: Path) -> None:
    due, paid, part, gone = some_invoices(4)
    some_invoices(period="2025-10")
    record(a_report(paid), a_report(part, amount_minor=100))
    with transaction() as session:
        cancel_invoice(session, gone, because="twice", now=NOON)
        a_year_ago = execute(session, "SELECT count(*) FROM invoice WHERE period < '2026'")
        assert a_year_ago.scalar_one() == 5
    ordered(folder)
    print_everything()
    assert set(references_in(folder)) == {due, part}


def test_an_order_can_be_for_a_period_a_category_or_a_region(database: str, folder: Path) -> None:
    with transaction() as session:
        a_contributor(session, region="Fès")
        a_contributor(session, category_code="cpu", category_base_minor=60_000, region="Fès")
    some_invoices()
    some_invoices(0, period="2026-Q4")
    some_invoices(0, period="2026-10")
    for n, (wanted, count) in enumerate(
        [
            ({}, 5),
            ({"period": "2026-10"}, 2),
            ({"category": "cpu"}, 1),
            ({"region": "Fès"}, 3),
            ({"region": "Fès", "period": "2026-11", "category": "artisan-untaxed"}, 1),
        ]
    ):
        assert ordered(folder / str(n), **wanted).pages == count


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"period": "november"}, "is not a period"),
        ({"category": "smith"}, "of category 'smith': there is .*'artisan-untaxed', 'artist'"),
        ({"region": "Atlantis"}, "of region 'Atlantis': there is 'Fès'"),
    ],
)
def test_a_wrong_order_gets_a_sentence(
    database: str, folder: Path, wanted: dict[str, str], said: str
) -> None:
    with transaction() as session:
        a_contributor(session, region="Fès")
        a_contributor(session, region=None)
    with pytest.raises(Unusable, match=said):
        ordered(folder, **wanted)


def test_an_order_of_nothing_is_done(database: str, folder: Path) -> None:
    run = ordered(folder)
    assert run.finished_at == NOON
    assert how_far(run).as_json() == {
        "run": run.id,
        "folder": str(folder),
        "files": 0,
        "notices": 0,
        "left_out": 0,
    }
    assert not printed()


def test_the_same_order_goes_on_and_another_needs_another_folder(
    database: str, folder: Path, small_files: None
) -> None:
    some_invoices(3)
    run = ordered(folder)
    assert printed()
    assert ordered(folder).id == run.id
    with pytest.raises(Unusable, match="another order"):
        ordered(folder, period="2026-11")
    assert print_everything() == 1
    with pytest.raises(Unusable, match="This order is finished"):
        ordered(folder)
    assert ordered(folder / "again").id != run.id


def test_two_orders_at_once_are_one(database: str, folder: Path) -> None:
    some_invoices(3)
    runs = at_once(*[lambda: ordered(folder)] * 4)
    assert len({run.id for run in runs}) == 1
    assert print_everything() == 1


# -- printing -------------------------------------------------------------------------------------


def test_names_are_whole_and_only_the_owner_reads_them(database: str, folder: Path) -> None:
    with transaction() as session:
        a_contributor(session, family_name="Bennani", given_name="Karim")
    some_invoices(0)
    ordered(folder)
    print_everything()
    made = folder / "notices-0001.pdf"
    assert "Karim Bennani" in words(made.read_bytes())
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_was_paid_meanwhile_is_left_out(
    database: str, folder: Path, small_files: None
) -> None:
    references = some_invoices(4)
    run = ordered(folder)
    record(a_report(references[0]), a_report(references[2]), a_report(references[3]))
    assert print_everything() == 2
    assert references_in(folder) == [references[1]]
    assert names(folder) == ["notices-0001.pdf"]
    state = how_far(run)
    assert (state.finished, state.pages, state.left_out) == (True, 1, 3)


def test_many_at_once_print_each_invoice_once(
    database: str, folder: Path, small_files: None
) -> None:
    references = some_invoices(11)
    run = ordered(folder)
    assert sum(at_once(*[print_everything] * 4)) == 6
    assert sorted(references_in(folder)) == sorted(references)
    assert how_far(run).finished


def test_two_that_print_the_last_two_files_at_once_finish_the_run(
    database: str, folder: Path, small_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have marked their file before either commits, so neither saw the other's mark."""
    some_invoices(4)
    run = ordered(folder)
    both_marked = Barrier(2)
    put = printing._put

    def wait_then_put(*arguments: Any) -> None:
        both_marked.wait(PATIENCE_SECONDS)
        put(*arguments)

    monkeypatch.setattr(printing, "_put", wait_then_put)
    assert at_once(printed, printed) == [True, True]
    assert how_far(run).finished


def test_one_that_is_held_is_skipped_and_printed_when_its_holder_dies(
    database: str, folder: Path, small_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_invoices(3)
    run = ordered(folder)

    def meanwhile(*_: Any, **__: Any) -> bytes:
        monkeypatch.setattr(printing, "notice_pdf", notice_pdf)
        assert printed()
        assert not printed()
        assert names(folder) == ["notices-0002.pdf"]
        raise Killed

    monkeypatch.setattr(printing, "notice_pdf", meanwhile)
    with pytest.raises(Killed):
        printed()
    assert not how_far(run).finished
    assert printed()
    assert how_far(run).finished
    assert not printed()


def _steps() -> Iterator[tuple[str, Callable[[pytest.MonkeyPatch], None]]]:
    """Yield places to be killed at, each with what makes it happen there the first time."""

    def first_call(where: Any, name: str, *, after: bool = False) -> Callable[[Any], None]:
        def arm(monkeypatch: pytest.MonkeyPatch) -> None:
            real = getattr(where, name)

            def dies(*arguments: Any, **named: Any) -> Any:
                monkeypatch.setattr(where, name, real)
                if after:
                    real(*arguments, **named)
                raise Killed

            monkeypatch.setattr(where, name, dies)

        return arm

    yield "before drawing", first_call(printing, "notice_pdf")
    yield "before the file", first_call(printing, "_put")
    yield "before it is whole", first_call(os, "fsync")
    yield "before its name", first_call(Path, "replace")
    yield "after its name", first_call(Path, "replace", after=True)
    yield "before the commit", first_call(printing, "_put", after=True)


@pytest.mark.parametrize("kill", [pytest.param(kill, id=name) for name, kill in _steps()])
def test_killed_between_any_two_steps_it_goes_on(
    database: str,
    folder: Path,
    small_files: None,
    monkeypatch: pytest.MonkeyPatch,
    kill: Callable[[pytest.MonkeyPatch], None],
) -> None:
    references = some_invoices(3)
    run = ordered(folder)
    kill(monkeypatch)
    with pytest.raises(Killed):
        printed()
    assert how_far(run).files_printed == 0
    assert ordered(folder).id == run.id
    assert print_everything() == 2
    assert sorted(references_in(folder)) == sorted(references)
    assert names(folder) == ["notices-0001.pdf", "notices-0002.pdf"]
    assert how_far(run).finished


def test_what_a_killed_process_left_goes(database: str, folder: Path) -> None:
    """The draft of one that had no time to clear up, and a file whose invoices are all paid now."""
    (reference,) = some_invoices()
    ordered(folder)
    (folder / ".notices-0001.pdf.x1").write_bytes(b"%PDF half")
    (folder / "notices-0001.pdf").write_bytes(b"%PDF")
    record(a_report(reference))
    assert print_everything() == 1
    assert names(folder) == []


def test_a_full_disk_is_said_and_nothing_is_lost(
    database: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_invoices()
    run = ordered(folder)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Unusable, match="No space left on device"):
            printed()
    assert names(folder) == []
    assert how_far(run).files_printed == 0
    assert print_everything() == 1


def test_a_folder_that_cannot_be_is_said(database: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unusable, match="cannot be written"):
        ordered(tmp_path / "file" / "below")
    with snapshot() as session:
        assert execute(session, "SELECT count(*) FROM print_run").scalar_one() == 0


def test_an_order_of_another_machine_is_left_to_it(database: str, folder: Path) -> None:
    some_invoices()
    run = ordered(folder)
    shutil.rmtree(folder)
    assert not printed()
    with pytest.raises(Unusable, match="cannot be written"):
        printed(run.id)
    assert not folder.exists()
    folder.mkdir()
    assert not printed(), "a folder of the same name is another's"


def test_a_folder_by_another_name_is_the_same_folder(database: str, folder: Path) -> None:
    some_invoices()
    ordered(folder)
    link = folder.with_name("link")
    link.symlink_to(folder)
    with pytest.raises(Unusable, match="another order"):
        ordered(link, category="artisan-untaxed")


def test_a_file_holds_no_more_than_its_pages(database: str, folder: Path) -> None:
    some_invoices(2 * PAGES_MAX + 1)
    ordered(folder)
    with transaction() as session:
        sizes = execute(
            session, "SELECT cardinality(invoice_ids) FROM print_file ORDER BY position"
        ).scalars()
        assert list(sizes) == [200, 200, 1]
