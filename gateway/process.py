"""What a process of the product needs before it works: database, keys, providers, clock."""

from __future__ import annotations

from functools import cache

from gateway import db
from gateway.books.seals import BooksKey, HeadsFile, books_key, has_books_key
from gateway.clock import Clock
from gateway.errors import Unusable
from gateway.providers.registry import Providers, load_providers
from gateway.receipt_keys import ReceiptKeys
from gateway.settings import settings


@cache
def connect_database(*, statement_seconds_max: int | None = None) -> None:
    """Bind this process to the database that the environment names (see gateway.db.connect).

    Raises:
        Unusable: It names none. `wasl up` and the commands see to that; a web process or a worker
            started by hand must.
    """
    url = settings().database_url
    if url is None:
        raise Unusable("WASL_DATABASE_URL is not set: start this through wasl up, or set it.")
    db.connect(url.get_secret_value(), statement_seconds_max=statement_seconds_max)


@cache
def signing_key() -> BooksKey:
    """Return the key that signs the books' heads; made, with its heads file, on first use.

    Raises:
        Unusable: There are signed heads and no key: it was lost, and a new one would not fit.
    """
    if not has_books_key(settings().keys_dir):
        if heads_file().last_batch():
            raise Unusable(
                f"The key of these books is missing: restore books.key in {settings().keys_dir}."
            )
        heads_file().create()
    return books_key(settings().keys_dir)


@cache
def heads_file() -> HeadsFile:
    """Return the file of signed heads."""
    return HeadsFile(settings().heads_file)


@cache
def receipt_keys() -> ReceiptKeys:
    """Return the keys that sign receipts, and those that did."""
    return ReceiptKeys(settings().keys_dir)


@cache
def providers() -> Providers:
    """Return the providers that are switched on."""
    return load_providers(settings())


@cache
def business_clock() -> Clock:
    """Return the only clock that decisions read."""
    return settings().business_clock()
