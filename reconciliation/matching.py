"""What matching says and by which figures: rules, codes, points, terms. Pure.

`docs/matching.md` says what each pass decides. The engines (`reconciliation.engines`) carry it out
on rows that were read before (`reconciliation.reading`); none of it knows a table of the product.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol


class Rule(StrEnum):
    """By which evidence a group was made."""

    EXACT = "exact"
    NORMALISED_REFERENCE = "normalised_reference"
    REFERENCE_IN_TEXT = "reference_in_text"
    WITHIN_TOLERANCE = "within_tolerance"
    INSTALMENTS = "instalments"
    SEVERAL_RECORDS = "several_records"
    PROVIDER_REFERENCE = "provider_reference"
    REFERENCES_IN_TEXT = "references_in_text"
    REPAIRED_REFERENCE = "repaired_reference"
    PART_OF_REFERENCE = "part_of_reference"
    SEVERAL_DUES = "several_dues"
    IDENTITY = "identity"
    IDENTITY_SLIP = "identity_slip"
    INSTALMENTS_BY_IDENTITY = "instalments_by_identity"


RULES_IN_WORDS: Final = {
    Rule.EXACT: "the same reference and the same amount",
    Rule.NORMALISED_REFERENCE: "the same reference, written in another way, and the same amount",
    Rule.REFERENCE_IN_TEXT: "the reference stands in the text, and the amount is the record's",
    Rule.WITHIN_TOLERANCE: "the same reference, and amounts that differ within the tolerance",
    Rule.INSTALMENTS: "several payments of one reference come to the record",
    Rule.SEVERAL_RECORDS: "several records of one reference come to the payment",
    Rule.PROVIDER_REFERENCE: "the provider's reference is the same, and nobody else's",
    Rule.REFERENCES_IN_TEXT: "the records whose references stand in the text come to the payment",
    Rule.REPAIRED_REFERENCE: "a slip away from this reference, which verifies, and amount and"
    " person agree",
    Rule.PART_OF_REFERENCE: "a part of this reference, and amount and person agree",
    Rule.SEVERAL_DUES: "these dues of one person, and no others of his, come to the payment",
    Rule.IDENTITY: "the same CNSS number or card, the amount, and a near day",
    Rule.IDENTITY_SLIP: "a slip away from the CNSS number or card; name, amount and a near day",
    Rule.INSTALMENTS_BY_IDENTITY: "payments of one person come to his one record",
    "by_hand": "a person decided it",
    "by_hand_differing": "a person decided it, and named the difference of the two sides",
}
"""For who asks why; `docs/matching.md` says it in full."""


class OpenCode(StrEnum):
    """Why a row is in no group; the words of the exceptions that are opened for it."""

    PAYMENT_WITHOUT_RECORD = "payment_without_record"
    RECORD_WITHOUT_PAYMENT = "record_without_payment"
    AMOUNT_DIFFERS = "amount_differs"
    AMBIGUOUS_MATCH = "ambiguous_match"
    PAID_TWICE = "paid_twice"
    TAKEN_BACK = "taken_back"
    """Records only, of files: one and the negative one that takes it back answer each other."""


class Relation(StrEnum):
    """How digits that do not verify stand to a reference; a greater number of points wins."""

    SAME_DIGITS = "same_digits"
    SLIP = "slip"
    PART = "part"
    HALF = "half"


SCORES: Final = {
    Rule.EXACT: 100,
    Rule.NORMALISED_REFERENCE: 99,
    Rule.REFERENCE_IN_TEXT: 98,
    Rule.WITHIN_TOLERANCE: 97,
    Rule.INSTALMENTS: 96,
    Rule.SEVERAL_RECORDS: 96,
    Rule.PROVIDER_REFERENCE: 97,
    Rule.REFERENCES_IN_TEXT: 96,
    Rule.SEVERAL_DUES: 92,
    Rule.INSTALMENTS_BY_IDENTITY: 80,
}
"""0 to 100, of rules whose score does not follow from the strength of a pair."""

SCORE_OF_ONE_AMONG_SEVERAL_REFERENCES: Final = 90
SCORE_OF_SUMS_WITH_ATTACHED: Final = 90
SCORE_OF_SUMS_WITH_A_SLIP: Final = 85
SCORE_OF_SEVERAL_DUES_BY_IDENTITY: Final = 82

STRENGTH_TO_SCORE: Final = {
    # rule: what is added to the strength, and the most that it may come to
    Rule.REPAIRED_REFERENCE: (60, 97),
    Rule.PART_OF_REFERENCE: (60, 97),
    Rule.IDENTITY: (50, 90),
    Rule.IDENTITY_SLIP: (50, 80),
}

SAME_PERSON: Final = 8
ONE_SLIP: Final = 4
OTHER_PERSON: Final = -8
NAME_AGREES: Final = 4
NAME_IN_PART: Final = 2
NAME_DIFFERS: Final = -2
AMOUNT_EQUAL: Final = 6
AMOUNT_CLOSE: Final = 5
DAYS_POINTS: Final = ((3, 3), (10, 2), (31, 1))
"""Up to so many days: so many points."""
RELATION_POINTS: Final = {
    "same_digits": 7,
    "slip": 6,
    "part10": 4,
    "part8": 3,
    "part6": 1,
    "half": 1,
}

WINDOW_DAYS: Final = 31
SUGGESTED_DAYS: Final = 10
DUES_AT_ONCE_MAX: Final = 12
ROUNDS: Final = 3
SUGGESTIONS_MAX: Final = 3
CANDIDATES_MAX: Final = 10
PAIRS_OF_ONE_MAX: Final = 1_000
"""What would offer more pairs than this tells nobody apart, and offers none."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a caller decides about a match."""

    tolerance_minor: int = 5
    """Centimes by which the two sides of a group may differ."""
    shards: int = 1
    """In how many parts the bulk pass is done, by the reference; the result is the same."""


class Engine(Protocol):
    """One way to carry out the passes. It holds its tables; nothing of it outlives the caller's
    connection.

    It finds two tables, `payment_key` and `record_key` (n, k, how, a): a whole number of the row's
    own, the reference or NULL, how it was written, centimes. Between its two steps the caller fills
    `payment_row` and `record_row` with what `free_payment` and `free_record` (n) name. It leaves:

    - `matched` (g, pn, rn, rule, score, why, a): lines of groups, g the least n of its payments by
      id, a the centimes of the line's payment;
    - `payment_open` (n, code, candidates, why), `record_open` (n, code, candidates, why):
      candidates are n of the other side in order of their ids (of a taken-back pair: of the same
      side).

    Every row is in exactly one of `matched` and the open ones.
    """

    def within_references(self) -> None:
        """Do the bulk pass, and leave `free_payment` and `free_record`."""

    def rest(self) -> None:
        """Do all other passes on the rows that are left, from `payment_row` and `record_row`.

        Their columns: n, id, k, how, ks, digits, a, d, provref, cnss, cin, tokens.
        """
