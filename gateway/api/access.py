"""Who may what: one table from roles to rights, and what of the whole a key's holder sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from fastapi import Depends, Request

from gateway.api.limits import seconds_after_unknown_key
from gateway.api.problems import Problem
from gateway.db import snapshot
from gateway.models import Role
from gateway.pages.clients import client_of
from gateway.process import business_clock
from gateway.registers.places import as_region
from gateway.staff import holder_of


class Right(StrEnum):
    """What an operation asks for."""

    READ_CONTRIBUTORS = "contributors:read"
    WRITE_CONTRIBUTORS = "contributors:write"
    READ_INVOICES = "invoices:read"
    WRITE_INVOICES = "invoices:write"
    READ_PAYMENTS = "payments:read"
    READ_BOOKS = "books:read"
    """Whose payment it is, and the transfers that explain it."""
    READ_STANDING = "standing:read"
    """Whether a person is up to date, and what is late."""
    ATTEST = "attestations:write"
    READ_PLANS = "plans:read"
    WRITE_PLANS = "plans:write"
    READ_REFUNDS = "refunds:read"
    REFUSE_REFUNDS = "refunds:refuse"
    """Or to withdraw one, before anything is done."""
    ASK_REFUNDS = "refunds:ask"
    """That money be given back; and to pay out by hand what another approved."""
    APPROVE_REFUNDS = "refunds:approve"
    READ_EXCEPTIONS = "exceptions:read"
    RESOLVE_EXCEPTIONS = "exceptions:resolve"
    READ_EVENTS = "events:read"
    LOOK_UP_REFERENCES = "references:read"
    READ_BUNDLES = "bundles:read"
    MAKE_BUNDLES = "bundles:write"
    """One reference to pay several invoices by."""
    READ_ATTEMPTS = "attempts:read"
    BEGIN_ATTEMPTS = "attempts:write"
    """Send a payer out to pay."""
    READ_DELIVERIES = "deliveries:read"
    REPLAY_DELIVERIES = "deliveries:replay"
    READ_BODIES = "bodies:read"
    """What a delivery says, without what is personal in it."""
    READ_ENDPOINTS = "endpoints:read"
    OPERATE_ENDPOINTS = "endpoints:operate"
    """Have events sent again, and endpoints go on or rest."""
    WRITE_ENDPOINTS = "endpoints:write"
    """Who is told of what happens, and by which secret."""
    READ_SERVICE = "service:read"
    READ_EXTRACTS = "extracts:read"
    """All that is held about a person."""
    ERASE = "contributors:erase"
    READ_KEYS = "keys:read"
    BE_KNOWN = "me:read"


_FINANCE: Final = frozenset(Right) - {
    Right.READ_KEYS,
    Right.ERASE,
    Right.WRITE_ENDPOINTS,
    Right.APPROVE_REFUNDS,
}

MAY: Final[Mapping[Role, frozenset[Right]]] = {
    # Nobody both asks and approves: an admin approves.
    Role.ADMIN: frozenset(Right) - {Right.ASK_REFUNDS},
    Role.FINANCE: _FINANCE,
    Role.APPROVER: (_FINANCE | {Right.APPROVE_REFUNDS})
    - {
        Right.ASK_REFUNDS,
        Right.WRITE_CONTRIBUTORS,
        Right.WRITE_INVOICES,
        Right.WRITE_PLANS,
        Right.ATTEST,
        Right.RESOLVE_EXCEPTIONS,
        Right.MAKE_BUNDLES,
        Right.BEGIN_ATTEMPTS,
        Right.REPLAY_DELIVERIES,
        Right.OPERATE_ENDPOINTS,
        Right.READ_BODIES,
        Right.READ_EXTRACTS,
    },
    Role.SUPERVISOR: frozenset(
        {
            Right.LOOK_UP_REFERENCES,
            Right.READ_PAYMENTS,
            Right.READ_STANDING,
            Right.READ_ATTEMPTS,
            Right.BE_KNOWN,
        }
    ),
    Role.AGENT: frozenset(
        {
            Right.LOOK_UP_REFERENCES,
            Right.READ_BUNDLES,
            Right.MAKE_BUNDLES,
            Right.READ_ATTEMPTS,
            Right.BEGIN_ATTEMPTS,
            Right.BE_KNOWN,
        }
    ),
    Role.CHAMBER: frozenset(
        {
            Right.READ_CONTRIBUTORS,
            Right.READ_STANDING,
            Right.ATTEST,
            Right.READ_INVOICES,
            Right.READ_PAYMENTS,
            Right.READ_EVENTS,
            Right.READ_BUNDLES,
            Right.MAKE_BUNDLES,
            Right.BE_KNOWN,
        }
    ),
    Role.PROVIDER: frozenset({Right.LOOK_UP_REFERENCES, Right.READ_PAYMENTS, Right.BE_KNOWN}),
}


def roles_with(right: Right) -> list[str]:
    """Return the roles that have a right."""
    return [role.value for role in Role if right in MAY[role]]


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of the key that a request bears."""

    key_id: str
    label: str
    role: Role
    scope: str | None

    def may(self, right: Right) -> bool:
        """Say whether the role has a right."""
        return right in MAY[self.role]

    @property
    def is_chamber(self) -> bool:
        """Whether all it sees is of its region; without one that is nobody."""
        return self.role is Role.CHAMBER

    @property
    def is_provider(self) -> bool:
        """Whether the payments it sees are its own; without a name there are none."""
        return self.role is Role.PROVIDER

    @property
    def named(self) -> str:
        """The key, as it stands beside what was decided with it."""
        return f"{self.key_id} ({self.label})" if self.label else self.key_id


@dataclass(frozen=True, slots=True)
class Asked:
    """What every operation knows of its request."""

    caller: Caller
    now: datetime
    """The business clock's instant: one for the whole request."""
    request_sha256: bytes
    """Of method, path and body."""
    path: str
    query: tuple[tuple[str, str], ...]


def recognise(request: Request) -> Caller:
    """Return whose key a request bears. Opens a transaction of its own.

    A right key is never held up by others' wrong ones from the same address: a secret of 256 bits
    is not guessed, and one mistaken program must not shut out its neighbours.

    Raises:
        Problem: There is none, or it opens nothing.
    """
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not bearer.strip():
        raise Problem("no_key")
    with snapshot() as session:
        key = holder_of(session, bearer.strip())
    if key is None:
        if seconds := seconds_after_unknown_key(client_of(request)):
            raise Problem("too_many_unknown_keys", headers={"Retry-After": str(seconds)})
        raise Problem("unknown_key")
    # A key of before this version may have its region spelt otherwise than the register.
    is_chambers = key.role is Role.CHAMBER and key.scope is not None
    return Caller(
        key.id, key.label, key.role, as_region(key.scope or "") if is_chambers else key.scope
    )


def refuse_without(caller: Caller, right: Right) -> None:
    """Refuse a caller whose role lacks a right.

    Raises:
        Problem: It does.
    """
    if not caller.may(right):
        allowed = ", ".join(roles_with(right))
        raise Problem(
            "role_may_not", f"The role {caller.role.value} may not do this; it takes {allowed}."
        )


def _asked(request: Request) -> Asked:
    asked = request.state.asked
    assert isinstance(asked, Asked)
    return asked


ThisRequest = Annotated[Asked, Depends(_asked)]


def now() -> datetime:
    """Return the business clock's instant."""
    return business_clock()()
