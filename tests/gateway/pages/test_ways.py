from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.institution import Way, institution
from gateway.models import Channel
from gateway.pages.ways import Ceiling, ceiling_for, ways_to_pay

CEILINGS = (20_000, 500_000, 2_000_000)


def a_wallet(fee_minor: int | None = None, *, ceilings: tuple[int, ...] = CEILINGS) -> Way:
    return Way.model_construct(
        channel=Channel.WALLET,
        fee=fee_minor,
        ceilings=ceilings,
        ceilings_verified=True,
        source="a test",
        verified=False,
    )


@pytest.mark.parametrize(
    ("due_minor", "ceiling"),
    [
        (1, Ceiling(1, 20_000, None, verified=True)),
        (20_000, Ceiling(1, 20_000, None, verified=True)),
        (20_001, Ceiling(2, 500_000, 20_000, verified=True)),
        (500_001, Ceiling(3, 2_000_000, 500_000, verified=True)),
        (2_000_000, Ceiling(3, 2_000_000, 500_000, verified=True)),
        (2_000_001, Ceiling(None, 2_000_000, None, verified=True)),
    ],
)
def test_the_level_that_an_amount_needs_is_named(due_minor: int, ceiling: Ceiling) -> None:
    assert ceiling_for(a_wallet(), due_minor) == ceiling


def test_a_known_fee_needs_room_too() -> None:
    assert ceiling_for(a_wallet(150), 20_000) == Ceiling(2, 500_000, 20_000, verified=True)


def test_only_what_is_above_every_ceiling_and_confirmed_cannot_be_paid_so() -> None:
    doubted = a_wallet().model_copy(update={"ceilings_verified": False})
    for due, confirmed in ((2_000_000, True), (2_000_001, False)):
        [sure], [unsure] = (ways_to_pay([way], due) for way in (a_wallet(), doubted))
        assert (sure.fits, unsure.fits) == (confirmed, True)


def test_who_may_hold_it_in_one_of_two_ways_is_not_refused() -> None:
    small, large = a_wallet(ceilings=(20_000,)), a_wallet()
    for ways, due, ceiling in (
        ((small, large), 20_001, None),
        ((small, large), 2_000_001, 2_000_000),
        ((), 20_001, None),
    ):
        found = institution().model_copy(update={"way": ways})
        assert found.exceeded(Channel.WALLET, due) == ceiling


def test_where_nothing_limits_nothing_is_said() -> None:
    assert ceiling_for(a_wallet(ceilings=()), 10**9) is None


def test_ways_stay_in_their_order_with_their_fees() -> None:
    ways = [a_wallet(0), a_wallet(150), a_wallet(None)]
    assert [way.fee_minor for way in ways_to_pay(ways, 100)] == [0, 150, None]


@given(due=st.integers(1, 10**7), ceilings=st.lists(st.integers(1, 10**7), unique=True))
def test_the_level_suffices_and_the_one_beneath_does_not(due: int, ceilings: list[int]) -> None:
    rising = tuple(sorted(ceilings))
    found = ceiling_for(a_wallet(ceilings=rising), due)
    if found is None:
        assert not rising
    elif found.level is None:
        assert rising[-1] < due
        assert found.ceiling_minor == rising[-1]
    else:
        assert rising[found.level - 1] == found.ceiling_minor >= due
        assert found.too_low_minor is None or found.too_low_minor < due
