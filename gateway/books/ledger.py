"""The books: double entry, append-only, hash-chained. The only module that writes them.

A transfer is one debit and one credit in one row, so unbalanced books cannot be written. Each
posting transaction is a batch, linked to the one before by SHA-256 and signed (see `seals`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session

from gateway import outbox
from gateway.books.accounts import Posting
from gateway.books.seals import BooksKey, Head, HeadsFile, SignedHead, as_signed_head
from gateway.db import copy_blocks, execute
from gateway.errors import TransferMismatch, Unusable
from gateway.packing import NULL, bigint, blocks, columns, instant, text, texts

GENESIS: Final = bytes(32)
SEAL_TASK: Final = "gateway.seal_books"


@dataclass(frozen=True, slots=True)
class Balance:
    """An account's two growing sums, in centimes."""

    code: str
    debit_minor: int
    credit_minor: int

    @property
    def net_minor(self) -> int:
        """Debits less credits: positive for what others owe us, negative for what we owe."""
        return self.debit_minor - self.credit_minor


def post(
    session: Session,
    postings: Sequence[Posting],
    *,
    key: BooksKey,
    now: datetime,
    unheard: Collection[int] = (),
) -> int:
    """Append transfers to the books as one batch; return how many were new.

    The caller owns the transaction; from here to its end no other can post, since a chain has one
    end. Post as late in the transaction as can be.

    Args:
        session: Whose transaction it is.
        postings: What is posted.
        key: Signs the books.
        now: The business clock.
        unheard: Payments that this transaction wrote first. Their transfers' names are of their
            own, so the books cannot hold them yet and are not asked; the names' key is the judge.

    Raises:
        TransferMismatch: The books hold another transfer under one of the names: a bug.
        Unusable: The books are another home's: two keys in one chain could never be told right.
    """
    if not postings:
        return 0
    _take_the_end_of_the_chain(session)
    fresh = _not_yet_posted(session, postings, unheard)
    if not fresh:
        return 0
    accounts = _accounts(session, {code for p in fresh for code in (p.debit, p.credit)})
    previous = _last_batch(session)
    if previous is not None and not key.vouches_for(as_signed_head(previous._asdict())):
        raise Unusable(
            "These books are signed by another key than this home's: start Wasl with the WASL_HOME"
            " that has their books.key."
        )
    batch_id = (previous.id if previous else 0) + 1
    first_id = (previous.last_transfer_id if previous else 0) + 1
    ids = _ids_by_name(session, [p.reverses for p in fresh if p.reverses])
    ids.update((p.name, first_id + at) for at, p in enumerate(fresh))
    posted_at = _written(now)
    head = Head(
        batch_id=batch_id,
        total_count=first_id + len(fresh) - 1,
        total_minor=(previous.total_minor if previous else 0) + sum(p.amount_minor for p in fresh),
        hash=batch_hash(
            previous.hash if previous else GENESIS,
            [
                _line(
                    ids[p.name],
                    p.name,
                    p.debit,
                    p.credit,
                    p.amount_minor,
                    p.payment_id,
                    p.invoice_id,
                    ids[p.reverses] if p.reverses else None,
                    posted_at,
                )
                for p in fresh
            ],
        ),
    )
    _append(session, key.sign(head), previous.hash if previous else GENESIS, first_id, now)
    copy_blocks(session, _COPY, blocks(_rows(fresh, ids, accounts, batch_id, now)))
    outbox.enqueue(session, SEAL_TASK, now=now)
    return len(fresh)


def balances(session: Session) -> list[Balance]:
    """Return every account's sums, by code."""
    rows = execute(
        session,
        """
        SELECT code,
            coalesce((SELECT sum(amount_minor) FROM ledger_transfer
                WHERE debit_account_id = a.id), 0)::bigint,
            coalesce((SELECT sum(amount_minor) FROM ledger_transfer
                WHERE credit_account_id = a.id), 0)::bigint
        FROM ledger_account a ORDER BY code
        """,
    )
    return [Balance(*row) for row in rows]


def unreversed(session: Session, payment_ids: Sequence[int]) -> dict[int, list[Posting]]:
    """Return the transfers of these payments that stand, as the postings that made them."""
    found: dict[int, list[Posting]] = {}
    rows = execute(
        session,
        """
        SELECT t.payment_id, t.name, d.code, c.code, t.amount_minor, t.invoice_id
        FROM ledger_transfer t
        JOIN ledger_account d ON d.id = t.debit_account_id
        JOIN ledger_account c ON c.id = t.credit_account_id
        WHERE t.payment_id = ANY(:ids) AND t.reverses_id IS NULL
            AND NOT EXISTS (SELECT FROM ledger_transfer r WHERE r.reverses_id = t.id)
        ORDER BY t.id
        """,
        {"ids": list(payment_ids)},
    )
    for payment_id, name, debit, credit, amount_minor, invoice_id in rows:
        found.setdefault(payment_id, []).append(
            Posting(name, debit, credit, amount_minor, payment_id, invoice_id)
        )
    return found


def heads_after(session: Session, batch_id: int) -> Iterator[SignedHead]:
    """Yield the signed heads of the batches after this one, in order."""
    rows = execute(
        session,
        "SELECT id, total_count, total_minor, hash, key_id, signature FROM ledger_batch"
        " WHERE id > :after ORDER BY id",
        {"after": batch_id},
    )
    for row in rows.mappings().yield_per(1_000):
        yield as_signed_head(dict(row))


def seal(session: Session, file: HeadsFile, key: BooksKey) -> int:
    """Append to the heads file what was posted since its last line; return how many heads.

    Only heads that the key vouches for: what somebody else put into the database is not sealed,
    and the check of the books says so. Any number of times, by any number of processes.
    """
    fresh = heads_after(session, file.last_batch())
    return file.append(signed for signed in fresh if key.vouches_for(signed))


def transfer_line(row: Mapping[str, Any], *, debit: str, credit: str) -> bytes:
    """Return the bytes of one transfer that the chain hashes: all that the row says."""
    return _line(
        row["id"],
        row["name"],
        debit,
        credit,
        row["amount_minor"],
        row["payment_id"],
        row["invoice_id"],
        row["reverses_id"],
        _written(row["posted_at"]),
    )


def _line(
    at: int,
    name: str,
    debit: str,
    credit: str,
    amount_minor: int,
    payment_id: int | None,
    invoice_id: int | None,
    reverses_id: int | None,
    posted_at: str,
) -> bytes:
    """Write a list of JSON in ASCII, without spaces: the same bytes wherever it is written."""
    payment = "null" if payment_id is None else payment_id
    invoice = "null" if invoice_id is None else invoice_id
    reverses = "null" if reverses_id is None else reverses_id
    return (
        f"[{at},{quoted(name)},{quoted(debit)},{quoted(credit)},{amount_minor},"
        f'{payment},{invoice},{reverses},"{posted_at}"]'
    ).encode()


def _written(posted_at: datetime) -> str:
    return posted_at.astimezone(UTC).isoformat(timespec="microseconds")


def batch_hash(previous: bytes, lines: Iterable[bytes]) -> bytes:
    """Return the hash of a batch: of the one before, and of each of its transfers in order."""
    return hashlib.sha256(b"\n".join((previous, *lines))).digest()


def _take_the_end_of_the_chain(session: Session) -> None:
    execute(session, "SELECT pg_advisory_xact_lock(hashtext('wasl books'))")


def _not_yet_posted(
    session: Session, postings: Sequence[Posting], unheard: Collection[int]
) -> list[Posting]:
    assert len({p.name for p in postings}) == len(postings), "two postings have one name"
    names = [p.name for p in postings if p.payment_id not in unheard]
    if not names:
        return list(postings)
    rows = execute(
        session,
        "SELECT t.name, d.code, c.code, t.amount_minor, t.payment_id FROM ledger_transfer t"
        " JOIN ledger_account d ON d.id = t.debit_account_id"
        " JOIN ledger_account c ON c.id = t.credit_account_id WHERE t.name = ANY(:names)",
        {"names": texts(names)},
    )
    posted = {name: tuple(content) for name, *content in rows}
    for p in postings:
        content = (p.debit, p.credit, p.amount_minor, p.payment_id)
        if posted.get(p.name, content) != content:
            raise TransferMismatch(f"The books hold another transfer named {p.name}.")
    return [p for p in postings if p.name not in posted]


def _accounts(session: Session, codes: Iterable[str]) -> dict[str, int]:
    """Return the ids of accounts, opening those that are not in the chart yet."""
    wanted = sorted(codes)
    query = "SELECT code, id FROM ledger_account WHERE code = ANY(:codes)"
    rows = execute(session, query, {"codes": wanted})
    known = {str(code): int(at) for code, at in rows}
    missing = [code for code in wanted if code not in known]
    if missing:
        opened = execute(
            session,
            "INSERT INTO ledger_account (code, kind, owner)"
            " SELECT code, split_part(code, ':', 1), substr(code, strpos(code, ':') + 1)"
            " FROM unnest(CAST(:codes AS text[])) AS code RETURNING code, id",
            {"codes": missing},
        )
        known.update((code, at) for code, at in opened)
    return known


def _ids_by_name(session: Session, names: Sequence[str]) -> dict[str, int]:
    if not names:
        return {}
    rows = execute(
        session,
        "SELECT name, id FROM ledger_transfer WHERE name = ANY(:names)",
        {"names": list(names)},
    )
    return {str(name): int(at) for name, at in rows}


def _last_batch(session: Session) -> sa.Row[*tuple[Any, ...]] | None:
    return execute(
        session,
        "SELECT id, last_transfer_id, total_count, total_minor, hash, key_id, signature"
        " FROM ledger_batch ORDER BY id DESC LIMIT 1",
    ).one_or_none()


def _append(
    session: Session, signed: SignedHead, previous_hash: bytes, first_id: int, now: datetime
) -> None:
    head = signed.head
    execute(
        session,
        "INSERT INTO ledger_batch (id, first_transfer_id, last_transfer_id, total_count,"
        " total_minor, posted_at, previous_hash, hash, key_id, signature)"
        " VALUES (:id, :first, :last, :last, :total, :now, :previous, :hash, :key, :signature)",
        {
            "id": head.batch_id,
            "first": first_id,
            "last": head.total_count,
            "total": head.total_minor,
            "now": now,
            "previous": previous_hash,
            "hash": head.hash,
            "key": signed.key_id,
            "signature": signed.signature,
        },
    )


_COPY: Final = (
    "COPY ledger_transfer (id, batch_id, name, debit_account_id, credit_account_id, amount_minor,"
    " payment_id, invoice_id, reverses_id, posted_at) FROM STDIN (FORMAT BINARY)"
)


def _rows(
    postings: Sequence[Posting],
    ids: Mapping[str, int],
    accounts: Mapping[str, int],
    batch_id: int,
    now: datetime,
) -> Iterator[bytes]:
    start, batch, posted_at = columns(10), bigint(batch_id), instant(now)
    packed = {code: bigint(at) for code, at in accounts.items()}
    for p in postings:
        yield b"".join(
            (
                start,
                bigint(ids[p.name]),
                batch,
                text(p.name),
                packed[p.debit],
                packed[p.credit],
                bigint(p.amount_minor),
                bigint(p.payment_id),
                bigint(p.invoice_id),
                bigint(ids[p.reverses]) if p.reverses else NULL,
                posted_at,
            )
        )
