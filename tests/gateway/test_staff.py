from __future__ import annotations

import unicodedata
from datetime import timedelta
from pathlib import Path

import pyotp
import pytest

from gateway.db import execute, transaction
from gateway.errors import Unusable
from gateway.models import Role
from gateway.staff import (
    add_staff,
    create_key,
    holder_of,
    is_region,
    list_keys,
    revoke_key,
    sealing_key,
    sign_in,
)
from tests.factories import NOON, a_contributor


def test_a_person_signs_in_with_all_three(database: str, home: Path) -> None:
    sealing = sealing_key(home / "keys")
    with transaction() as session:
        added = add_staff(session, "  Amina   Tazi ", Role.FINANCE, sealing=sealing, now=NOON)
    assert added.name == "Amina Tazi"
    code = pyotp.parse_uri(added.totp)
    assert isinstance(code, pyotp.TOTP)

    def enter(name: str, password: str, digits: str) -> bool:
        with transaction() as session:
            found = sign_in(session, name, password, digits, sealing=sealing, now=NOON)
            return found is not None

    assert enter("Amina Tazi", added.password, code.at(NOON))
    assert enter("Amina Tazi", added.password, code.at(NOON - timedelta(seconds=30)))
    assert not enter("Amina Tazi", added.password, code.at(NOON - timedelta(minutes=5)))
    assert not enter("Amina Tazi", added.password + "x", code.at(NOON))
    assert not enter("Nobody", added.password, code.at(NOON))
    assert not enter("Amina Tazi", added.password, "")


def test_what_is_stored_opens_nothing(database: str, home: Path) -> None:
    sealing = sealing_key(home / "keys")
    with transaction() as session:
        added = add_staff(session, "Amina", Role.ADMIN, sealing=sealing, now=NOON)
        key = create_key(session, Role.PROVIDER, now=NOON)
    with transaction() as session:
        held = str(execute(session, "SELECT staff::text FROM staff").scalars().all())
        held += str(execute(session, "SELECT api_key::text FROM api_key").scalars().all())
    secrets = [added.password, pyotp.parse_uri(added.totp).secret, key.split("_", 2)[2]]
    assert not [secret for secret in secrets if secret in held]
    assert "$argon2id$" in held


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "\x00", "\ud800"])
def test_a_name_is_needed(database: str, home: Path, name: str) -> None:
    with pytest.raises(Unusable, match="characters"), transaction() as session:
        add_staff(session, name, Role.ADMIN, sealing=sealing_key(home / "keys"), now=NOON)


def test_a_name_is_taken_once(database: str, home: Path) -> None:
    sealing = sealing_key(home / "keys")
    with transaction() as session:
        add_staff(session, "Amina", Role.ADMIN, sealing=sealing, now=NOON)
    with pytest.raises(Unusable, match="Amina"), transaction() as session:
        add_staff(session, "Amina", Role.FINANCE, sealing=sealing, now=NOON)


def test_a_bearer_key_is_its_holder(database: str) -> None:
    with transaction() as session:
        key, other = (create_key(session, role, now=NOON) for role in (Role.FINANCE, Role.CHAMBER))
    with transaction() as session:
        holder = holder_of(session, key)
        assert holder is not None
        assert holder.role is Role.FINANCE
        mixed = "_".join([*key.split("_", 2)[:2], other.split("_", 2)[2]])
        for wrong in (
            "",
            "wasl",
            "wasl__",
            key[:-1],
            key + "x",
            key.upper(),
            mixed,
            "é" * 300,
            "\ud800",
        ):
            assert holder_of(session, wrong) is None


def test_a_revoked_key_opens_nothing(database: str) -> None:
    with transaction() as session:
        key = create_key(session, Role.FINANCE, now=NOON)
    with transaction() as session:
        execute(session, "UPDATE api_key SET revoked_at = now()")
    with transaction() as session:
        assert holder_of(session, key) is None


def test_a_key_has_a_scope_and_a_label(database: str) -> None:
    with transaction() as session:
        a_contributor(session, region="Fès")
        decomposed = unicodedata.normalize("NFD", " Fès ")
        key = create_key(session, Role.CHAMBER, now=NOON, scope=decomposed, label=" Oujda ")
    with transaction() as session:
        holder = holder_of(session, key)
        assert holder is not None
        assert (holder.scope, holder.label) == ("Fès", "Oujda")
        assert is_region(session, decomposed)
        assert not is_region(session, "Oriental")
        (listed,) = list_keys(session)
        assert (listed.id, listed.role, listed.revoked_at) == (holder.id, Role.CHAMBER, None)


@pytest.mark.parametrize(
    ("role", "given"),
    [
        (Role.FINANCE, {"scope": "Oriental"}),
        (Role.CHAMBER, {"scope": "  "}),
        (Role.PROVIDER, {"scope": "x" * 121}),
        (Role.CHAMBER, {"scope": "a\nb"}),
        (Role.ADMIN, {"label": "\x00"}),
    ],
)
def test_a_scope_that_cannot_be_is_refused(
    database: str, role: Role, given: dict[str, str]
) -> None:
    with pytest.raises(Unusable, match="scope"), transaction() as session:
        create_key(session, role, now=NOON, **given)


def test_revoking_is_for_ever(database: str) -> None:
    with transaction() as session:
        key = create_key(session, Role.FINANCE, now=NOON)
        key_id = list_keys(session)[0].id
    for later in (1, 2):
        with transaction() as session:
            revoked = revoke_key(session, key_id, now=NOON + timedelta(days=later))
            assert revoked.revoked_at == NOON + timedelta(days=1)
    with transaction() as session:
        assert holder_of(session, key) is None
    for unknown in ("", "0" * 16, "\x00", "a b"):
        with pytest.raises(Unusable, match="no key"), transaction() as session:
            revoke_key(session, unknown, now=NOON)
