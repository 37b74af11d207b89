"""Kinds of several payments, several debts, and none at all; see `ledger_kinds`."""

from __future__ import annotations

from datetime import timedelta

from tests.reconciliation import people
from tests.reconciliation.ledger_kinds import (
    AGAIN,
    LIKE,
    MAYBE,
    NOBODY,
    OPEN,
    THESE,
    kind,
)
from tests.reconciliation.ledger_maker import Maker
from tests.reconciliation.ledger_rows import Record


@kind("instalments:plain")
def instalments(m: Maker, what: str, debt: Record) -> None:
    record = m.post(debt)
    for part in m.parts(debt.amount_minor):
        day = debt.posted_on - timedelta(days=m.rng.randint(0, 40))
        m.pay(what, debt, THESE, record, amount_minor=part, paid_on=day)


@kind("instalments:one_in_text")
def instalments_in_text(m: Maker, what: str, debt: Record) -> None:
    record, text = m.post(debt), people.in_text(m.rng, debt.reference)
    for part in m.parts(debt.amount_minor):
        m.pay(what, debt, THESE, record, amount_minor=part, reference=text)
        text = debt.reference


@kind("instalments:one_slip")
def instalments_one_slip(m: Maker, what: str, debt: Record) -> None:
    """The slip's own payer says who he is."""
    record, who = m.post(debt), m.known(debt)
    for n, part in enumerate(m.parts(debt.amount_minor)):
        text = people.adjacent(m.rng, debt.reference) if n == 0 else debt.reference
        m.pay(what, debt, THESE, record, amount_minor=part, reference=text, **who)


@kind("instalments:one_slip_unknown")
def instalments_one_slip_unknown(m: Maker, what: str, debt: Record) -> None:
    """The slip leads to one record only, and the sum is what is owed."""
    record, text = m.post(debt), people.substitution(m.rng, debt.reference)
    for part in m.parts(debt.amount_minor):
        m.pay(what, debt, THESE, record, amount_minor=part, reference=text)
        text = debt.reference


@kind("instalments:all_slip")
def instalments_all_slip(m: Maker, what: str, debt: Record) -> None:
    """The payer keeps a wrong reference, and pays by it each time."""
    record, text = m.post(debt), people.substitution(m.rng, debt.reference)
    for part in m.parts(debt.amount_minor):
        m.pay(what, debt, THESE, record, amount_minor=part, reference=text)


@kind("instalments:one_without")
def instalments_one_without(m: Maker, what: str, debt: Record) -> None:
    """The rest is paid by the payer's number alone."""
    record, who, text = m.post(debt), m.known(debt), debt.reference
    for part in m.parts(debt.amount_minor)[:2]:
        m.pay(what, debt, THESE, record, amount_minor=part, reference=text, **who)
        text = ""
    record.amount_minor = sum(p.amount_minor for p in m.ledger.payments[-2:])


@kind("instalments:no_reference")
def instalments_no_reference(m: Maker, what: str, debt: Record) -> None:
    record, who = m.post(debt), m.known(debt)
    for part in m.parts(debt.amount_minor):
        m.pay(what, debt, THESE, record, amount_minor=part, reference="", **who)


@kind("instalments:unfinished")
def instalments_unfinished(m: Maker, what: str, debt: Record) -> None:
    m.post(debt)
    for part in m.parts(debt.amount_minor)[1:]:
        m.pay(what, debt, OPEN, amount_minor=part)


@kind("clerk:posted_in_parts")
def posted_in_parts(m: Maker, what: str, debt: Record) -> None:
    """One payment, posted as principal and penalty under one reference."""
    first = debt.amount_minor * m.rng.choice([90, 97, 99]) // 100
    parts = [m.post(debt, amount_minor=a) for a in (first, debt.amount_minor - first)]
    m.pay(what, debt, THESE, *parts)


@kind("clerk:posted_twice")
def posted_twice(m: Maker, what: str, debt: Record) -> None:
    m.post(debt)
    m.pay(what, debt, LIKE, m.post(debt))


@kind("clerk:posted_again")
def posted_again(m: Maker, what: str, debt: Record) -> None:
    """Taken back by a negative record, and posted again."""
    m.post(debt)
    m.post(debt, amount_minor=-debt.amount_minor)
    m.pay(what, debt, LIKE, m.post(debt, posted_on=debt.posted_on + timedelta(days=2)))


@kind("clerk:posted_right_later")
def posted_right_later(m: Maker, what: str, debt: Record) -> None:
    """Posted with a wrong amount, taken back, and posted rightly."""
    wrong = debt.amount_minor + m.rng.choice([-1_000, 5_000, 10])
    m.post(debt, amount_minor=wrong)
    m.post(debt, amount_minor=-wrong)
    m.pay(what, debt, THESE, m.post(debt))


@kind("clerk:taken_back")
def taken_back(m: Maker, what: str, debt: Record) -> None:
    m.post(debt)
    m.post(debt, amount_minor=-debt.amount_minor)
    m.pay(what, debt, OPEN)


def _at_once(m: Maker, debt: Record) -> tuple[list[Record], int]:
    """Post two to four months of one person; they and what they come to."""
    debts = [debt, *m.others(debt, m.rng.choice([1, 2, 3]))]
    records = [m.post(each) for each in debts]
    return records, sum(r.amount_minor for r in records)


@kind("months:first_reference")
def months_first_reference(m: Maker, what: str, debt: Record) -> None:
    records, amount = _at_once(m, debt)
    m.pay(what, debt, THESE, *records, amount_minor=amount)


@kind("months:first_reference_slip")
def months_first_reference_slip(m: Maker, what: str, debt: Record) -> None:
    records, amount = _at_once(m, debt)
    slip = people.adjacent(m.rng, debt.reference)
    m.pay(what, debt, THESE, *records, amount_minor=amount, reference=slip, **m.known(debt))


@kind("months:references_in_text")
def months_in_text(m: Maker, what: str, debt: Record) -> None:
    records, amount = _at_once(m, debt)
    between = m.rng.choice([" ", " et ", " / ", "+", ", ", ";"])
    text = between.join(r.reference for r in records)
    m.pay(what, debt, THESE, *records, amount_minor=amount, reference=text)


@kind("months:one_slip_in_text")
def months_one_slip_in_text(m: Maker, what: str, debt: Record) -> None:
    records, amount = _at_once(m, debt)
    texts = [r.reference for r in records]
    if len(texts) > 1:
        texts[-1] = people.substitution(m.rng, texts[-1])
    text = "AMO " + " ".join(texts)
    m.pay(what, debt, THESE, *records, amount_minor=amount, reference=text)


@kind("months:mentioned")
def months_mentioned(m: Maker, what: str, debt: Record) -> None:
    """Two references, the older one settled by a payment of its own."""
    older, record = m.others(debt, 1), m.post(debt)
    for each in older:
        m.pay(what, each, THESE, m.post(each))
    text = " ".join([debt.reference, *(each.reference for each in older)])
    m.pay(what, debt, THESE, record, reference=text)


@kind("months:no_reference")
def months_no_reference(m: Maker, what: str, debt: Record) -> None:
    """All that the person has left, by his number."""
    debts = [debt, *m.others(debt, 3)]
    records = [m.post(each) for each in debts]
    amount = sum(r.amount_minor for r in records)
    m.pay(what, debt, LIKE, *records, amount_minor=amount, reference="", **m.known(debt))


@kind("household:references_in_text")
def household_in_text(m: Maker, what: str, debt: Record) -> None:
    records = [m.post(each) for each in [debt, *m.household(debt, 3)]]
    text = "AMO famille " + " ".join(r.reference for r in records)
    amount = sum(r.amount_minor for r in records)
    m.pay(what, debt, THESE, *records, amount_minor=amount, reference=text)


@kind("household:first_reference")
def household_first_reference(m: Maker, what: str, debt: Record) -> None:
    """Nothing says for whom the rest is."""
    records = [m.post(each) for each in [debt, *m.household(debt, 2)]]
    amount = sum(r.amount_minor for r in records)
    m.pay(what, debt, MAYBE, *records, amount_minor=amount)


@kind("twice:two_channels")
def twice(m: Maker, what: str, debt: Record) -> None:
    record = m.post(debt)
    m.pay("exact", debt, THESE, record)
    day = debt.posted_on - timedelta(days=m.rng.randint(0, 6))
    m.pay(what, debt, AGAIN, record, channel="wallet", paid_on=day)


@kind("twice:with_a_slip")
def twice_with_slip(m: Maker, what: str, debt: Record) -> None:
    record, slip = m.post(debt), people.substitution(m.rng, debt.reference)
    m.pay("exact", debt, THESE, record)
    m.pay(what, debt, AGAIN, record, reference=slip)


@kind("twice:both_with_a_slip")
def twice_both_slip(m: Maker, what: str, debt: Record) -> None:
    record, slip = m.post(debt), people.substitution(m.rng, debt.reference)
    m.pay(what, debt, THESE, record, reference=slip)
    m.pay(what, debt, AGAIN, record, reference=slip)


@kind("twice:without_reference")
def twice_without_reference(m: Maker, what: str, debt: Record) -> None:
    record = m.post(debt)
    m.pay("exact", debt, THESE, record)
    for other in m.others(debt, 3):
        m.pay("exact", other, THESE, m.post(other))
    m.pay(what, debt, AGAIN, record, reference="", **m.known(debt))


@kind("twice:old_reference")
def old_reference(m: Maker, what: str, debt: Record) -> None:
    """Last month's reference for this month's due: the payer named a settled debt. To move the
    money to another debt is a decision: he may have paid twice, and this month be unpaid.
    """
    record = m.post(debt)
    m.pay("exact", debt, THESE, record)
    for other in m.others(debt, 1):
        m.post(other)
        m.pay(what, other, AGAIN, record, reference=debt.reference, **m.known(debt))


@kind("open:unpaid")
def unpaid(m: Maker, what: str, debt: Record) -> None:
    m.post(debt)


@kind("open:stranger")
def stranger(m: Maker, what: str, debt: Record) -> None:
    """A payment that the institution has not posted, for a reference it does not have."""
    m.pay(what, debt, OPEN)


@kind("open:stranger_no_reference")
def stranger_no_reference(m: Maker, what: str, debt: Record) -> None:
    for other in m.others(debt, 3):
        m.pay("exact", other, THESE, m.post(other))
    m.pay(what, debt, OPEN, reference="", **m.known(debt))


@kind("open:noise")
def noise(m: Maker, what: str, debt: Record) -> None:
    text = str(m.rng.randint(10**9, 10**13))
    m.pay(what, debt, OPEN, reference=text, **NOBODY)


@kind("open:other_month")
def other_month(m: Maker, what: str, debt: Record) -> None:
    """This month is paid and not posted; another of the same payer is posted and not paid."""
    for other in m.others(debt, 1):
        m.post(other)
    m.pay(what, debt, OPEN, **m.known(debt))


@kind("open:namesake")
def namesake(m: Maker, what: str, debt: Record) -> None:
    """Somebody of the same name, amount and day is unpaid; the payment is another's."""
    m.post(debt)
    who = {**NOBODY, "name": m.people[debt.owner].name}
    m.pay(what, debt, OPEN, reference="", **who)


@kind("open:brother")
def brother(m: Maker, what: str, debt: Record) -> None:
    """The card numbers of two brothers differ in a digit; one is unpaid, one is not posted."""
    person = m.people[debt.owner]
    card = person.cin[:-1] + str((int(person.cin[-1]) + 5) % 10)
    given = m.rng.choice([g for g in people.GIVEN if g != person.given])[0]
    m.post(debt)
    who = {"cnss_number": "", "cin": card, "name": f"{given} {person.family[0]}"}
    m.pay(what, debt, OPEN, reference="", **who)


@kind("open:brother_same_day")
def brother_same_day(m: Maker, what: str, debt: Record) -> None:
    """Another one-digit-apart card, and a reference that is a slip of nobody's."""
    person = m.people[debt.owner]
    card = person.cin[:-1] + str((int(person.cin[-1]) + 5) % 10)
    text = str(m.rng.randint(10**11, 10**12 - 1))
    m.post(debt)
    who = {"cnss_number": "", "cin": card, "name": f"Allal {person.family[0]}"}
    m.pay(what, debt, OPEN, reference=text, **who)
