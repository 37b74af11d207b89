"""What refunds and disputes give back: whatever order, however often, it comes to the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.books.kinds import GIVES_BACK, TransferKind, kind_of
from gateway.collection.reports import ReturnReport
from gateway.collection.returns import Return, given_back_minor, hear, parts_of, within
from gateway.models import ReturnKind, ReturnState
from tests.factories import NOON

GIVEN, RESTORED, ANNOUNCED = ReturnState.GIVEN, ReturnState.RESTORED, ReturnState.ANNOUNCED
REFUND, TOTAL, DISPUTE = ReturnKind.REFUND, ReturnKind.REFUND_TOTAL, ReturnKind.DISPUTE


def said(
    kind: ReturnKind,
    amount_minor: int,
    state: ReturnState = GIVEN,
    *,
    at: int = 0,
    made: int | None = None,
    named: str = "r1",
    outcome: str | None = None,
) -> ReturnReport:
    """Return a report stated so many seconds after noon."""
    made_at = NOON + timedelta(seconds=at if made is None else made)
    return ReturnReport(
        provider="stripe",
        provider_payment_id="pi_1",
        return_id=named,
        kind=kind,
        state=state,
        amount_minor=amount_minor,
        currency="MAD",
        made_at=made_at,
        stated_at=NOON + timedelta(seconds=at),
        received_at=NOON + timedelta(hours=1),
        source="delivery:stripe/evt_1",
        outcome=outcome,
    )


def after(*reports: ReturnReport) -> int:
    """Return what is given back after these, in this order."""
    known: dict[tuple[ReturnKind, str], Return] = {}
    for report in reports:
        at = (report.kind, report.return_id)
        known[at], _ = hear(known.get(at), report)
    return given_back_minor(known.values())


@pytest.mark.parametrize(
    ("reports", "minor"),
    [
        ([said(TOTAL, 50)], 50),
        ([said(TOTAL, 50, at=1), said(TOTAL, 80, at=2)], 80),
        ([said(TOTAL, 50), said(REFUND, 50, made=0)], 50),
        ([said(REFUND, 50, named="a"), said(REFUND, 30, named="b", at=2)], 80),
        # The sum of the first came, that of the second was lost.
        ([said(REFUND, 50, named="a"), said(TOTAL, 50), said(REFUND, 30, named="b", at=2)], 80),
        ([said(TOTAL, 50, at=1), said(REFUND, 50, RESTORED, at=9, made=0)], 0),
        # A refund that failed, one that was only ever in the sum: the latter stands.
        ([said(TOTAL, 80, at=2), said(REFUND, 30, RESTORED, at=9, made=1, named="b")], 50),
        # It failed before the sum was stated, so the sum does not hold it.
        ([said(REFUND, 30, RESTORED, at=3, made=1, named="b"), said(TOTAL, 50, at=5)], 50),
        ([said(DISPUTE, 90, ANNOUNCED)], 0),
        ([said(DISPUTE, 90, ANNOUNCED), said(DISPUTE, 90, at=1)], 90),
        ([said(DISPUTE, 90, at=1), said(DISPUTE, 90, RESTORED, at=2, outcome="won")], 0),
        ([said(DISPUTE, 90, at=1, named="d"), said(TOTAL, 20)], 110),
        # A failure that is stated again, after a later sum, is not taken off that one.
        (
            [
                said(REFUND, 50, RESTORED, at=3, made=1, named="a"),
                said(TOTAL, 30, at=5),
                said(REFUND, 50, RESTORED, at=9, made=1, named="a"),
            ],
            30,
        ),
        # One that failed in the second of its sum.
        ([said(TOTAL, 50, at=1), said(REFUND, 50, RESTORED, at=1)], 0),
        # What is said again of an old state, later, moves nothing.
        ([said(DISPUTE, 90, at=1), said(DISPUTE, 90, ANNOUNCED, at=5)], 90),
    ],
)  # fmt: skip
def test_what_is_given_back_in_any_order_and_said_twice(
    reports: list[ReturnReport], minor: int
) -> None:
    for order in permutations(reports):
        assert after(*order) == minor
        assert after(*order, *order) == minor


def test_an_amount_under_one_id_is_a_fact() -> None:
    known, contradicts = hear(None, said(REFUND, 50))
    assert not contradicts
    heard, contradicts = hear(known, said(REFUND, 60, at=1))
    assert contradicts
    assert heard.amount_minor == 50


def test_a_dispute_ends_once() -> None:
    known, _ = hear(None, said(DISPUTE, 90, at=1, outcome="lost"))
    heard, _ = hear(known, said(DISPUTE, 90, ANNOUNCED, at=0))
    assert heard.outcome == "lost"
    assert not heard.is_open_dispute


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[ReturnReport], list[ReturnReport], int]:
    """Refunds that are made and fail, at seconds of their own: by id, as sums, and the truth."""
    by_id: list[ReturnReport] = []
    sums: list[ReturnReport] = []
    standing: dict[str, tuple[int, int]] = {}
    for at in range(draw(st.integers(1, 8))):
        fails: bool = draw(st.booleans())
        if standing and fails:
            named = draw(st.sampled_from(sorted(standing)))
            made, amount = standing.pop(named)
            by_id.append(said(REFUND, amount, RESTORED, at=at, made=made, named=named))
        else:
            amount = draw(st.integers(1, 100))
            standing[f"r{at}"] = (at, amount)
            by_id.append(said(REFUND, amount, at=at, named=f"r{at}"))
            total = sum(amount for _, amount in standing.values())
            sums.append(said(TOTAL, total, at=at, named="pi_1"))
    return by_id, sums, sum(amount for _, amount in standing.values())


@settings(max_examples=300)
@given(story=stories(), data=st.data())
def test_any_sums_beside_what_is_known_by_id_change_nothing(
    story: tuple[list[ReturnReport], list[ReturnReport], int], data: st.DataObject
) -> None:
    """Sums may be lost, late or doubled: each refund by its id says all."""
    by_id, sums, truth = story
    heard = [s for s in sums if data.draw(st.booleans())]
    told = data.draw(st.permutations([*by_id, *heard, *heard]))
    assert after(*told) == truth


@given(amounts=st.lists(st.integers(1, 100), min_size=1, max_size=6), data=st.data())
def test_sums_alone_say_all_where_nothing_fails(amounts: list[int], data: st.DataObject) -> None:
    sums = [said(TOTAL, sum(amounts[: n + 1]), at=n, named="pi_1") for n in range(len(amounts))]
    told = data.draw(st.permutations(sums))
    assert after(*told) == sum(amounts)


def test_a_later_word_of_the_same_state_is_kept() -> None:
    """So that what came in between does not count as newer."""
    known, _ = hear(None, said(REFUND, 50, at=0))
    again, _ = hear(known, said(REFUND, 50, at=9))
    assert again == replace(known, stated_at=NOON + timedelta(seconds=9))
    assert isinstance(again.stated_at, datetime)


@given(
    parts=st.tuples(*[st.integers(0, 100)] * 3),
    most=st.integers(1, 200),
    older=st.integers(0, 100),
)
def test_what_is_given_back_is_told_apart_and_fits_into_what_came_in(
    parts: tuple[int, int, int], most: int, older: int
) -> None:
    said = dict(zip(GIVES_BACK, parts, strict=True))
    fits = within(said, most)
    assert sum(fits.values()) == min(sum(parts), most)
    assert all(fits[kind] <= said[kind] for kind in said)
    assert parts_of(fits, fits) == fits
    # Books of before did not tell refunds and disputes apart: what fits is not posted anew.
    charged_back = min(older, fits[TransferKind.CHARGEBACK])
    before = {**fits, TransferKind.CHARGEBACK: fits[TransferKind.CHARGEBACK] - charged_back}
    assert parts_of({**before, TransferKind.RETURNED: charged_back}, fits) == fits


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("invoice", "received"),
        ("invoice/12", "received"),
        ("credit/refund/3", "refund"),
        ("invoice/12/refund_failed/4", "refund_failed"),
        ("suspense/refund_by_hand/1", "refund_by_hand"),
        ("invoice/chargeback/2/reversed", "reversal"),
        ("moved/12/1", "moved"),
        ("moved/12/1/reversed", "reversal"),
        ("invoice/returned/1", "returned"),
    ],
)
def test_the_name_of_a_transfer_says_its_kind(name: str, kind: str) -> None:
    # Whatever the provider calls its payment.
    for payment in ("stripe/pi_1", "cashplus/x/chargeback/1", "cashplus/reversed"):
        assert kind_of(f"{payment}/{name}", payment) == kind
