from __future__ import annotations

from gateway.soak import giving_back
from gateway.soak.giving_back import Giver, read_given_back


def test_the_journal_says_what_each_payment_must_come_to() -> None:
    lines = [
        {
            "line": "given_back",
            "deed": deed,
            "provider": "stripe",
            "payment_id": f"pi_{number}",
            "net_minor": outcome(100, 40)[0],
            "planted": outcome(100, 40)[1],
        }
        for number, (deed, outcome) in enumerate(giving_back._OUTCOMES.items())
    ]
    found = read_given_back(lines)
    assert all(hasattr(Giver, f"_{deed}") for deed in found.deeds)
    assert found.planted == {"refund_failed": 2}
    by_deed = {line["deed"]: found.net["stripe", line["payment_id"]] for line in lines}  # type: ignore[index]
    assert by_deed["refund"] == by_deed["by_hand"] == by_deed["dispute_lost"] == 60
    assert by_deed["refund_fails"] == by_deed["bounces"] == by_deed["refused"] == 100
    assert by_deed["reversed"] == by_deed["raced"] == by_deed["refund_all"] == 0
