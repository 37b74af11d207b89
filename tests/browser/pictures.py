"""Pictures of every page and paper, to look at: `python -m tests.browser.pictures OUT`.

Screens of a phone of 360 px in both languages, papers as they come out of a printer. Services, rows
and browser are the tests' own; the browser is the one that TEST_CHROMIUM names, else Debian's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import psycopg
import pypdfium2
from playwright.sync_api import Browser
from psycopg import sql

from gateway import migrate
from gateway.services import running_services
from gateway.settings import Settings
from tests.browser.chromium import VARIABLE, a_page, chromium
from tests.browser.probes import probe
from tests.browser.site import Site, running_site
from tests.browser.views import LANGUAGES, fetched, views, visit
from tests.conftest import TEMPLATE, address_of

_PAPERS = ("open", "quarterly", "late", "part paid", "announced", "expired", "cancelled", "paid")
_RECEIPTS = ("paid", "paid in parts", "paid too much", "reversed")
_COLOURS = {"light": {}, "dark": {"color_scheme": "dark"}, "forced": {"forced_colors": "active"}}


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with running_services(Settings(home=scratch / "services")) as services:
            with psycopg.connect(services.database_url, autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
            migrate.upgrade(address_of(services, TEMPLATE))
            program = os.environ.get(VARIABLE, "/usr/bin/chromium")
            with running_site(services, scratch) as site, chromium(program, scratch) as browser:
                _screens(site, browser, out)
                _papers(site, out)


def _screens(site: Site, browser: Browser, out: Path) -> None:
    for language in LANGUAGES:
        for colours, options in _COLOURS.items():
            with a_page(browser, scripts=True, device_scale_factor=2, **options) as page:
                for view in views(site):
                    visit(page, site, view, language)
                    probe(page, "openAll")
                    name = f"{view.name.replace(': ', '-').replace(' ', '-')}-{language}"
                    page.screenshot(path=out / colours / f"{name}.png", full_page=True)


def _papers(site: Site, out: Path) -> None:
    papers = {f"notice-{name}": f"/{site.references[name]}.pdf" for name in _PAPERS}
    papers |= {f"receipt-{name}": f"/{site.references[name]}/receipt.pdf" for name in _RECEIPTS}
    folder = out / "papers"
    folder.mkdir(exist_ok=True)
    for name, path in papers.items():
        plain = name.replace(" ", "-")
        content = fetched(site, path).raise_for_status().content
        (folder / f"{plain}.pdf").write_bytes(content)
        for number, sheet in enumerate(pypdfium2.PdfDocument(content), 1):
            sheet.render(scale=1.5).to_pil().save(folder / f"{plain}-{number}.png")


if __name__ == "__main__":
    main()
