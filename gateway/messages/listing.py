"""What messages there are, for whoever runs this: no texts, and nobody's name or number."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from gateway.db import execute


def list_messages(session: Session, *, state: str | None, limit: int) -> dict[str, Any]:
    """Return the last messages, and how many there are by kind and state, with their parts."""
    rows = execute(
        session,
        "SELECT id, kind, state, because, made_at, sent_at, parts, tries FROM message"
        " WHERE CAST(:state AS text) IS NULL OR state = :state ORDER BY id DESC LIMIT :most",
        {"state": state, "most": limit},
    ).mappings()
    counts = execute(
        session,
        "SELECT kind, state, count(*) AS count, coalesce(sum(parts), 0) AS parts FROM message"
        " WHERE CAST(:state AS text) IS NULL OR state = :state GROUP BY 1, 2 ORDER BY 1, 2",
        {"state": state},
    ).mappings()
    return {
        "messages": [
            {
                **row,
                "id": str(row["id"]),
                "made_at": row["made_at"].isoformat(),
                "sent_at": row["sent_at"] and row["sent_at"].isoformat(),
            }
            for row in rows
        ],
        "counts": [dict(row) for row in counts],
    }
