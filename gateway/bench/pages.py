"""`wasl bench pages`: notices printed as the product prints them, beside the bare typesetter.

Ours is all of `wasl notices print`: the order, the processes, reading invoices, drawing two codes
for each, typesetting in files of 200, writing. The limit is one call of typst on one file of 200
notices whose data lies ready, in a process that has compiled nothing before.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import typst
from sqlmodel import Session

from gateway import db, migrate
from gateway.bench.measure import Measured, Progress, interleaved, per_second
from gateway.billing.issuing import issue_invoices
from gateway.billing.presentment import present_ids
from gateway.books.seals import books_key
from gateway.clock import INSTITUTION_ZONE
from gateway.db import execute, snapshot, transaction
from gateway.dues.periods import parse_period
from gateway.dues.tariff import tariff
from gateway.institution import institution
from gateway.models import PrintRun
from gateway.papers.compile import FOLDER, FONTS
from gateway.papers.notice import PAGES_MAX, notice_data
from gateway.papers.printers import print_all
from gateway.papers.printing import order
from gateway.papers.writing import Occasion
from gateway.people.imports import import_contributors
from gateway.services import running_services
from gateway.settings import settings
from gateway.simulators.register import COLUMNS, register

PROCESSES: Final = 2
_PERIOD: Final = "2026-11"
_NOW: Final = datetime(2026, 11, 18, 12, tzinfo=INSTITUTION_ZONE)


def bench_pages(notices: int, *, rounds: int, progress: Progress) -> Measured:
    """Measure how many notices a second are printed, in a scratch home of its own.

    Args:
        notices: How many a round prints.
        rounds: How often both are measured, in turns.
        progress: Told after each turn.

    Raises:
        Unavailable: The services of the scratch home cannot be started.
    """
    with _invoiced(notices) as home:
        ready = _ready()

        def ours() -> int:
            folder = home / "notices"
            with transaction() as session:
                run = _order(session, folder)
            pages = print_all(run, workers=PROCESSES).pages
            shutil.rmtree(folder)
            return pages

        def limit() -> float:
            # In a process of its own: typst remembers what it has laid out before.
            with get_context("spawn").Pool(1) as alone:
                return alone.apply(_bare, (ready, min(notices, PAGES_MAX)))

        return interleaved(
            "pages",
            ours=lambda: per_second(ours),
            limit=limit,
            unit="pages/s",
            rounds=rounds,
            progress=progress,
        )


def _bare(ready: str, pages: int) -> float:
    """Typeset one file whose data is ready; return its pages a second."""
    fonts = typst.Fonts(
        include_system_fonts=False, include_embedded_fonts=False, font_paths=[FONTS]
    )
    compiler = typst.Compiler(root=FOLDER, font_paths=fonts)

    def compiled() -> int:
        inputs = {"data": ready}
        template = FOLDER / "notice.typ"
        compiler.compile(template, format="pdf", sys_inputs=inputs, pdf_standards="ua-1")
        return pages

    return per_second(compiled)


@contextmanager
def _invoiced(notices: int) -> Iterator[Path]:
    """Give a scratch home whose database has that many invoices to print."""
    with tempfile.TemporaryDirectory(prefix="wasl-bench-") as scratch:
        home = Path(scratch)
        unnamed = {"home": home, "database_url": None, "redis_url": None}
        with running_services(settings().model_copy(update=unnamed)) as services:
            migrate.upgrade(services.database_url)
            db.connect(services.database_url)
            try:
                _enrol(home / "contributors.csv", notices)
                issue_invoices(
                    tariff(),
                    parse_period(_PERIOD),
                    category=None,
                    key=books_key(home / "keys"),
                    clock=lambda: _NOW,
                )
                yield home
            finally:
                db.disconnect()


def _enrol(file: Path, people: int) -> None:
    invented = register(contributors=3 * people + 100, seed=1, on=date(2025, 12, 31))
    monthly = (one for one in invented if one["category"] == "artisan-untaxed")
    with file.open("w", encoding="utf-8", newline="") as csv_file:
        writer = csv.DictWriter(csv_file, COLUMNS)
        writer.writeheader()
        # Nobody who has left: everybody gets a notice.
        writer.writerows(islice((one for one in monthly if not one["left_on"]), people))
    import_contributors(file, tariff(), now=_NOW)


def _order(session: Session, folder: Path) -> PrintRun:
    return order(
        session,
        period=_PERIOD,
        category=None,
        region=None,
        folder=folder,
        validity_months=institution().validity.months,
        now=_NOW,
    )


def _ready() -> str:
    """Return the data of one file of notices, as typst takes it."""
    with snapshot() as session:
        ids = execute(
            session, "SELECT id FROM invoice ORDER BY id LIMIT :many", {"many": PAGES_MAX}
        )
        presented = present_ids(
            session,
            list(ids.scalars()),
            now=_NOW,
            validity_months=institution().validity.months,
        )
    occasion = Occasion(settings(), institution(), masked=False, now=_NOW)
    return json.dumps(notice_data(presented, occasion), ensure_ascii=False)
