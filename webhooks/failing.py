"""What an error says of a delivery: whether it may be the delivery's own, and in which words."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from gateway.errors import Unusable
from gateway.logs import masked

ERROR_TEXT_MAX: Final = 300


def may_be_the_deliverys(error: Exception) -> bool:
    """Say whether what a delivery holds may have caused an error: then it is tried by itself."""
    if isinstance(error, DBAPIError):
        return isinstance(error, DataError | IntegrityError)
    return not isinstance(error, Unusable)


def said(error: Exception) -> str:
    """Return the kind of an error and its first line, as a text that the database can hold.

    What a database says further down may quote values; what it quotes may be no text at all, or a
    person's number.
    """
    first = str(error).partition("\n")[0].encode("ascii", "backslashreplace").decode()
    printable = first.replace("\x00", "\\x00")
    return masked(f"{type(error).__name__}: {printable}")[:ERROR_TEXT_MAX]
