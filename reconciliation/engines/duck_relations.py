"""How digits that do not verify stand to references of the other side: slips, parts, halves."""

from __future__ import annotations

from typing import Final

from reconciliation.engines.duck_sharing import sharing
from reconciliation.matching import RELATION_POINTS, Relation

_WEIGHTS: Final = [10**place for place in range(13)]


def _weights(first: int, last: int) -> str:
    """Return a table `place (w)` of the powers of ten from `first` down to `last`."""
    values = ", ".join(f"({_WEIGHTS[place]})" for place in range(last, first + 1))
    return f"(VALUES {values}) place (w)"


def _changes() -> str:
    """Return a table of the slips that change some of twelve digits, `change`.

    x are the digits as a number, w the weight of the leftmost digit that is changed. A slip adds
    some number from `least` to `most`, times `each`, and `besides`.
    """
    one, two, three = ([(w, w // 10**span) for w in _WEIGHTS[span:12]] for span in (0, 1, 2))
    changes = (
        *(("digit", w, w, 0, -9, 9) for w, _ in one),
        *(("swapped", w, w - last, 0, -9, 9) for w, last in two),
        *(("turned", w, w - last, 0, -9, 9) for w, last in three),
        *(("pair", w, w + last, 0, -9, 9) for w, last in two),
        *(("ends", w, w + last, 0, -9, 9) for w, last in three),
        *(("teen", w, w - last, -w, 2, 9) for w, last in two),
        *(("ty", w, last - w, w, 2, 9) for w, last in two),
    )
    return ", ".join(str(change) for change in changes)


# A reference is 1 modulo 97, so of some thousand changes of a number only a dozen can verify.
_CHANGES: Final = f"""
    SELECT kind, w, times, times * each + besides AS added,
        (98 - (times * each + besides) % 97) % 97 AS residue
    FROM (
        SELECT *, unnest(range(least, most + 1)) AS times
        FROM (VALUES {_changes()}) change (kind, w, each, besides, least, most)
    )
"""
_DIGIT: Final = "(x // w % 10)"
_NEXT: Final = "(x // (w // 10) % 10)"
_AFTER_NEXT: Final = "(x // (w // 100) % 10)"
_IS_OTHER: Final = f"times <> 0 AND {_DIGIT} + times BETWEEN 0 AND 9"
_GROUPS: Final = ("x // 100000000", "x // 10000 % 10000", "x % 10000")
_ORDERS: Final = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))

_REGROUPED: Final = ", ".join(
    f"({_GROUPS[a]}) * 100000000 + ({_GROUPS[b]}) * 10000 + ({_GROUPS[c]})" for a, b, c in _ORDERS
)
_VERIFIES: Final = (
    "y BETWEEN 100000000000 AND 999999999999 AND y % 97 = 1 AND y % 100 BETWEEN 2 AND 98"
)

_GIVEN: Final = """
    SELECT {} AS is_payment, n, length(digits) AS length, CAST(digits AS BIGINT) AS x
    FROM {} WHERE length(digits) BETWEEN 11 AND 13
"""
_OF_DIGITS: Final = f"""
    , twelve AS (SELECT is_payment, n, x, x % 97 AS residue FROM given WHERE length = 12),
    made AS (
        SELECT is_payment, n, x + added AS y
        FROM twelve JOIN ({_CHANGES}) USING (residue)
        WHERE CASE kind
            WHEN 'digit' THEN {_IS_OTHER}
            WHEN 'swapped' THEN times <> 0 AND {_NEXT} - {_DIGIT} = times
            WHEN 'turned' THEN times <> 0 AND {_AFTER_NEXT} - {_DIGIT} = times
            WHEN 'pair' THEN {_NEXT} = {_DIGIT} AND {_IS_OTHER}
            WHEN 'ends' THEN {_AFTER_NEXT} = {_DIGIT} AND {_IS_OTHER}
            WHEN 'teen' THEN {_DIGIT} = 1 AND {_NEXT} = times
            ELSE {_DIGIT} = times AND {_NEXT} = 0 END
        UNION ALL
        SELECT is_payment, n, unnest([{_REGROUPED}]) FROM twelve
        UNION ALL
        SELECT is_payment, n, x // w * 10 * w + e * w + x % w
        FROM given CROSS JOIN {_weights(11, 0)} CROSS JOIN range(10) other (e) WHERE length = 11
        UNION ALL
        SELECT is_payment, n, x // (10 * w) * w + x % w
        FROM given CROSS JOIN {_weights(12, 0)} WHERE length = 13
"""
_SLIPS: Final = f"""
    CREATE OR REPLACE TEMP TABLE slip AS
    WITH given AS ({_GIVEN.format("TRUE", "p")} UNION ALL {_GIVEN.format("FALSE", "r")})
    {_OF_DIGITS}
        UNION ALL
        SELECT is_payment, n, y FROM (
            SELECT TRUE AS is_payment, n, k, unnest([{_REGROUPED.replace("x ", "k ")}]) AS y
            FROM p WHERE k IS NOT NULL AND NOT known
        ) WHERE y <> k
    )
    SELECT DISTINCT is_payment, n, y FROM made WHERE {_VERIFIES}
"""
SLIPS_OF_RECORDS: Final = f"""
    WITH given AS ({_GIVEN.format("FALSE", "record_row")})
    {_OF_DIGITS}
    )
    SELECT DISTINCT y FROM made WHERE {_VERIFIES}
"""
"""The references that the digits of `record_row` are one slip away from."""


def _points(length: str) -> str:
    return (
        f"CASE WHEN {length} >= 10 THEN {RELATION_POINTS['part10']}"
        f" WHEN {length} >= 8 THEN {RELATION_POINTS['part8']} ELSE {RELATION_POINTS['part6']} END"
    )


def _parts(digits: str, references: str) -> tuple[str, str]:
    """Return what digits of one side and references of the other share as a part, or None of it."""
    lengths = f"SELECT DISTINCT length(digits) AS length FROM {digits}"
    return (
        f"SELECT n, digits AS shared FROM {digits} WHERE length(digits) BETWEEN 6 AND 11",
        f"""
        SELECT n, unnest(CASE WHEN k[:length] = k[-length:] THEN [k[:length]]
            ELSE [k[:length], k[-length:]] END) AS shared
        FROM (SELECT n, CAST(k AS VARCHAR) AS k FROM {references})
        CROSS JOIN ({lengths} WHERE length(digits) BETWEEN 6 AND 11)
        """,
    )


def _halves(digits: str, references: str) -> tuple[str, str]:
    ends = "['<' || {0}[:6], '>' || {0}[7:]]"
    return (
        f"SELECT n, unnest({ends.format('digits')}) AS shared"
        f" FROM {digits} WHERE length(digits) = 12",
        f"SELECT n, unnest({ends.format('k')}) AS shared"
        f" FROM (SELECT n, CAST(k AS VARCHAR) AS k FROM {references})",
    )


_REFERENCES: Final = "(SELECT n, k FROM r WHERE k IS NOT NULL)"
_UNKNOWN: Final = "(SELECT n, k FROM p WHERE k IS NOT NULL AND NOT known)"
_SLIPS_OF: Final = "SELECT n, y AS shared FROM slip WHERE is_payment = {}"
_KEYS_OF: Final = "SELECT n, k AS shared FROM {}"
# Digits that several rows of a side have in common are a filler for a field that wants a number.
_DIGITS_OF: Final = (
    "SELECT min(n) AS n, digits AS shared FROM {} WHERE digits IS NOT NULL"
    " GROUP BY digits HAVING count(*) = 1"
)
_LENGTH: Final = "(SELECT length(digits) AS length, n FROM {} WHERE digits IS NOT NULL)"


def _related(relation: Relation, points: int, payments: str, records: str) -> str:
    return (
        f"SELECT pn, rn, '{relation}' AS relation, {points} AS points"
        f" FROM ({sharing(payments, records)})"
    )


def _related_in_part(payments: str, records: str, *, short: str, n: str) -> str:
    return f"""
        SELECT pn, rn, '{Relation.PART}' AS relation, {_points("length")} AS points
        FROM ({sharing(payments, records)}) JOIN {_LENGTH.format(short)} ON n = {n}
    """


def relations(of_payments: bool, of_records: bool) -> tuple[str, ...]:
    """Return what makes `relation` (pn, rn, relation, points), of each pair the strongest.

    Args:
        of_payments: Whether a payment has digits that do not verify. To plan for what is not there
            takes longer than to look.
        of_records: Likewise.
    """
    slip, half = RELATION_POINTS["slip"], RELATION_POINTS["half"]
    related = [_related(Relation.SLIP, slip, _SLIPS_OF.format(True), _KEYS_OF.format(_REFERENCES))]
    if of_payments:
        related += [
            _related_in_part(*_parts("p", _REFERENCES), short="p", n="pn"),
            _related(Relation.HALF, half, *_halves("p", _REFERENCES)),
        ]
    if of_records:
        parts, references = _parts("r", _UNKNOWN)
        halves, of_references = _halves("r", _UNKNOWN)
        related += [
            _related(Relation.SLIP, slip, _KEYS_OF.format(_UNKNOWN), _SLIPS_OF.format(False)),
            _related_in_part(references, parts, short="r", n="rn"),
            _related(Relation.HALF, half, of_references, halves),
        ]
    if of_payments and of_records:
        points = RELATION_POINTS["same_digits"]
        same = (_DIGITS_OF.format(side) for side in ("p", "r"))
        related.append(_related(Relation.SAME_DIGITS, points, *same))
    return (
        _SLIPS,
        f"""
        CREATE OR REPLACE TEMP TABLE relation AS
        SELECT pn, rn, arg_max(relation, points) AS relation, max(points) AS points
        FROM ({" UNION ALL ".join(related)}) GROUP BY pn, rn
        """,
    )
