"""Who holds data of people, put together for the processes that hand out or erase them.

Here, since the gateway knows neither the inbox nor reconciliation.
"""

from __future__ import annotations

import time
from typing import Final

import structlog

from gateway import process
from gateway.privacy import Holder
from gateway.privacy.erasure import BY_SCHEDULE, erase_due
from gateway.worker import ERASE_DUE, app
from reconciliation.personal import HOLDER as RECORDS
from reconciliation.sources.personal import HOLDER as SETTLEMENTS
from webhooks.personal import HOLDER as INBOX

HOLDERS: Final[tuple[Holder, ...]] = (INBOX, RECORDS, SETTLEMENTS)
PEOPLE_AT_ONCE: Final = 50
SECONDS_MAX: Final = 20
"""After which a walk goes on in another run."""

NAMED_MAX: Final = 20

log = structlog.get_logger(__name__)


@app.task(name=ERASE_DUE)
def erase_those_due(after: int = 0) -> None:
    """Erase of whom the set time has passed, a transaction to each. Any number of times."""
    process.connect_database()
    until = time.monotonic() + SECONDS_MAX
    following: int | None = after
    while following is not None:
        if time.monotonic() > until:
            app.send_task(ERASE_DUE, kwargs={"after": following}, retry=False)
            return
        now = process.business_clock()()
        done = erase_due(
            HOLDERS, now=now, asked_by=BY_SCHEDULE, after=following, people_max=PEOPLE_AT_ONCE
        )
        following = done.next_after
        if done.hindered:
            first = [at for at, _ in done.hindered[:NAMED_MAX]]
            log.warning("not_erased", people=len(done.hindered), first=first)
