"""Who may: people who sign in, and programs with bearer keys. Roles are gateway.models.Role."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.fernet import Fernet
from sqlmodel import Session, col, select

from gateway.db import execute, insert_once
from gateway.errors import Unusable
from gateway.models import ApiKey, Role, Staff
from gateway.registers.places import as_region
from gateway.secretfiles import read_or_make

_STAFF_KEY_FILE: Final = "staff.key"
_KEY_PREFIX: Final = "wasl"
NAME_MAX: Final = 80
LABEL_MAX: Final = 120
SCOPED: Final = (Role.CHAMBER, Role.PROVIDER)
"""Roles that see a part of the whole."""
_PASSWORDS: Final = PasswordHasher()


@dataclass(frozen=True, slots=True)
class NewStaff:
    """Shown once, to whoever adds the person."""

    name: str
    password: str
    totp: str
    """`otpauth://…`, for an authenticator."""


def sealing_key(keys_dir: Path) -> Fernet:
    """Return the key, outside the database, that second factors are encrypted with."""
    make = lambda: base64.urlsafe_b64encode(os.urandom(32))  # noqa: E731
    try:
        return Fernet(read_or_make(keys_dir / _STAFF_KEY_FILE, make))
    except ValueError:
        raise Unusable(f"{_STAFF_KEY_FILE} in the keys folder is not a key: restore it.") from None


def add_staff(
    session: Session, name: str, role: Role, *, sealing: Fernet, now: datetime
) -> NewStaff:
    """Add a person with a made-up password and a second factor. The caller owns the transaction.

    Raises:
        Unusable: The name is empty, too long, or taken.
    """
    name = " ".join(name.split())
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise Unusable(f"A name has 1 to {NAME_MAX} printable characters.")
    password = secrets.token_urlsafe(15)
    second_factor = pyotp.random_base32()
    row = Staff(
        name=name,
        role=role,
        password_hash=_PASSWORDS.hash(password),
        totp_sealed=sealing.encrypt(second_factor.encode()),
        created_at=now,
    )
    if not insert_once(session, row, unique=["name"]):
        raise Unusable(f"There is a person named {name} already: choose another name.")
    uri = pyotp.TOTP(second_factor).provisioning_uri(name=name, issuer_name="Wasl")
    return NewStaff(name, password, uri)


def sign_in(
    session: Session, name: str, password: str, code: str, *, sealing: Fernet, now: datetime
) -> Staff | None:
    """Return the person whose name, password and second factor these are, else None.

    The code may be one step (30 s) old or ahead. Says nothing of which of the three was wrong.
    """
    person = session.exec(select(Staff).where(Staff.name == name)).one_or_none()
    try:
        _PASSWORDS.verify(person.password_hash if person else _nobody(), password)
    except (VerificationError, InvalidHashError):
        return None
    if person is None:
        return None
    second_factor = sealing.decrypt(person.totp_sealed).decode()
    if not pyotp.TOTP(second_factor).verify(code, for_time=now, valid_window=1):
        return None
    return person


def create_key(
    session: Session, role: Role, *, now: datetime, scope: str | None = None, label: str = ""
) -> str:
    """Create a bearer key and return it: shown once. The caller owns the transaction.

    Args:
        session: Whose transaction it is.
        role: What its holder may do.
        now: When.
        scope: What of the whole its holder sees: a chamber's region, a provider's name.
        label: Whose it is, for whoever revokes it.

    Raises:
        Unusable: The role has no scope, or a text cannot be kept.
    """
    if scope is not None and role not in SCOPED:
        raise Unusable(f"The role {role.value} has no scope: only {' and '.join(SCOPED)} have one.")
    for text in (scope, label):
        if text is not None and (len(text) > LABEL_MAX or not text.isprintable()):
            raise Unusable(f"A scope or a label has at most {LABEL_MAX} printable characters.")
    if scope is not None and not scope.strip():
        raise Unusable("The scope is empty: name a region or a provider, or leave it out.")
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    session.add(
        ApiKey(
            id=key_id,
            role=role,
            scope=scope and _as_kept(scope, role),
            label=label.strip(),
            secret_sha256=_hash(secret),
            created_at=now,
        )
    )
    return f"{_KEY_PREFIX}_{key_id}_{secret}"


def is_region(session: Session, scope: str) -> bool:
    """Say whether any contributor is of a region, as `create_key` keeps it."""
    found: bool = execute(
        session,
        "SELECT EXISTS (SELECT FROM contributor WHERE region = :scope)",
        {"scope": as_region(scope)},
    ).scalar_one()
    return found


def _as_kept(scope: str, role: Role) -> str:
    """Return a scope as the register writes regions, or providers' names without spaces around."""
    return as_region(scope) if role is Role.CHAMBER else unicodedata.normalize("NFC", scope.strip())


def list_keys(session: Session) -> list[ApiKey]:
    """Return all keys, oldest first, revoked ones too. No secret is in them."""
    return list(session.exec(select(ApiKey).order_by(col(ApiKey.created_at), col(ApiKey.id))))


def revoke_key(session: Session, key_id: str, *, now: datetime) -> ApiKey:
    """Have a key open nothing from now on, and return it; again: it stays revoked as it was.

    The caller owns the transaction.

    Raises:
        Unusable: There is no such key.
    """
    found = session.get(ApiKey, key_id, with_for_update=True) if key_id.isalnum() else None
    if found is None:
        raise Unusable("There is no key with this id: wasl keys list shows them.")
    if found.revoked_at is None:
        found.revoked_at = now
        session.add(found)
    return found


def holder_of(session: Session, bearer: str) -> ApiKey | None:
    """Return the key that this bearer text is, unless it is unknown, wrong or revoked.

    The secret is compared in constant time, also when there is no such key.
    """
    prefix, _, rest = bearer.partition("_")
    key_id, _, secret = rest.partition("_")
    known = None
    if prefix == _KEY_PREFIX and key_id.isascii() and key_id.isalnum():
        known = session.get(ApiKey, key_id)
    expected = known.secret_sha256 if known else bytes(32)
    right = hmac.compare_digest(_hash(secret), expected)
    return known if right and known is not None and known.revoked_at is None else None


@cache
def _nobody() -> str:
    """Return what is checked when there is no such person: the time taken tells not who exists."""
    return _PASSWORDS.hash(secrets.token_urlsafe())


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
