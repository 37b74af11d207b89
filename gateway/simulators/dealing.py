"""Who pays what, how: each notice is dealt to one provider and one behaviour, by hash.

The hash is of (seed, CNSS number, period) and never of the reference, which another installation
draws otherwise: the same seed is the same story wherever it is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from gateway.simulators.notices import Notice

_T = TypeVar("_T")

CHANNELS: Final[Mapping[str, str]] = {
    "cashplus": "cash_agent",
    "kiosk": "kiosk",
    "wallet": "wallet",
    "card": "card",
    "bank": "transfer",
    "cmi": "card",
    "mobile-money": "wallet",
    "wallet-query": "wallet",
    "wallet-push": "wallet",
    "stripe": "card",
    "bill-hub": "kiosk",
    "chari": "card",
    "youcan": "cash_agent",
}
"""The providers that are played, and the channel of each."""

SIGNED: Final = ("cashplus", "kiosk", "wallet", "card", "bank")
"""Those that tell by webhooks signed as Standard Webhooks says (gateway.simulators.payers)."""

_PROVIDER_SHARES: Final[Mapping[str, int]] = {
    "cashplus": 40,
    "kiosk": 20,
    "wallet": 16,
    "card": 12,
    "bank": 12,
}

# What a month's plain payers use instead, in equal parts.
_INSTEAD: Final[Mapping[str, tuple[str, ...]]] = {
    "wallet": ("wallet", "mobile-money", "wallet-query"),
    "card": ("card", "cmi", "chari"),
    "kiosk": ("kiosk", "bill-hub"),
    "cashplus": ("cashplus", "cashplus", "cashplus", "youcan"),
}

_PLAIN_SHARES: Final[Mapping[str, int]] = {
    "cashplus": 16,
    "kiosk": 10,
    "wallet": 10,
    "bank": 10,
    "bill-hub": 10,
    "chari": 4,
    "youcan": 4,
    "cmi": 12,
    "mobile-money": 12,
    "wallet-query": 4,
    "wallet-push": 4,
    "stripe": 4,
}


class Behaviour(StrEnum):
    """How one notice is paid, or is not."""

    UNPAID = "unpaid"
    PLAIN = "plain"
    REPEATED = "repeated"
    """Delivered two or three times, id and body the same."""
    SECOND_ID = "second_id"
    """The same payment delivered again under another delivery id."""
    LATE = "late"
    """Delivered days after it was paid."""
    SHORT = "short"
    INSTALMENTS = "instalments"
    PENDING_FIRST = "pending_first"
    FAILED = "failed"
    REVERSED = "reversed"
    OVER = "over"
    TWICE = "twice"
    """Paid in full twice: two payments."""
    WRONG_DIGIT = "wrong_digit"
    EURO = "euro"
    BAD_AMOUNT = "bad_amount"
    CONFLICTING_DELIVERY = "conflicting_delivery"
    CONFLICTING_PAYMENT = "conflicting_payment"
    NOT_JSON = "not_json"
    NOT_UTF8 = "not_utf8"
    FUTURE = "future"
    TAMPERED = "tampered"
    OTHER_KEY = "other_key"
    STALE = "stale"
    AHEAD = "ahead"
    UNSIGNED = "unsigned"


# Of what is paid, in thousandths: 850 that nobody would remark upon, then the rest.
_SHARES: Final[Mapping[Behaviour, int]] = {
    Behaviour.PLAIN: 700,
    Behaviour.REPEATED: 30,
    Behaviour.SECOND_ID: 20,
    Behaviour.LATE: 40,
    Behaviour.SHORT: 15,
    Behaviour.INSTALMENTS: 20,
    Behaviour.PENDING_FIRST: 25,
    Behaviour.FAILED: 15,
    Behaviour.REVERSED: 15,
    Behaviour.OVER: 15,
    Behaviour.TWICE: 15,
    Behaviour.WRONG_DIGIT: 15,
    Behaviour.EURO: 10,
    Behaviour.BAD_AMOUNT: 15,
    Behaviour.CONFLICTING_DELIVERY: 10,
    Behaviour.CONFLICTING_PAYMENT: 10,
    Behaviour.NOT_JSON: 5,
    Behaviour.NOT_UTF8: 5,
    Behaviour.FUTURE: 10,
    Behaviour.TAMPERED: 2,
    Behaviour.OTHER_KEY: 2,
    Behaviour.STALE: 2,
    Behaviour.AHEAD: 2,
    Behaviour.UNSIGNED: 2,
}
assert sum(_SHARES.values()) == 1000
assert sum(_PROVIDER_SHARES.values()) == sum(_PLAIN_SHARES.values()) == 100

SHOWN_ONCE: Final[tuple[Behaviour, ...]] = tuple(_SHARES)
"""The behaviours of the first ranks: the smallest demo that has so many notices shows them all."""

_UNPAID_PERCENT: Final = 25


@dataclass(frozen=True, slots=True)
class Case:
    """One notice and its fate."""

    notice: Notice
    provider: str
    behaviour: Behaviour
    digest: bytes
    """SHA-256 of (seed, CNSS number, period): the source of every choice and id of this case."""

    @property
    def id(self) -> str:
        return self.digest.hex()[:24]

    @property
    def channel(self) -> str:
        return CHANNELS[self.provider]

    def name(self, what: str) -> str:
        """Return 24 hexadecimal digits that name something of this case, the same every time."""
        return self._hash(what).hex()[:24]

    def pick(self, what: str, count: int) -> int:
        """Return a choice among `count`, from 0, the same every time."""
        return int.from_bytes(self._hash(what)[:8], "big") % count

    def _hash(self, what: str) -> bytes:
        return hashlib.sha256(self.digest + f"|{self.provider}|{what}".encode()).digest()


def deal(notices: Iterable[Notice], *, seed: int) -> list[Case]:
    """Deal every notice, ranked by hash; the first ranks get each behaviour of SHOWN_ONCE."""
    ranked = sorted(((_digest(n, seed), n) for n in notices), key=lambda pair: pair[0])
    cases = []
    for rank, (digest, notice) in enumerate(ranked):
        behaviour = SHOWN_ONCE[rank] if rank < len(SHOWN_ONCE) else _behaviour(digest)
        provider = _share(_PROVIDER_SHARES, int.from_bytes(digest[8:12], "big") % 100)
        if behaviour is Behaviour.PLAIN and provider in _INSTEAD:
            some = _INSTEAD[provider]
            provider = some[int.from_bytes(digest[20:24], "big") % len(some)]
        cases.append(Case(notice, provider, behaviour, digest))
    return cases


def deal_plainly(notices: Iterable[Notice], *, seed: int) -> list[Case]:
    """Have every notice paid once and in full, by all providers in fixed shares, ranked by hash.

    What goes wrong is then the faults' affair alone (gateway.simulators.faults).
    """
    ranked = sorted(((_digest(n, seed), n) for n in notices), key=lambda pair: pair[0])
    return [
        Case(
            notice,
            _share(_PLAIN_SHARES, int.from_bytes(digest[8:12], "big") % 100),
            Behaviour.PLAIN,
            digest,
        )
        for digest, notice in ranked
    ]


def _digest(notice: Notice, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}|{notice.cnss_number}|{notice.period}".encode()).digest()


def _behaviour(digest: bytes) -> Behaviour:
    # Bytes beyond the first few: those order the ranks, and the low ranks are taken.
    if int.from_bytes(digest[12:16], "big") % 100 < _UNPAID_PERCENT:
        return Behaviour.UNPAID
    return _share(_SHARES, int.from_bytes(digest[16:20], "big") % 1000)


def _share(shares: Mapping[_T, int], point: int) -> _T:
    for member, share in shares.items():
        if point < share:
            return member
        point -= share
    raise AssertionError("the point lies beyond the shares")
