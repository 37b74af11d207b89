"""Attestations: the signed statement that a person is up to date, and whether it still stands.

Made for who asks and is up to date. It says what was so on its day; whether it still holds is
worked out from the books each time somebody looks. Whoever has only its number or its code is told
initials, and no name.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, Final

from pydantic import Field
from sqlmodel import Session

from gateway.billing.presentment import Person
from gateway.clock import day_of
from gateway.codes import attestations as codes
from gateway.codes import cose
from gateway.codes.cose import Changed, Cut, ForeignKey
from gateway.db import execute
from gateway.dues.rights import first_of_month
from gateway.dues.tariff import Tariff
from gateway.errors import Unusable
from gateway.figures import Sourced, Strict, read_toml
from gateway.people.standing import read_standing, why_not
from gateway.receipt_keys import PublishedKey, ReceiptKeys, Signer
from gateway.references import permuted

_NUMBER: Final = re.compile(r"A([0-9]{2})([0-9]{9})", re.ASCII)
_SKIP: Final = frozenset({"Cf", "Pd"})


class Validity(Sourced):
    """How long an attestation is valid, in months after its own."""

    months: int = Field(ge=0, le=24)


class _File(Strict):
    validity: Validity


@cache
def validity() -> Validity:
    """Return how long attestations are valid, with who says so."""
    text = resources.files("gateway").joinpath("attestations.toml").read_text("utf-8")
    return read_toml(_File, text, "The attestations file").validity


class NotUpToDate(Exception):
    """Nothing can be attested; the sentence says why, and names nobody."""


class AttestationStanding(StrEnum):
    """Whether what an attestation says still holds."""

    STANDS = "stands"
    EXPIRED = "expired"
    LAPSED = "lapsed"
    """Its holder is not up to date any more."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """An attestation, and how it stands now."""

    number: str
    contributor_id: int
    person: Person
    registered_on: date
    issued_on: date
    valid_until: date
    period: str
    """The last period that was settled."""
    standing: AttestationStanding
    signed: bytes
    key_id: str
    issued_at: datetime


class Finding(StrEnum):
    """What became of a code or a number that somebody wants to check."""

    GENUINE = "genuine"
    NOT_IN_BOOKS = "not_in_books"
    """Signed by us, and our books do not say the same: for the institution to look into."""
    CHANGED = "changed"
    CUT = "cut"
    FOREIGN_KEY = "foreign_key"
    UNKNOWN_NUMBER = "unknown_number"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a code or a number."""

    finding: Finding
    record: Attestation | None = None
    key: PublishedKey | None = None

    @property
    def stands(self) -> bool:
        """Whether it is genuine, in force, and its holder up to date."""
        return self.record is not None and self.record.standing is AttestationStanding.STANDS


# -- issuing --------------------------------------------------------------------------------------


def attest(
    session: Session, contributor_id: int, keys: ReceiptKeys, tariff: Tariff, *, now: datetime
) -> tuple[Attestation, bool] | None:
    """Return the attestation of who is up to date, and whether it is new; None for nobody.

    Asked again on the same day about the same period, it is the same one. The caller owns the
    transaction.

    Args:
        session: Whose transaction it is.
        contributor_id: Any of the person's files.
        keys: The receipts' keys, which sign attestations too.
        tariff: The one in force.
        now: When.

    Raises:
        NotUpToDate: The person is not, or has paid nothing yet.
        Unusable: The key in force is gone.
    """
    today = day_of(now)
    found = read_standing(session, contributor_id, tariff, on=today)
    if found is None:
        return None
    if found.is_erased:
        raise NotUpToDate("The person's data were erased: nobody is left to attest this to.")
    if reason := why_not(found):
        raise NotUpToDate(reason)
    settled = found.standing.settled
    assert settled is not None
    for known in _read(session, _OF_TODAY, {"id": found.contributor_id, "on": today}, tariff, now):
        if known.period == settled.code:
            return known, False
    claims = codes.Claims(
        number=_next_number(session, now),
        period=settled.code,
        issued_at=now.replace(microsecond=0),
        valid_until=first_of_month(today, 1 + validity().months) - timedelta(days=1),
    )
    signer = _signer(session, keys, now=now)
    signed = codes.sign(claims, key_id=signer.key_id, private_key=signer.private)
    execute(
        session,
        "INSERT INTO attestation (number, contributor_id, issued_on, valid_until, signed, key_id,"
        " issued_at) VALUES (:number, :id, :on, :until, :signed, :key_id, :now)",
        {
            "number": claims.number,
            "id": found.contributor_id,
            "on": today,
            "until": claims.valid_until,
            "signed": signed,
            "key_id": signer.key_id,
            "now": now,
        },
    )
    made = find(session, claims.number, tariff, now=now)
    assert made is not None
    return made, True


def _signer(session: Session, keys: ReceiptKeys, *, now: datetime) -> Signer:
    """Return the key in force; never a first one where there was another."""
    lost = "SELECT EXISTS (SELECT FROM receipt) OR EXISTS (SELECT FROM attestation)"
    if not keys.published() and execute(session, lost).scalar_one():
        raise Unusable(
            "The keys that signed receipts and attestations are missing: restore the keys folder of"
            " the home."
        )
    return keys.signer(now=now)


def _next_number(session: Session, now: datetime) -> str:
    """Draw a number that does not tell how many there are, and never the same one twice."""
    drawn, reference_key = execute(
        session, "SELECT nextval('receipt_number'), (SELECT key FROM reference_key)"
    ).one()
    # Another permutation than the receipts': their numbers must not lead to each other.
    key = hashlib.sha256(b"attestation numbers" + bytes(reference_key)).digest()
    return f"A{day_of(now).year % 100:02d}-{permuted(drawn, key):09d}"


# -- looking up -----------------------------------------------------------------------------------


def read_number(text: str) -> str | None:
    """Return the attestation's number that somebody typed, as it is printed; None if it is none.

    Spaces, hyphens, case and Arabic-Indic digits are understood, and so is the address that the
    paper prints. The letter is needed: without one it is a receipt's.
    """
    text = text.strip()
    if "/verify/" in text:
        text = text.partition("/verify/")[2].partition("?")[0]
    kept = [c for c in text[:64].upper() if not (c.isspace() or unicodedata.category(c) in _SKIP)]
    found = _NUMBER.fullmatch("".join(str(unicodedata.decimal(c, c)) for c in kept))
    return f"A{found[1]}-{found[2]}" if found else None


def find(session: Session, number: str, tariff: Tariff, *, now: datetime) -> Attestation | None:
    """Return the attestation of a number, as it stands now; None if there is none."""
    rows = _read(session, "number = :number", {"number": number}, tariff, now)
    return rows[0] if rows else None


_OF_TODAY: Final = "contributor_id = :id AND issued_on = :on"
_RECORD: Final = """
    SELECT attestation.*, c.family_name, c.given_name, c.family_name_ar, c.given_name_ar,
        c.cnss_number, c.region, c.registered_on
    FROM attestation JOIN contributor c ON c.id = contributor_id
    WHERE {which} ORDER BY attestation.id
"""


def _read(
    session: Session, which: str, parameters: dict[str, Any], tariff: Tariff, now: datetime
) -> list[Attestation]:
    rows = execute(session, _RECORD.format(which=which), parameters).mappings().all()
    return [_attestation(session, row, tariff, day_of(now)) for row in rows]


def _attestation(session: Session, row: Any, tariff: Tariff, today: date) -> Attestation:
    found = read_standing(session, row["contributor_id"], tariff, on=today)
    assert found is not None
    claims = codes.claimed(bytes(row["signed"]))
    return Attestation(
        number=row["number"],
        contributor_id=row["contributor_id"],
        person=Person(
            family_name=row["family_name"],
            given_name=row["given_name"],
            family_name_ar=row["family_name_ar"],
            given_name_ar=row["given_name_ar"],
            cnss_number=row["cnss_number"],
            region=row["region"],
        ),
        registered_on=row["registered_on"],
        issued_on=row["issued_on"],
        valid_until=row["valid_until"],
        period=claims.period if claims else "",
        standing=standing_of(
            valid_until=row["valid_until"], up_to_date=found.standing.up_to_date, today=today
        ),
        signed=bytes(row["signed"]),
        key_id=row["key_id"],
        issued_at=row["issued_at"],
    )


def standing_of(*, valid_until: date, up_to_date: bool, today: date) -> AttestationStanding:
    """Return how an attestation stands on a day. Pure."""
    if today > valid_until:
        return AttestationStanding.EXPIRED
    return AttestationStanding.STANDS if up_to_date else AttestationStanding.LAPSED


def look_into(
    session: Session, number: str, keys: Sequence[PublishedKey], tariff: Tariff, *, now: datetime
) -> Verdict:
    """Answer somebody who has an attestation's number, as `read_number` gives it.

    The caller owns the transaction.
    """
    record = find(session, number, tariff, now=now)
    if record is None:
        return Verdict(Finding.UNKNOWN_NUMBER)
    verdict = verdict_on(session, cose.as_text(record.signed), keys, tariff, now=now)
    # One of our own books that does not verify is a matter of ours, not a stranger's work.
    return verdict if verdict.finding is Finding.GENUINE else Verdict(Finding.NOT_IN_BOOKS)


def verdict_on(
    session: Session, text: str, keys: Sequence[PublishedKey], tariff: Tariff, *, now: datetime
) -> Verdict:
    """Say what the code of an attestation is worth. The caller owns the transaction.

    Never raises for any text; for one that is no code of an attestation it says CHANGED or CUT.
    """
    by_id = {key.key_id: key for key in keys}
    match codes.read(text, {key.key_id: key.public for key in keys}):
        case codes.Genuine(claims=claims, key_id=key_id):
            record = find(session, claims.number, tariff, now=now)
            same = record is not None and says_the_same(
                claims, record.number, record.issued_at, record.valid_until
            )
            finding = Finding.GENUINE if same else Finding.NOT_IN_BOOKS
            return Verdict(finding, record if same else None, by_id[key_id])
        case Changed(key_id=key_id):
            return Verdict(Finding.CHANGED, key=by_id[key_id])
        case ForeignKey():
            return Verdict(Finding.FOREIGN_KEY)
        case Cut():
            return Verdict(Finding.CUT)
        case codes.NotAnAttestation():
            return Verdict(Finding.CHANGED)


def says_the_same(
    claims: codes.Claims, number: str, issued_at: datetime, valid_until: date
) -> bool:
    """Say whether a code claims what our books hold. The period stands in the code alone."""
    return (claims.number, claims.issued_at, claims.valid_until) == (
        number,
        issued_at.replace(microsecond=0),
        valid_until,
    )
