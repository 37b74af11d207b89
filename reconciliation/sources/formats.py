"""Tell which format a settlement file is in from its content, and read it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from gateway.errors import Unusable
from reconciliation.sources.agents_csv import read_agents_csv
from reconciliation.sources.camt import read_camt
from reconciliation.sources.dialects import Dialects
from reconciliation.sources.mt940 import read_mt940
from reconciliation.sources.statements import Statement

BYTES_MAX: Final = 64 * 1024 * 1024
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_WIDE_XML: Final = (b"\xff\xfe<\x00", b"\xfe\xff\x00<")
_SWIFT: Final = re.compile(rb"\{[1-4]:|:20:")


class Format(StrEnum):
    """What a settlement file can be, as the command names it."""

    CAMT = "camt"
    MT940 = "mt940"
    CSV = "csv"


def format_of(data: bytes) -> Format:
    """Return what a file looks like by its first bytes. Whether it is, its reader says."""
    start = data[:64].removeprefix(_BYTE_ORDER_MARK).lstrip()
    if start.startswith(b"<") or data.startswith(_WIDE_XML):
        return Format.CAMT
    return Format.MT940 if _SWIFT.match(start) else Format.CSV


def read_settlements(
    data: bytes, name: str, *, chosen: Format | None, dialects: Dialects, provider: str
) -> list[Statement]:
    """Return what a file says; every statement is whole, or the file is refused.

    Args:
        data: The file.
        name: Its name, for what is said of it.
        chosen: Its format; None: as its content has it.
        dialects: What CSV files may look like.
        provider: Whose file it is: a provider may have a dialect of its own.

    Raises:
        Unusable: It cannot be read, or cannot be trusted as a whole; the sentence has the line.
    """
    if not data.strip():
        raise Unusable(f"{name}, line 1: the file is empty.")
    readers: dict[Format, Callable[[], list[Statement]]] = {
        Format.CAMT: lambda: read_camt(data, name),
        Format.MT940: lambda: read_mt940(data, name),
        Format.CSV: lambda: [read_agents_csv(data, name, dialects.for_provider(provider))],
    }
    return readers[chosen or format_of(data)]()
