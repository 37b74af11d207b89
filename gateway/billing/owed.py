"""Who owes a period and is not billed for it, and how much: read here, decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa
from sqlmodel import Session

from gateway.billing.scope import (
    BILLED,
    CHUNK,
    ID_MAX,
    IS_SPECIAL,
    PEOPLE,
    SPECIAL,
    Scope,
    take_turns,
)
from gateway.db import execute
from gateway.dues.assessment import (
    Assessed,
    Assessor,
    PersonFacts,
    everything_done,
)
from gateway.dues.periods import Period
from gateway.dues.principal import DueLine, NotOwed
from gateway.dues.tariff import Tariff
from gateway.errors import Unusable
from gateway.figures import in_force
from gateway.people.activities import read_people

NAMED_MAX: Final = 20
"""Of people who cannot be billed, so many are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A person of whom cannot be told what they owe, and why."""

    contributor_id: int
    reason: str
    """What to mend, in a sentence without the person's figures."""


@dataclass(slots=True)
class Owed:
    """Those of a span who are to be billed."""

    people: list[tuple[int, int]] = field(default_factory=list)
    """Contributor, and the place of what is owed in `lines`."""
    lines: list[tuple[str, DueLine]] = field(default_factory=list)
    """By category; each once, though many bases owe it."""
    already: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    _places: dict[tuple[str, str, str, int], int] = field(default_factory=dict)

    def place(self, category: str, line: DueLine) -> int:
        """Return the place of what is owed, which is kept if it is new."""
        key = (category, line.rule, line.source, line.amount_minor)
        if key not in self._places:
            self._places[key] = len(self.lines)
            self.lines.append((category, line))
        return self._places[key]


def find_owed(
    session: Session,
    tariff: Tariff,
    scope: Scope,
    first_id: int,
    last_id: int,
    only: Sequence[int] | None = None,
) -> Owed:
    """Return who of a span of ids, or only of these in it, owes the period and is not billed for
    any day of it, and who cannot be priced.

    The decision is the pure functions', once for each base, so that the issue and a quote can
    never disagree.
    """
    # A compiled plan takes longer to make than the whole query to run.
    execute(session, "SET LOCAL jit = off")
    rows = execute(
        session,
        # OFFSET keeps the search for an invoice what it is written as, one look into the index for
        # each person: a join of the two would read all invoices there are for each span.
        f"""
        WITH {SPECIAL}
        SELECT c.id, c.category_code, c.category_base_minor, {IS_SPECIAL},
            EXISTS (SELECT FROM invoice WHERE contributor_id = c.id AND {BILLED} OFFSET 0)
        FROM contributor c WHERE {PEOPLE} {"" if only is None else "AND c.id = ANY(:only)"}
        ORDER BY c.id
        """,
        {**scope.parameters, "first": first_id, "last": last_id, "only": only},
    ).all()
    owed, assessor, special = Owed(), Assessor(tariff), []
    prices = _Prices(tariff, assessor, scope, owed)
    flat = prices.flat
    for person, category, base, is_special, is_billed in rows:
        if is_special:
            special.append(person)
            continue
        try:
            place = flat[category] if category in flat else prices.place_for(category, base)
        except Unusable as error:
            if is_billed:
                owed.already += 1
            else:
                owed.left_out.append(LeftOut(person, str(error)))
            continue
        if place is None:
            continue
        if is_billed:
            owed.already += 1
        else:
            owed.people.append((person, place))
    if special:
        _add_special(session, assessor, scope, special, owed)
    return owed


def find_left_out(
    session: Session, tariff: Tariff, period: Period, *, category: str | None
) -> tuple[int, tuple[LeftOut, ...]]:
    """Return how many may owe a period, are not billed and cannot be priced, and the first of them.

    Asked of all as they are now, whoever did the spans. Each base is priced once; only people with
    one that cannot be, and who did several things, are looked at one by one. Changes nothing.
    """
    scope = Scope.of(session, tariff, period, category)
    execute(session, "SET LOCAL jit = off")
    everybody = {**scope.parameters, "first": 0, "last": ID_MAX}
    bases = session.connection().execute(
        sa.text(
            f"WITH {SPECIAL} SELECT DISTINCT category_code, category_base_minor"
            f" FROM contributor c WHERE {PEOPLE} AND category_code = ANY(:categories)"
        ),
        everybody,
        execution_options={"yield_per": CHUNK},
    )
    prices = _Prices(tariff, Assessor(tariff), scope, Owed())
    refused = [(code, base) for code, base in bases if not prices.can_be_told(code, base)]
    asked = {
        "codes": [code for code, _ in refused],
        "bases": [-1 if base is None else base for _, base in refused],
        "size": CHUNK,
    }
    left_out: list[LeftOut] = []
    count, after = 0, 0
    while True:
        ids = execute(
            session,
            f"""
            WITH {SPECIAL} SELECT c.id FROM contributor c WHERE {PEOPLE} AND ({IS_SPECIAL}
                OR (c.category_code, coalesce(c.category_base_minor, -1)) IN (SELECT code, base
                    FROM unnest(CAST(:codes AS text[]), CAST(:bases AS bigint[])) AS r (code, base))
            ) AND NOT EXISTS (
                SELECT FROM invoice WHERE contributor_id = c.id AND {BILLED} OFFSET 0)
            ORDER BY c.id LIMIT :size
            """,
            {**everybody, **asked, "first": after + 1},
        ).scalars()
        found = list(ids)
        if not found:
            return count, tuple(left_out)
        owed = find_owed(session, tariff, scope, found[0], found[-1], found)
        count += len(owed.left_out)
        owed.left_out.sort(key=lambda each: each.contributor_id)
        left_out += owed.left_out[: NAMED_MAX - len(left_out)]
        after = found[-1]


class _Prices:
    """What each category and base owes for the period, asked once for each band.

    People have as many bases as there are people, and all of a band owe the same.
    """

    def __init__(self, tariff: Tariff, assessor: Assessor, scope: Scope, owed: Owed) -> None:
        self._assessor = assessor
        self._period = scope.period
        self._owed = owed
        self._scales = {
            category.code: in_force(category.scale, scope.period.starts_on)
            for category in map(tariff.of, scope.codes)
            if category.scale and category.first_period.starts_on <= scope.period.starts_on
        }
        self._gone = frozenset(scope.gone)
        self._places: dict[tuple[str, int], int | None] = {}
        self.flat: dict[str, int | None] = {}
        """The places of categories that owe the same whatever the base, once they were asked."""

    def place_for(self, category: str, base_minor: int | None) -> int | None:
        """Return the place of what is owed; None if it is nothing.

        Raises:
            Unusable: A base is needed and absent, or outside every band, or the tariff has no such
                category.
        """
        if category in self._gone:
            raise Unusable(f"The tariff has no category {category!r} any more.")
        place = self._place(category, base_minor)
        if category not in self._scales:
            self.flat[category] = place
        return place

    def can_be_told(self, category: str, base_minor: int | None) -> bool:
        """Say whether a category and base can be priced, if only at nothing."""
        try:
            self.place_for(category, base_minor)
        except Unusable:
            return False
        return True

    def _place(self, category: str, base_minor: int | None) -> int | None:
        scale = self._scales.get(category)
        band = scale.band_of(base_minor) if scale and base_minor is not None else None
        # The last band has no edge, others one above 0; what has no band must not be taken for it.
        key = (category, -1 if band is None else band.edge or 0)
        if key in self._places:
            return self._places[key]
        line = self._assessor.price(category, base_minor, self._period)
        place = self._owed.place(category, line) if isinstance(line, DueLine) else None
        self._places[key] = place
        return place


def _add_special(
    session: Session, assessor: Assessor, scope: Scope, people: Sequence[int], owed: Owed
) -> None:
    """Assess people one by one, and add those who owe the period in the scope's categories."""
    found = read_people(session, people)
    owners = {file: person for person, one in found.items() for file in one.files}
    billed = execute(
        session,
        f"SELECT contributor_id FROM invoice WHERE contributor_id = ANY(:files) AND {BILLED}",
        {**scope.parameters, "files": list(owners)},
    )
    barred = {owners[file] for file in billed.scalars()}
    asked = {*scope.codes, *scope.gone}
    for person in people:
        files = list(found[person].files.values())
        try:
            assessed = assessor.period(files, scope.period)
        except Unusable as error:
            if _did_any(files, asked, scope.period):
                if person in barred:
                    owed.already += 1
                else:
                    owed.left_out.append(LeftOut(person, str(error)))
            continue
        if not isinstance(assessed, Assessed) or assessed.category not in scope.codes:
            continue
        if person in barred:
            owed.already += 1
        else:
            owed.people.append((person, owed.place(assessed.category, assessed.line)))


def _did_any(files: Sequence[PersonFacts], categories: Set[str], period: Period) -> bool:
    """Say whether a person did something of these categories in a period."""
    return any(
        did.category in categories
        and did.since <= period.ends_on
        and (did.until is None or did.until >= period.starts_on)
        for did in everything_done(files)
    )


def assess_person(
    session: Session, tariff: Tariff, contributor_id: int, period: Period
) -> Assessed | NotOwed:
    """Return what a person owes for a period by all that is known of them, or why nothing.

    Keeps re-assessments and merges of files waiting until the caller's transaction ends: one in
    between would see no invoice to put right, and `issue_one` would bill what was true before.

    Raises:
        Unusable: There is no such person, or a base cannot be priced.
    """
    take_turns(session, period)
    person = read_people(session, [contributor_id]).get(contributor_id)
    if person is None:
        raise Unusable("No such contributor, or the file of one who has another that stands.")
    return Assessor(tariff).period(list(person.files.values()), period)
