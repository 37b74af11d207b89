"""Logs: one JSON object a line on standard error, through one filter for personal data."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

# Fields that would hold a person: their values never reach a log, whoever writes them there.
PERSONAL_FIELDS: Final = frozenset(
    {
        "name",
        "family_name",
        "given_name",
        "family_name_ar",
        "given_name_ar",
        "payer_name",
        "cin",
        "cnss_number",
        "phone",
        "payer_note",
        "body",
    }
)
# Numbers of persons inside a text, an error message of the database for one: nine digits of the
# CNSS, a CIN, a Moroccan telephone. Twelve digits are a reference and stay.
_PERSONAL: Final = re.compile(
    r"(?<![0-9A-Za-z])(?:[0-9]{9}|[A-Za-z]{1,2}[0-9]{5,6}|(?:\+212|00212|0)[5-8][0-9]{8})(?![0-9A-Za-z])"
)


def masked(text: str) -> str:
    """Return a text with what has the shape of a personal number masked."""
    return _PERSONAL.sub("[masked]", text)


def without_personal_data(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Mask personal fields by name and personal numbers by shape. A processor of structlog."""
    for field, value in event.items():
        if field in PERSONAL_FIELDS:
            event[field] = "[masked]"
        elif isinstance(value, str) and field != "timestamp":
            event[field] = masked(value)
    return event


def configure_logs(level: int = logging.INFO) -> None:
    """Send structlog's and the libraries' logs through the same chain. Once a process."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                without_personal_data,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
