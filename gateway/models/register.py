"""Who owes, and as what."""

from __future__ import annotations

from datetime import date, datetime
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from gateway.db import choice, instant, key, minor, one_of, points_to
from gateway.models.words import Periodicity


class Category(SQLModel, table=True):
    """A group of contributors that the tariff treats alike; kept equal to the tariff file."""

    code: str = Field(primary_key=True)
    periodicity: Periodicity = choice(Periodicity)
    needs_base: bool

    __table_args__ = (one_of("periodicity", Periodicity),)


class Contributor(SQLModel, table=True):
    """A self-employed person who owes contributions. The only table with names and numbers."""

    id: int | None = key()
    cnss_number: str = Field(unique=True)
    cin: str | None
    family_name: str
    given_name: str
    family_name_ar: str | None
    given_name_ar: str | None
    phone: str | None
    language: str | None
    category_code: str = Field(foreign_key="category.code")
    category_base_minor: int | None = minor()
    category_since: date | None = None
    """From when the category and the base hold, if not from `registered_on` on; what was before
    is in `activity`."""
    region: str | None
    province: str | None
    chamber: str | None
    registered_on: date
    left_on: date | None
    commune: str | None = None
    """Code of the High Commission for Planning, as `01.511.01.0`."""
    ice: str | None = None
    """Of the business: fifteen digits."""
    merged_into_id: int | None = points_to("contributor.id", nullable=True)
    """The file of the same person that stands; this one is kept for its invoices."""
    changed_at: datetime = instant()
    erased_at: datetime | None = instant(nullable=True)
    """When what names the person was taken out; what is owed and paid stands."""

    __table_args__ = (
        sa.CheckConstraint(
            "cnss_number ~ '^[0-9]{9}$' OR erased_at IS NOT NULL AND cnss_number = 'erased-' || id",
            name="cnss_number",
        ),
        sa.CheckConstraint(
            "erased_at IS NULL OR num_nonnulls(cin, family_name_ar, given_name_ar, phone, ice,"
            " commune) = 0 AND family_name = '' AND given_name = ''",
            name="erased",
        ),
        sa.CheckConstraint("language IN ('fr', 'ar')", name="language"),
        sa.CheckConstraint("category_base_minor >= 0", name="category_base"),
        sa.CheckConstraint("left_on >= registered_on", name="left_on"),
        sa.CheckConstraint("category_since >= registered_on", name="category_since"),
        sa.CheckConstraint("ice ~ '^[0-9]{15}$'", name="ice"),
        sa.CheckConstraint("merged_into_id <> id", name="merged"),
        sa.Index(None, "category_code", "id"),
        sa.Index(None, "cin", postgresql_where=sa.text("cin IS NOT NULL")),
        sa.Index(None, "merged_into_id", postgresql_where=sa.text("merged_into_id IS NOT NULL")),
        sa.Index(None, "region", "id"),
    )


class Activity(SQLModel, table=True):
    """What a person did beside, or before, what the register says now: a category for some time.

    Only one category is owed for a day (gateway.dues.assessment says which). What turns out never
    to have been so is withdrawn, not deleted.
    """

    id: int | None = key()
    contributor_id: int = points_to("contributor.id")
    category_code: str = Field(foreign_key="category.code")
    base_minor: int | None = minor()
    since: date
    until: date | None
    """The last day; None while it goes on."""
    because: str
    """Who said so, and why. No names."""
    recorded_at: datetime = instant()
    withdrawn_at: datetime | None = instant(nullable=True)

    __table_args__ = (
        sa.CheckConstraint("base_minor >= 0", name="base"),
        sa.CheckConstraint("until >= since", name="until"),
        sa.CheckConstraint("because <> ''", name="because"),
        sa.Index(None, "contributor_id"),
    )


class ReassessmentDue(SQLModel, table=True):
    """A person whose facts changed: what was billed is to be held against what is owed."""

    __tablename__: ClassVar[str] = "reassessment_due"

    contributor_id: int = Field(
        sa_type=sa.BigInteger, foreign_key="contributor.id", primary_key=True
    )
    because: str


class Erasure(SQLModel, table=True):
    """That a person's data were erased, by whose word and why. Append-only; names nobody."""

    id: int | None = key()
    contributor_id: int = points_to("contributor.id")
    asked_by: str
    why: str
    erased_at: datetime = instant()
    found: dict[str, int] = Field(sa_type=JSONB)
    """How many rows of each kind were emptied."""

    __table_args__ = (
        sa.CheckConstraint("btrim(why) <> ''", name="why"),
        sa.Index(None, "contributor_id"),
    )
