from __future__ import annotations

from datetime import timedelta
from email.utils import format_datetime

import pytest

from tests.factories import NOON
from webhooks.guarded import Answered
from webhooks.outbound.schedule import (
    DELAYS,
    GONE,
    WAIT_SECONDS_MAX,
    Failed,
    Later,
    NoMore,
    after,
    judge,
)


def test_the_table_is_that_of_the_specification_with_jitter_upward_only() -> None:
    hour = 3600
    table = (
        *(0, 5, 300, 1800, 2 * hour, 5 * hour),
        *(10 * hour, 14 * hour, 20 * hour, 24 * hour),
    )
    assert table == DELAYS
    for attempts, delay in enumerate(DELAYS[1:], start=1):
        for chance, most in ((0.0, 1.0), (1.0, 1.2)):
            assert after(Failed("x"), attempts, chance=iter([chance]).__next__) == Later(
                delay * most
            )
    assert isinstance(after(Failed("x"), len(DELAYS)), NoMore)
    assert after(Failed("x", 410), 1) == NoMore(GONE)


@pytest.mark.parametrize(
    ("status", "said", "seconds"),
    [
        (429, "120", 120),
        (503, "120", 120),
        (503, format_datetime(NOON + timedelta(minutes=2)), 120),
        (503, "Wed, 18 Nov 2026 12:02:00 GMT", 120),
        (503, "Wed, 18 Nov 2026 12:02:00 -0000", 120),
        (503, "Wed, 18 Nov 2026 11:02:00 GMT", 0),
        (503, "Fri, 31 Dec 9999 23:59:59 GMT", WAIT_SECONDS_MAX),
        (503, "9" * 5_000, WAIT_SECONDS_MAX),
        (503, "99999999", WAIT_SECONDS_MAX),
        (503, "-5", 0),
        (503, "soon", 0),
        (503, "١٢٠", 0),
        (503, "x" * 5_000, 0),
        (503, None, 0),
        (500, "120", 0),
    ],
)
def test_a_receiver_puts_us_off_within_bounds(
    status: int, said: str | None, seconds: float
) -> None:
    failed = judge(Answered(status, said), NOON)
    assert failed is not None
    assert failed.retry_after == seconds
    # Never sooner than the table says.
    assert after(failed, 1, chance=lambda: 0.0) == Later(max(5.0, seconds))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_taken(status: int) -> None:
    assert judge(Answered(status, None), NOON) is None


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410, 500, 199, 600])
def test_nothing_else_is(status: int) -> None:
    assert judge(Answered(status, None), NOON) is not None
