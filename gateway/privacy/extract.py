"""All that is held about a person, in one document that can be handed to the person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlmodel import Session

from gateway.clock import INSTITUTION_ZONE
from gateway.privacy import Holder, Section, own
from gateway.privacy.subject import subject_of
from gateway.words.catalogs import LANGUAGES, catalog

LEFT_OUT: Final = (
    "Other people's parts of what is shared: of a reference that pays several people's invoices,"
    " and of a payment by it, only what is this person's is listed.",
    "The body of a delivery that is about another person's payment, or has another person's CNSS"
    " number or reference in it.",
    "The bodies of answers kept for requests that are sent again: they repeat what is listed here.",
    "Keys and signatures of the books, which are about no person.",
    "Copies outside the database: printed notices in the folders named under print_files, and"
    " backups, which hold what stood here when they were made.",
)


@dataclass(frozen=True, slots=True)
class Extract:
    """All that is held about a person at an instant."""

    contributor_id: int
    made_at: datetime
    sections: tuple[Section, ...]
    """Those that hold nothing, too."""

    def as_json(self) -> dict[str, Any]:
        """Return it for people and programs: titles in both languages, amounts as texts."""
        return {
            "contributor_id": str(self.contributor_id),
            "made_at": self.made_at.astimezone(INSTITUTION_ZONE).isoformat(),
            "law": "09-08",
            "currency": "MAD",
            "sections": [_section(each) for each in self.sections],
            "left_out": list(LEFT_OUT),
        }


def extract(
    session: Session, contributor_id: int, holders: Sequence[Holder], *, now: datetime
) -> Extract | None:
    """Return what is held about a person, by any of the person's files; None for nobody.

    Reads only; a snapshot makes the parts agree.

    Args:
        session: Whose transaction it is.
        contributor_id: Any of the person's files.
        holders: Who else holds data of people (gateway.holders).
        now: When.
    """
    subject = subject_of(session, contributor_id)
    if subject is None:
        return None
    sections = own.held(session, subject)
    for holder in holders:
        sections += holder.held(session, subject)
    return Extract(subject.contributor_id, now, tuple(sections))


def _section(section: Section) -> dict[str, Any]:
    return {
        "name": section.name,
        "title": _in_all_languages(section.title),
        "purpose": _in_all_languages(section.purpose),
        "kept": section.kept,
        "rows": [dict(row) for row in section.rows],
    }


def _in_all_languages(text: str) -> dict[str, str]:
    return {language: catalog(language).gettext(text) for language in LANGUAGES}
