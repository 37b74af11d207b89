"""`/v1/contributors`: who owes. Names and numbers stand in bodies only, never in an address."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, ConfigDict, Field
from sqlmodel import Session

from gateway.api.access import Asked, Right, ThisRequest
from gateway.api.idempotency import Answer, IdempotencyKey, once
from gateway.api.paging import (
    LIMIT_DEFAULT,
    Cursor,
    Page,
    Paged,
    binding,
    first_after,
    paged,
    read_cursor,
    write_cursor,
)
from gateway.api.problems import FieldError, Problem
from gateway.api.route import PREFIX, new_router, operation
from gateway.api.schemas import (
    Amount,
    AmountGiven,
    Body,
    CategoryCode,
    Conditions,
    Day,
    Id,
    IdInPath,
    Line,
    Said,
    example,
    found,
)
from gateway.clock import day_of
from gateway.db import execute, snapshot
from gateway.dues.tariff import tariff
from gateway.money import format_amount
from gateway.people import contributors as register
from gateway.people import reading
from gateway.people.contributors import Enrolled
from gateway.people.reading import WrongPerson
from gateway.registers.phones import read_phone
from gateway.registers.places import read_place

router: APIRouter = new_router("contributors")

_CnssNumber = Annotated[str, Field(pattern="^[0-9]{9}$", examples=["123456789"])]
_Cin = Annotated[str, Field(pattern="^[A-Za-z0-9]{2,12}$", examples=["AB123456"])]
_Phone = Annotated[
    str,
    Field(
        pattern=r"^((00212|0)[5-8][0-9]{8}|\+[1-9][0-9]{7,14})$",
        description="Moroccan, or with its country code.",
        examples=["+212612345678"],
    ),
]
_Ice = Annotated[
    str,
    Field(
        pattern="^[0-9]{15}$",
        description="Fifteen digits; the whole modulo 97 is 0.",
        examples=["001234567000062"],
    ),
]
_Language = Annotated[Literal["fr", "ar"], Field(examples=["fr"])]

WORDS_MAX: Final = 8
# Spaces and signs that stand in a line.
_GAP: Final = r"[^\S\u0000-\u001f\u007f-\u009f]"
_WORD: Final = r"[^\s\u0000-\u001f\u007f-\u009f]+"


def _few_words(text: str) -> str:
    if len(text.split()) > WORDS_MAX:
        raise ValueError(f"It has at most {WORDS_MAX} words.")
    return text


_Words = Annotated[
    Line,
    AfterValidator(_few_words),
    Field(
        json_schema_extra={
            "pattern": rf"^{_GAP}*{_WORD}({_GAP}+{_WORD}){{0,{WORDS_MAX - 1}}}{_GAP}*$"
        }
    ),
]

_EXAMPLE: Final[dict[str, Any]] = {
    "cnss_number": "123456789",
    "family_name": "El Idrissi",
    "given_name": "Fatima Zahra",
    "family_name_ar": "الإدريسي",
    "given_name_ar": "فاطمة الزهراء",
    "cin": "AB123456",
    "phone": "+212612345678",
    "language": "fr",
    "category": "artisan-untaxed",
    "category_base": None,
    "region": "Casablanca-Settat",
    "province": "Casablanca",
    "chamber": "Chambre d'artisanat Casablanca-Settat",
    "registered_on": "2022-01-31",
    "left_on": None,
    "commune": "06.141.01.0",
    "ice": None,
}
_KEPT: Final[dict[str, Any]] = {
    **_EXAMPLE,
    "category_since": None,
    "merged_into": None,
    "changed_at": "2026-11-18T11:06:40Z",
    "erased_at": None,
}


class Contributor(Said):
    """A self-employed person who owes contributions."""

    model_config = example(id="1042", **_KEPT)

    id: Id
    cnss_number: str
    family_name: str
    given_name: str
    family_name_ar: str | None
    given_name_ar: str | None
    cin: str | None
    phone: str | None = Field(description="With its country code.")
    language: str | None
    category: str
    category_base: Amount | None
    category_since: date | None = Field(
        description="From when both hold; null: since the registration. What was before is among"
        " the activities."
    )
    region: str | None
    province: str | None
    chamber: str | None
    registered_on: date = Field(description="The period that holds it is the first owed.")
    left_on: date | None = Field(description="The period that holds it is the last owed.")
    commune: str | None = Field(description="Code of the High Commission for Planning.")
    ice: str | None = Field(description="Common identifier of the business: fifteen digits.")
    merged_into: Id | None = Field(
        description="The file of the same person that stands, where this one does not."
    )
    changed_at: datetime
    erased_at: datetime | None = Field(
        description="When what names the person was erased: names are empty since, numbers null,"
        " and `cnss_number` is a placeholder."
    )


class Warned(Said):
    """What may be a mistake; nobody is refused for it."""

    model_config = example(field="province", detail="province is not in the region.")

    field: str
    detail: str


class KeptContributor(Contributor):
    """A contributor as it was kept, and what may be a mistake."""

    model_config = example(id="1042", **_KEPT, warnings=[])

    warnings: list[Warned]


class _Optional(Body):
    family_name_ar: Line | None = None
    given_name_ar: Line | None = None
    cin: _Cin | None = None
    phone: _Phone | None = None
    language: _Language | None = None
    category_base: AmountGiven | None = Field(
        None, description="Annual principal duty, where the category is charged by it."
    )
    region: Line | None = None
    province: Line | None = None
    chamber: Line | None = None
    left_on: Day | None = None
    commune: Line | None = Field(
        None, description="Its name, or its code; kept as the code where it is known."
    )
    ice: _Ice | None = None


class NewContributor(_Optional):
    """A person to enrol: the same fields and rules as a line of `wasl contributors import`."""

    model_config = example(**_EXAMPLE)

    cnss_number: _CnssNumber
    family_name: Line
    given_name: Line
    category: CategoryCode
    registered_on: Day


class ContributorChange(_Optional):
    """What is to be changed. What is left out stays; `null` empties a field that may be empty."""

    model_config = example(phone="+212612345678", region="Fès-Meknès", left_on="2026-12-31")

    category_since: Day | None = Field(
        None,
        description="From when another category or base holds; left out: from the first day of this"
        " quarter. What was wrong from the beginning holds since `registered_on`.",
    )
    # Left out means unchanged, and there is no null: these four are never empty.
    family_name: Line = Field(default_factory=str)
    given_name: Line = Field(default_factory=str)
    category: CategoryCode = Field(default_factory=str)
    registered_on: Day = Field(default_factory=lambda: date.min)


class ContributorSearch(Body):
    """Whom to look for: all that is given must fit, and something must be given."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"cnss_number": "123456789"}],
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string"}}}
                for name in ("cnss_number", "cin", "phone", "name")
            ],
        },
    )

    cnss_number: _CnssNumber | None = None
    cin: _Cin | None = None
    phone: _Phone | None = None
    name: _Words | None = Field(
        None,
        description=f"Up to {WORDS_MAX} words of the name in either script; each must occur in it,"
        " in any case.",
    )
    cursor: Cursor | None = None


class ContributorFilters(Paged):
    """What of the register to list."""

    region: Line | None = None
    province: Line | None = None
    chamber: Line | None = None
    category: CategoryCode | None = None


@router.get("/contributors", **operation(Right.READ_CONTRIBUTORS, "bad_cursor"))
def list_contributors(
    asked: ThisRequest, filters: Annotated[ContributorFilters, Query()], response: Response
) -> Page[Contributor]:
    """List who is enrolled."""
    where = _seen_by(asked)
    where.add("id > :after", after=first_after(asked, "contributors", filters))
    # As the register writes them, however they are written here.
    place = read_place(filters.region or "", filters.province or "", "", filters.chamber or "")
    where.equal(
        region=place.region,
        province=place.province,
        chamber=place.chamber,
        category_code=filters.category,
    )
    rows = _rows(where, filters.limit)
    return paged(asked, "contributors", filters, rows, _said, response)


@router.get("/contributors/{id}", **operation(Right.READ_CONTRIBUTORS, "contributor_not_found"))
def read_contributor(asked: ThisRequest, contributor_id: IdInPath) -> Contributor:
    """Read one contributor."""
    where = _seen_by(asked)
    where.add("id = :id", id=int(contributor_id))
    return _said(found(next(iter(_rows(where, 1)), None), "contributor_not_found"))


@router.post(
    "/contributors",
    status_code=201,
    response_model=KeptContributor,
    **operation(
        Right.WRITE_CONTRIBUTORS,
        "contributor_exists",
        "fields_contradict",
        "idempotency_key_reused",
        body=True,
    ),
)
def enrol_contributor(
    asked: ThisRequest, body: NewContributor, key: IdempotencyKey = None
) -> Response:
    """Enrol a person. One who is enrolled already with the same content: 200, nothing changes."""

    def act(session: Session) -> Answer:
        try:
            became, contributor_id = register.enrol(session, _values(body), tariff(), now=asked.now)
        except WrongPerson as error:
            raise _contradiction(error) from None
        if became is Enrolled.OTHER:
            raise Problem("contributor_exists")
        address = f"{PREFIX}/contributors/{contributor_id}"
        status = 201 if became is Enrolled.NEW else 200
        return Answer(_kept(session, contributor_id, asked.now), status, {"Location": address})

    return once(asked, key, act)


@router.patch(
    "/contributors/{id}",
    response_model=KeptContributor,
    **operation(
        Right.WRITE_CONTRIBUTORS,
        "contributor_not_found",
        "fields_contradict",
        "idempotency_key_reused",
        body=True,
    ),
)
def change_contributor(
    asked: ThisRequest,
    contributor_id: IdInPath,
    body: ContributorChange,
    key: IdempotencyKey = None,
) -> Response:
    """Change what is given of a person. Invoices that were issued stay as they are.

    Where what is owed changes, the person is re-assessed within moments, by notes on the invoices.
    """

    def act(session: Session) -> Answer:
        number = int(contributor_id)
        try:
            there = register.change(session, number, _values(body), tariff(), now=asked.now)
        except WrongPerson as error:
            raise _contradiction(error) from None
        if not there:
            raise Problem("contributor_not_found")
        return Answer(_kept(session, number, asked.now))

    return once(asked, key, act)


@router.post("/contributors/search", **operation(Right.READ_CONTRIBUTORS, "bad_cursor", body=True))
def search_contributors(asked: ThisRequest, body: ContributorSearch) -> Page[Contributor]:
    """Find people by number or name, given in the body. Changes nothing."""
    given = body.model_dump(exclude={"cursor"}, exclude_none=True)
    if not given:
        sentence = "Give a cnss_number, cin, phone or name to look for."
        raise Problem("invalid_body", sentence, errors=[FieldError("body", "missing", sentence)])
    bound = binding(asked, "search", body)
    where = _seen_by(asked)
    where.add("id > :after", after=read_cursor(body.cursor, bound) if body.cursor else 0)
    where.equal(cnss_number=body.cnss_number, cin=body.cin and body.cin.upper())
    if body.phone:
        where.equal(phone=read_phone(body.phone))
    if body.name:
        words = [f"%{_SIGNS_OF_LIKE.sub(_ESCAPED, word)}%" for word in set(body.name.split())]
        where.add(f"lower({_NAME}) LIKE ALL ({_LOWERED})", words=words)
    rows = _rows(where, LIMIT_DEFAULT)
    more = len(rows) > LIMIT_DEFAULT
    shown = rows[:LIMIT_DEFAULT]
    following = write_cursor(shown[-1]["id"], bound) if more else None
    return Page[Contributor](data=[_said(row) for row in shown], next_cursor=following)


_NAME: Final = "concat_ws(' ', given_name, family_name, given_name_ar, family_name_ar)"
# Once for the question, and each person's name once for all words.
_LOWERED: Final = "ARRAY(SELECT lower(word) FROM unnest(CAST(:words AS text[])) AS word)"
_SIGNS_OF_LIKE: Final = re.compile(r"[\\%_]")
_ESCAPED: Final = r"\\\g<0>"


def _seen_by(asked: Asked) -> Conditions:
    where = Conditions("TRUE")
    if asked.caller.is_chamber:
        where.add("region = :scope", scope=asked.caller.scope)
    return where


def _rows(where: Conditions, limit: int) -> list[Any]:
    with snapshot() as session:
        return list(
            execute(
                session,
                f"SELECT * FROM contributor WHERE {where} ORDER BY id LIMIT :rows",
                {**where.parameters, "rows": limit + 1},
            ).mappings()
        )


def _kept(session: Session, contributor_id: int, now: datetime) -> KeptContributor:
    found = execute(session, "SELECT * FROM contributor WHERE id = :id", {"id": contributor_id})
    row = found.mappings().one()
    odd = register.warnings_of(session, row, tariff(), on=day_of(now))
    warnings = [Warned(field=each.column, detail=f"{each.reason}.") for each in odd]
    return KeptContributor(**_said(row).model_dump(), warnings=warnings)


def _said(row: Any) -> Contributor:
    base = row["category_base_minor"]
    same = (*reading.COLUMNS, "changed_at", "erased_at")
    return Contributor(
        id=str(row["id"]),
        category=row["category_code"],
        category_base=None if base is None else format_amount(base),
        category_since=row["category_since"],
        merged_into=None if row["merged_into_id"] is None else str(row["merged_into_id"]),
        **{column: row[column] for column in same if column not in {"category", "category_base"}},
    )


def _values(body: Body) -> dict[str, str]:
    """Return what was given as a line of a file would have it; what was left out, where needed."""
    given = body.model_dump(mode="json", exclude_unset=True)
    values = {name: "" if value is None else str(value).strip() for name, value in given.items()}
    if isinstance(body, NewContributor):
        values = {column: values.get(column, "") for column in reading.COLUMNS}
    return values


def _contradiction(error: WrongPerson) -> Problem:
    errors = [FieldError(wrong.column, "contradicts", f"{wrong.reason}.") for wrong in error.wrong]
    named = ", ".join(dict.fromkeys(wrong.column for wrong in error.wrong))
    return Problem("fields_contradict", f"Mend {named}: {error}.", errors=errors)
