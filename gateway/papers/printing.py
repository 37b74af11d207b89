"""Bulk printing: an order is cut into files, and each file is claimed, drawn and marked in one go.

Files lie in the folder of the order, names in full in them: they are for the print shop and for
nobody else. Whatever is killed, wherever, a file that is not marked is printed again, and one that
is marked lies whole on the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select
from sqlmodel import Session, col

from gateway.billing.presentment import present_ids
from gateway.clock import day_of
from gateway.db import execute, snapshot
from gateway.dues.periods import parse_period
from gateway.errors import Unusable
from gateway.institution import Institution
from gateway.models import PrintRun
from gateway.papers.notice import PAGES_MAX, PAYABLE, notice_pdf
from gateway.registers.places import as_region
from gateway.secretfiles import sync_folder, write_privately
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class PrintProgress:
    """How far a run is."""

    run: int
    folder: str
    files: int
    files_printed: int
    ordered: int
    """Invoices that had something due when it was ordered."""
    done: int
    """How many of them are printed or left out."""
    pages: int
    """How many notices came out."""
    finished: bool

    @property
    def left_out(self) -> int:
        """Invoices of the printed files that had nothing due any more."""
        return self.done - self.pages

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "folder": self.folder,
            "files": self.files_printed,
            "notices": self.pages,
            "left_out": self.left_out,
        }


# -- ordering -------------------------------------------------------------------------------------


def order(
    session: Session,
    *,
    period: str | None,
    category: str | None,
    region: str | None,
    folder: Path,
    validity_months: int,
    now: datetime,
) -> PrintRun:
    """Order the notices of all that can be paid now, or find the same order if it is not finished.

    They are put by region and CNSS number, and cut into files of PAGES_MAX. The caller owns the
    transaction; its commit is the order.

    Args:
        session: Whose transaction it is.
        period: Only this one.
        category: Only this one.
        region: Only this one, as the contributors have it.
        folder: Where the files go; made if it is missing.
        validity_months: Until when references can be paid (Institution.validity).
        now: Decides what has expired.

    Raises:
        Unusable: The period, category or region is none, or the folder cannot be written or holds
            notices of another order: a print shop would post both.
    """
    region = region and as_region(region)
    wanted = {"period": period, "category": category, "region": region}
    _check(session, wanted)
    # Whatever it is called, by way of links too: two orders in one folder would overwrite another.
    folder = folder.expanduser().resolve()
    selection = json.dumps({**wanted, "folder": str(folder)}, ensure_ascii=False)
    # Orders wait for each other, so that two at once see one another. Printing goes on meanwhile.
    execute(session, "SELECT pg_advisory_xact_lock(hashtext('gateway.papers.printing.order'))")
    still_open = select(PrintRun).where(col(PrintRun.finished_at).is_(None))
    run = session.scalar(still_open.where(col(PrintRun.selection) == selection))
    _make(folder)
    if run is not None:
        assert run.id is not None
        _claim_folder(folder, run.id)
        return run
    if session.scalar(still_open.where(col(PrintRun.folder) == str(folder))) or any(
        folder.glob("notices-*.pdf")
    ):
        raise Unusable(_taken(session, folder, selection))
    run = PrintRun(selection=selection, folder=str(folder), pages=0, ordered_at=now)
    session.add(run)
    session.flush()
    parameters = {
        **wanted,
        "run": run.id,
        "size": PAGES_MAX,
        "months": validity_months,
        "today": day_of(now),
    }
    assert run.id is not None
    _claim_folder(folder, run.id)
    run.pages = execute(session, _CUT, parameters).scalar_one()
    if not run.pages:
        run.finished_at = now
    session.flush()
    return run


def _taken(session: Session, folder: Path, selection: str) -> str:
    """Return why nothing is ordered into a folder that holds notices."""
    same = select(PrintRun).where(col(PrintRun.selection) == selection)
    if session.scalar(same.where(col(PrintRun.finished_at).is_not(None)).limit(1)) is not None:
        return f"This order is finished: its notices lie in {folder}. For more name an empty one."
    return f"{folder} holds notices of another order: name an empty folder."


def expired(
    session: Session,
    *,
    period: str | None,
    category: str | None,
    region: str | None,
    validity_months: int,
    now: datetime,
) -> int:
    """Return how many unpaid invoices an order leaves out, as their references have expired.

    A bundle or a plan gives such a debt a new reference.
    """
    parameters = {
        "period": period,
        "category": category,
        "region": region and as_region(region),
        "months": validity_months,
        "today": day_of(now),
    }
    query = f"SELECT count(*) {_UNPAID} AND {_EXPIRES_ON} < :today"
    return int(execute(session, query, parameters).scalar_one())


_EXPIRES_ON: Final = (
    "(greatest(due_on, (SELECT max(due_on) FROM invoice_note WHERE invoice_id = invoice.id))"
    " + make_interval(months => :months))::date"
)
_UNPAID: Final = """
    FROM invoice JOIN contributor ON contributor.id = contributor_id
    WHERE status IN ('open', 'part_paid') AND cancelled_at IS NULL AND erased_at IS NULL
        AND (CAST(:period AS text) IS NULL OR period = :period)
        AND (CAST(:category AS text) IS NULL OR invoice.category_code = :category)
        AND (CAST(:region AS text) IS NULL OR region = :region)
"""
_CUT: Final = f"""
    WITH chosen AS (
        SELECT invoice.id, row_number() OVER (ORDER BY region COLLATE "C" NULLS LAST,
            province COLLATE "C" NULLS LAST, cnss_number, period, invoice.id) - 1 AS place
        {_UNPAID} AND {_EXPIRES_ON} >= :today
    ), cut AS (
        INSERT INTO print_file (run_id, position, invoice_ids)
        SELECT :run, place / :size + 1, array_agg(id ORDER BY place) FROM chosen
        GROUP BY place / :size
    )
    SELECT count(*) FROM chosen
"""


def _check(session: Session, wanted: Mapping[str, str | None]) -> None:
    if wanted["period"] is not None:
        parse_period(wanted["period"])
    for what, table, column in (
        ("category", "category", "code"),
        ("region", "contributor", "region"),
    ):
        name = wanted[what]
        query = f"SELECT EXISTS (SELECT FROM {table} WHERE {column} = :name)"
        if name is None or execute(session, query, {"name": name}).scalar_one():
            continue
        known = execute(session, f"SELECT DISTINCT {column} FROM {table} ORDER BY 1").scalars()
        listed = ", ".join(repr(each) for each in known if each is not None)
        raise Unusable(f"There is nobody of {what} {name!r}: there is {listed or 'nobody yet'}.")


# -- printing -------------------------------------------------------------------------------------


def print_next(
    session: Session,
    *,
    settings: Settings,
    institution: Institution,
    now: datetime,
    run_id: int | None = None,
) -> bool:
    """Print one file that nobody prints yet, and say whether there was one.

    The caller owns the transaction and commits at once. What was paid or cancelled since the order
    is left out. Without `run_id` it is any open run whose folder is on this machine.

    Raises:
        Unusable: The folder cannot be written; the sentence says why.
    """
    # The claim is the row's lock, held while the file is drawn, some seconds: if this process dies,
    # the server lets go of it, and the next one prints the file. A mark made in a transaction of
    # its own would need a clock to tell a slow worker from a dead one. The lock costs a connection
    # and holds up nobody: others skip it, and no reader looks at it. What is printed is read in a
    # snapshot of its own, which is over before drawing begins.
    claimed = execute(session, _CLAIM, {"runs": _reachable(session, run_id)}).mappings().first()
    if claimed is None:
        return False
    with snapshot() as reading:
        found = present_ids(
            reading,
            claimed["invoice_ids"],
            now=now,
            validity_months=institution.validity.months,
        )
    due = [presented for presented in found if presented.standing in PAYABLE]
    made = None
    if due:
        made = notice_pdf(due, settings=settings, institution=institution, masked=False, now=now)
    file = {"run": claimed["run_id"], "position": claimed["position"], "now": now}
    # Before the file gets its name: a claim that was lost with the connection shows here.
    execute(session, _MARK, {**file, "pages": len(due)})
    _put(Path(claimed["folder"]), claimed["position"], made)
    # Of two that finish the last two files at once, the second waits here for the first's commit,
    # and sees in the next statement that all are printed.
    execute(session, "SELECT FROM print_run WHERE id = :run FOR UPDATE", file)
    execute(session, _FINISH, file)
    return True


_CLAIM: Final = """
    SELECT run_id, position, invoice_ids, folder
    FROM print_file JOIN print_run ON print_run.id = run_id
    WHERE run_id = ANY(:runs) AND printed_at IS NULL
    ORDER BY run_id, position LIMIT 1 FOR UPDATE OF print_file SKIP LOCKED
"""

_MARK: Final = """
    UPDATE print_file SET printed_at = :now, pages = :pages
    WHERE run_id = :run AND position = :position
"""

_FINISH: Final = """
    UPDATE print_run SET finished_at = :now WHERE id = :run
        AND NOT EXISTS (SELECT FROM print_file WHERE run_id = :run AND printed_at IS NULL)
"""


def _reachable(session: Session, run_id: int | None) -> list[int]:
    """Return the open runs that can be printed here: an order's folder is where it was given.

    Another machine may have a folder of the same name; names in full must not lie there.
    """
    if run_id is not None:
        return [run_id]
    runs = execute(session, "SELECT id, folder FROM print_run WHERE finished_at IS NULL")
    return [run.id for run in runs if _is_of(Path(run.folder), run.id)]


def progress_of(session: Session, run_id: int) -> PrintProgress:
    """Return how far a run is."""
    row = execute(session, _PROGRESS, {"run": run_id}).mappings().one()
    return PrintProgress(run=run_id, **row)


_PROGRESS: Final = """
    SELECT folder, print_run.pages AS ordered, finished_at IS NOT NULL AS finished,
        count(position) AS files, count(printed_at) AS files_printed,
        coalesce(sum(cardinality(invoice_ids)) FILTER (WHERE printed_at IS NOT NULL), 0) AS done,
        coalesce(sum(print_file.pages), 0) AS pages
    FROM print_run LEFT JOIN print_file ON run_id = print_run.id
    WHERE print_run.id = :run GROUP BY print_run.id
"""


# -- the folder -----------------------------------------------------------------------------------


_ORDER: Final = ".order"
"""In an order's folder: the number of its run."""


def _claim_folder(folder: Path, run_id: int) -> None:
    try:
        (folder / _ORDER).write_text(f"{run_id}\n")
    except OSError as error:
        raise _unwritable(folder, error) from None


def _is_of(folder: Path, run_id: int) -> bool:
    try:
        return (folder / _ORDER).read_text() == f"{run_id}\n"
    except (OSError, UnicodeDecodeError):
        return False


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _unwritable(folder, error) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Unusable(f"{folder} cannot be written: choose a folder of your own.")


def _put(folder: Path, position: int, content: bytes | None) -> None:
    """Make a file of the folder be this, whole and on the disk; None: make it be gone."""
    path = folder / f"notices-{position:04d}.pdf"
    try:
        # Of one that was killed while it wrote; nobody else writes under this name.
        for draft in folder.glob(f".{path.name}.*"):
            draft.unlink()
        if content is None:
            path.unlink(missing_ok=True)
            sync_folder(folder)
        else:
            write_privately(path, content)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> Unusable:
    why = error.strerror or type(error).__name__
    return Unusable(
        f"{folder} cannot be written: {why}. Give the same order again to go on where it stopped."
    )
