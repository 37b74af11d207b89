"""`wasl refunds`: money that we give back, asked by one person and approved by another.

Here people are named by themselves: whoever has this machine's shell has the books' keys anyway.
Programs and people elsewhere have keys of their own (`/v1/refunds`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.cli.shared import database, json_flag, now, report, say_if_held
from gateway.errors import Unusable

if TYPE_CHECKING:
    from sqlmodel import Session

    from gateway.collection.refunds import Shown

_ID = click.argument("refund_id", metavar="ID", type=click.IntRange(1, 2**62))
_BY = click.option("--by", required=True, help="Who says so: a name of `wasl staff add`.")
_WHY = click.option("--why", required=True, help="The reason, without names: it is kept.")
_SENTENCE = "Refund {id} of {amount} MAD ({provider}/{provider_payment_id}): {state}."
_OPEN = (
    "refund.ended_at IS NULL OR EXISTS (SELECT FROM coded_exception WHERE code = 'refund_failed'"
    " AND subject = 'refund:' || refund.id AND resolved_at IS NULL)"
)
"""Under way, or stopped or failed and still to be decided about."""
_NEXT: Final[dict[tuple[str, str | None], str]] = {
    ("asked", None): "another person says yes or no: wasl refunds approve {id} --why TEXT --by"
    " NAME, or wasl refunds refuse {id} --why TEXT --by NAME.",
    ("approved", "provider"): "the worker has {provider} make it (wasl up runs one); wasl refunds"
    " list says what became of it.",
    ("approved", "by_hand"): "transfer {amount} MAD, then: wasl refunds paid-out {id} --reference"
    " TEXT --by NAME.",
    ("sent", None): "{provider} says when it has arrived: that takes days.",
    ("dropped", None): "do not transfer it. Ask anew for what may still be given back, then resolve"
    " the exception refund_failed of refund:{id} (POST /v1/exceptions/ID/resolve).",
    ("failed", None): "the payer did not get it. Ask anew if it is still owed, then resolve the"
    " exception refund_failed of refund:{id} (POST /v1/exceptions/ID/resolve).",
}

_SHORT: Final = (
    "do not transfer it: only {left} MAD are left of the payment. wasl refunds refuse {id} --why"
    " TEXT --by NAME, and ask anew for what is left."
)


@click.group()
def refunds() -> None:
    """Give money back: asked by one person, approved by another."""


@refunds.command("ask")
@click.argument("payment", metavar="PROVIDER/PAYMENT")
@click.option(
    "--amount", default=None, help="Dirhams; if not given all that is left, also what pays debts."
)
@click.option("--by-hand", is_flag=True, help="Finance pays it out, even if the provider could.")
@_WHY
@_BY
@json_flag
def refunds_ask(
    payment: str, amount: str | None, by_hand: bool, why: str, by: str, as_json: bool
) -> None:
    """Ask that a payment, or a part of it, be given back.

    PROVIDER/PAYMENT is its name as exceptions and the provider say it: stripe/pi_3Q.
    """
    from gateway.models import RefundWay

    minor = None if amount is None else _centimes(amount)

    def act(session: Session) -> Shown:
        from gateway.collection.refunds import ask
        from gateway.process import providers
        from gateway.providers.refunding import refunding

        return ask(
            session,
            _payment(session, payment),
            minor,
            way=RefundWay.BY_HAND if by_hand else None,
            can_refund=refunding(providers()).__contains__,
            who=_person(session, by, "finance"),
            why=why,
            now=now(),
        )

    _do(act, as_json)


@refunds.command("approve")
@_ID
@_WHY
@_BY
@json_flag
def refunds_approve(refund_id: int, why: str, by: str, as_json: bool) -> None:
    """Approve what somebody else asked for: it is carried out from here."""

    def act(session: Session) -> Shown:
        from gateway.collection.refunds import approve

        who = _person(session, by, "admin", "approver")
        return approve(session, refund_id, who=who, why=why, now=now())

    _do(act, as_json)


@refunds.command("refuse")
@_ID
@_WHY
@_BY
@json_flag
def refunds_refuse(refund_id: int, why: str, by: str, as_json: bool) -> None:
    """Say no to a refund, or withdraw it, before anything is done."""

    def act(session: Session) -> Shown:
        from gateway.collection.refunds import refuse

        who = _person(session, by, "admin", "finance", "approver")
        return refuse(session, refund_id, who=who, why=why, now=now())

    _do(act, as_json)


@refunds.command("paid-out")
@_ID
@click.option("--reference", required=True, help="What the bank calls the transfer.")
@click.option(
    "--transferred-already",
    is_flag=True,
    help="The transfer had left the bank before the refund was stopped.",
)
@_BY
@json_flag
def refunds_paid_out(
    refund_id: int, reference: str, transferred_already: bool, by: str, as_json: bool
) -> None:
    """Say that an approved refund by hand was paid out."""

    def act(session: Session) -> Shown:
        from gateway.collection.refunds import paid_out
        from gateway.process import signing_key

        who = _person(session, by, "finance")
        return paid_out(
            session,
            refund_id,
            who=who,
            bank_reference=reference,
            transferred_already=transferred_already,
            key=signing_key(),
            now=now(),
        )

    _do(act, as_json)


@refunds.command("bounced")
@_ID
@_WHY
@_BY
@json_flag
def refunds_bounced(refund_id: int, why: str, by: str, as_json: bool) -> None:
    """Say that what was paid out by hand came back."""

    def act(session: Session) -> Shown:
        from gateway.collection.refunds import bounced
        from gateway.process import signing_key

        who = _person(session, by, "finance")
        return bounced(session, refund_id, who=who, why=why, key=signing_key(), now=now())

    _do(act, as_json)


@refunds.command("list")
@click.option("--payment", default=None, metavar="PROVIDER/PAYMENT", help="Only of this one.")
@click.option("--all", "everything", is_flag=True, help="All that were ever asked for.")
@json_flag
def refunds_list(payment: str | None, everything: bool, as_json: bool) -> None:
    """List refunds that are under way or that a person must decide about, and what comes next."""
    with database():
        from gateway.collection.refunds import read_shown
        from gateway.db import snapshot

        with snapshot() as session:
            wanted = "TRUE" if everything or payment else _OPEN
            asked: dict[str, Any] = {}
            if payment:
                wanted, asked = "refund.payment_id = :id", {"id": _payment(session, payment)}
            found = read_shown(session, f"{wanted} ORDER BY refund.id", asked)
        say_if_held()
    said = [each.as_json() for each in found]
    if as_json:
        click.echo(json.dumps({"refunds": said}))
        return
    for each in said:
        report(each, as_json, _SENTENCE + " {left} MAD are left. Asked by {asked_by}: {because}")
        for step in each["steps"][1:]:
            report(step, as_json, "  {taken_at:.19}Z  {state} by {taken_by}: {because}")
        _say_next(each)
    if not said:
        ended = "" if everything or payment else " wasl refunds list --all shows those that ended."
        click.echo(f"There is no refund{' under way.' if ended else '.'}{ended}")


def _do(act: Callable[[Session], Shown], as_json: bool) -> None:
    with database():
        from gateway.db import transaction

        with transaction() as session:
            shown = act(session)
        say_if_held()
    said = shown.as_json()
    report(said, as_json, _SENTENCE)
    if not as_json:
        _say_next(said)


def _say_next(said: dict[str, Any]) -> None:
    """Say what comes next of a refund, and by which command."""
    todo = _NEXT.get((said["state"], said["way"])) or _NEXT.get((said["state"], None))
    if said["state"] == "approved" and said["way"] == "by_hand" and _is_short(said):
        todo = _SHORT
    if todo:
        click.echo(f"  Next: {todo.format(**said)}")


def _is_short(said: dict[str, Any]) -> bool:
    """Say whether less is left of a payment than a refund of it is of.

    Such a refund is stopped as soon as that is heard, but not where it was heard by a version of
    Wasl that did not stop it.
    """
    from gateway.money import parse_amount

    return parse_amount(said["left"]) < parse_amount(said["amount"])


def _person(session: Session, name: str, *roles: str) -> str:
    """Return how a person is named beside what was decided.

    Raises:
        Unusable: There is nobody of this name, or the role may not.
    """
    from sqlmodel import select

    from gateway.models import Staff

    found = session.exec(select(Staff).where(Staff.name == name)).one_or_none()
    if found is None:
        raise Unusable(f"There is nobody named {name}: wasl staff add adds people.")
    if found.role.value not in roles:
        raise Unusable(f"The role {found.role.value} may not do this; it takes {', '.join(roles)}.")
    return f"staff {found.name}"


def _payment(session: Session, given: str) -> int:
    from gateway.db import execute

    # An exception's subject says what it is about.
    provider, _, named = given.removeprefix("payment:").partition("/")
    found = execute(
        session,
        "SELECT id FROM payment WHERE (provider, provider_payment_id) = (:provider, :named)",
        {"provider": provider, "named": named},
    ).scalar_one_or_none()
    if found is None:
        raise Unusable(
            f"There is no payment {given}: write it as provider/payment, as exceptions name it."
        )
    return int(found)


def _centimes(amount: str) -> int:
    from gateway.money import UnreadableAmount, parse_amount

    try:
        return parse_amount(amount)
    except UnreadableAmount as error:
        raise Unusable(f"--amount cannot be read: {error}.") from None
