"""Which negative records take back which records. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Generic, TypeVar


@dataclass(frozen=True, slots=True)
class Record:
    """What of a line of the institution's books decides this. What is not known is None."""

    record_id: str
    """Unique among the records."""
    reference: str | None
    amount_minor: int
    """Centimes; negative takes back a record with the same reference."""
    posted_on: date
    provider_reference: str | None = None


SomeRecord = TypeVar("SomeRecord", bound=Record)


@dataclass(frozen=True, slots=True)
class TakenBack(Generic[SomeRecord]):
    """A record and the negative one that takes it back: neither says that we were paid."""

    record: SomeRecord
    negative: SomeRecord


def take_back(records: Iterable[SomeRecord]) -> list[TakenBack[SomeRecord]]:
    """Pair negative records with the records that they take back.

    A negative record takes back one of the same reference and the opposite amount: first one with
    the same provider's reference; then the latest that is not taken back yet, of those posted by
    its own day and else, since an institution may post out of order, of any day. The order in
    which the records are given decides nothing.
    """
    records = list(records)
    sought = {
        (r.reference, -r.amount_minor)
        for r in records
        if r.amount_minor < 0 and r.reference is not None
    }
    if not sought:
        return []
    alike: dict[tuple[str | None, int], list[SomeRecord]] = defaultdict(list)
    for record in records:
        key = (record.reference, abs(record.amount_minor))
        if key in sought:
            alike[key].append(record)
    return [pair for rows in alike.values() for pair in _take_back_alike(rows)]


def _take_back_alike(records: list[SomeRecord]) -> list[TakenBack[SomeRecord]]:
    # A record and the negative of the same day: the one is posted before the other.
    records.sort(key=lambda r: (r.posted_on, r.amount_minor < 0, r.record_id))
    by_evidence: dict[str, list[SomeRecord]] = defaultdict(list)
    for record in records:
        if record.provider_reference is not None:
            by_evidence[record.provider_reference].append(record)
    pairs = [pair for rows in by_evidence.values() for pair in _nested(rows)]
    pairs += _nested(_without(records, pairs))
    rest = _without(records, pairs)
    negatives = [r for r in rest if r.amount_minor < 0]
    latest_first = [r for r in reversed(rest) if r.amount_minor > 0]
    pairs += map(TakenBack, latest_first, negatives)
    return pairs


def _nested(records: Iterable[SomeRecord]) -> list[TakenBack[SomeRecord]]:
    """Pair as brackets pair: a negative closes the latest record that is open before it."""
    standing: list[SomeRecord] = []
    pairs: list[TakenBack[SomeRecord]] = []
    for record in records:
        if record.amount_minor > 0:
            standing.append(record)
        elif standing:
            pairs.append(TakenBack(standing.pop(), record))
    return pairs


def _without(records: list[SomeRecord], pairs: list[TakenBack[SomeRecord]]) -> list[SomeRecord]:
    used = {r.record_id for pair in pairs for r in (pair.record, pair.negative)}
    return [r for r in records if r.record_id not in used]
