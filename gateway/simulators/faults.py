"""Faults on demand: what goes wrong with each thing that is sent, drawn so that a seed replays.

Every fate is drawn from SHA-256 of (seed, key), never from a generator's state: the order in which
threads ask changes nothing, a program that was killed draws the same again, and a judge that knows
the seed knows what was done to whom. A key names one thing to be sent, such as a payment's id.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass, fields
from typing import Final

LATE_DAYS_MAX: Final = 20
SLOW_SECONDS: Final = 1.0

_BITS: Final = 24
"""Of each draw. Nine of them and the days of delay fill the digest's 32 bytes."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What goes wrong with one thing that is sent. The default: nothing."""

    lose: bool = False
    """The first sending never arrives: only a retry, or whoever asks, finds out."""
    double: bool = False
    """It is sent twice, the same both times."""
    reorder: bool = False
    """It is sent after what happened later."""
    late: int = 0
    """Days between the payment and its telling."""
    wrong_amount: bool = False
    """A second body under the same id states another amount."""
    wrong_currency: bool = False
    """It states another currency."""
    tamper: bool = False
    """It is changed on the way, so that its signature does not fit."""
    slow: float = 0.0
    """Seconds that are waited before it is sent or answered."""
    fail: bool = False
    """The simulated provider's own answer to the first call about it is 500."""

    @property
    def struck(self) -> tuple[str, ...]:
        """Return the names of what goes wrong, in the order of SHARES."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name))


@dataclass(frozen=True, slots=True)
class Faults:
    """How much goes wrong: shares between 0 and 1, each drawn by itself."""

    seed: int = 0
    lose: float = 0.0
    double: float = 0.0
    reorder: float = 0.0
    late: float = 0.0
    wrong_amount: float = 0.0
    wrong_currency: float = 0.0
    tamper: float = 0.0
    slow: float = 0.0
    fail: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no share.

        Raises:
            ValueError: A share is not between 0 and 1.
        """
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share between 0 and 1")

    def of(self, key: str) -> Fate:
        """Return the fate of what `key` names: the same whenever and wherever it is asked."""
        digest = hashlib.sha256(f"{self.seed}|{key}".encode()).digest()
        width = _BITS // 8
        struck = {
            name: int.from_bytes(digest[at * width : (at + 1) * width]) < share * 2**_BITS
            for at, name in enumerate(SHARES)
            if (share := getattr(self, name)) > 0
        }
        days = 1 + int.from_bytes(digest[-2:]) % LATE_DAYS_MAX
        return Fate(
            lose=struck.get("lose", False),
            double=struck.get("double", False),
            reorder=struck.get("reorder", False),
            late=days if struck.get("late") else 0,
            wrong_amount=struck.get("wrong_amount", False),
            wrong_currency=struck.get("wrong_currency", False),
            tamper=struck.get("tamper", False),
            slow=SLOW_SECONDS if struck.get("slow") else 0.0,
            fail=struck.get("fail", False),
        )


SHARES: Final = tuple(each.name for each in fields(Faults) if each.name != "seed")
"""The faults, in the order in which they are drawn: a new one goes last."""

_HELP: Final = {
    "lose": "share of first sendings that never arrive",
    "double": "share sent twice",
    "reorder": "share sent after what happened later",
    "late": f"share told of 1 to {LATE_DAYS_MAX} days after the payment",
    "wrong_amount": "share told of once more with another amount, under the same id",
    "wrong_currency": "share in another currency",
    "tamper": "share changed on the way",
    "slow": f"share that waits {SLOW_SECONDS:g} s",
    "fail": "share whose first call is answered by 500",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a simulator's command line `--seed` and an option for each share."""
    parser.add_argument("--seed", type=int, default=0, help="of what goes wrong (0)")
    for name in SHARES:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=_share, default=0.0, metavar="SHARE", help=_HELP[name])


def from_options(options: argparse.Namespace) -> Faults:
    """Return what the options of `add_options` ask for."""
    return Faults(options.seed, **{name: getattr(options, name) for name in SHARES})


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("a share is between 0 and 1")
    return share
