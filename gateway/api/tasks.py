"""Celery's entry point of the API."""

from __future__ import annotations

from gateway import process
from gateway.api.kept_answers import forget_old_answers
from gateway.db import transaction
from gateway.worker import FORGET_ANSWERS, app


@app.task(name=FORGET_ANSWERS)
def forget_answers() -> None:
    """Delete answers that nobody will ask for again. Any number of times."""
    process.connect_database()
    with transaction() as session:
        forget_old_answers(session, now=process.business_clock()())
