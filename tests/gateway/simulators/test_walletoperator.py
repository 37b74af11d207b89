"""The wallet's operator by itself: how long an order may be paid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.simulators.walletoperator import ORDER_LIFE, REFUSED_LIFE, Operator, Order, Wrong

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MOMENT = timedelta(seconds=1)


class Hands:
    """A clock that is set."""

    now = NOON

    def __call__(self) -> datetime:
        return self.now


def an_order(operator: Operator, *, refused: bool) -> Order:
    operator.begin(
        {"order_id": "1-1", "reference": "1", "amount": "10.00", "notif_url": "http://[::1]:1/"}
    )
    order = operator.find("1")
    if refused:
        operator.settle(order, paid=False)
    return order


@pytest.mark.parametrize(
    ("refused", "life"), [(False, ORDER_LIFE), (True, ORDER_LIFE + REFUSED_LIFE)]
)
def test_an_order_may_be_paid_until_it_expires(refused: bool, life: timedelta) -> None:
    clock = Hands()
    operator = Operator(clock=clock)
    order = an_order(operator, refused=refused)
    clock.now = NOON + life + MOMENT
    with pytest.raises(Wrong, match="it is EXPIRED already"):
        operator.settle(order, paid=True)
    said = {"order_id": "1-1", "amount": "10.00", "pay_token": order.pay_token}
    assert operator.status(said)["status"] == "EXPIRED"
    clock.now = NOON
    operator = Operator(clock=clock)
    order = an_order(operator, refused=refused)
    clock.now = NOON + life
    operator.settle(order, paid=True)
    assert order.status == "SUCCESS"
