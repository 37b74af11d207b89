"""Why amounts are as they are, kept once for all lines and notes that say the same."""

from __future__ import annotations

import json
from collections.abc import Iterable

from sqlmodel import Session

from gateway.db import execute
from gateway.dues.principal import DueLine

Why = tuple[str, str, bool]
"""Rule, source, and whether the source was seen."""


def why_of(line: DueLine) -> Why:
    """Return by what a line's rule is known."""
    return line.rule, line.source, line.verified


def keep_rules(session: Session, lines: Iterable[DueLine]) -> dict[Why, int]:
    """Keep the rules of lines that are not kept yet; return the id of each by `why_of`.

    The caller owns the transaction.
    """
    # Always in one order, so that two who keep the same new rules do not wait in a ring.
    known = {why_of(line): line for line in lines}
    by_why = {why: known[why] for why in sorted(known)}
    rows = [
        {"rule": rule, "source": source, "verified": verified, "facts": dict(line.facts)}
        for (rule, source, verified), line in by_why.items()
    ]
    if not rows:
        return {}
    given = "jsonb_to_recordset(CAST(:rows AS jsonb)) AS given"
    values = {"rows": json.dumps(rows)}
    execute(
        session,
        "INSERT INTO rule (rule, source, verified, facts)"
        f" SELECT rule, source, verified, facts FROM {given}"
        " (rule text, source text, verified boolean, facts jsonb) ON CONFLICT DO NOTHING",
        values,
    )
    found = execute(
        session,
        "SELECT rule, source, verified, id FROM rule"
        f" JOIN {given} (rule text, source text, verified boolean) USING (rule, source, verified)",
        values,
    )
    return {(rule, source, verified): at for rule, source, verified, at in found}
