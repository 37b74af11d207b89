"""What happens between a payer's debt and the two ledgers, kind by kind, with the truth of each.

A kind takes one debt (and others of the same person or household), posts what the institution
posts and pays what the payer pays. The first word of its name says where it comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from tests.reconciliation import people
from tests.reconciliation.ledger_maker import Kind, Maker
from tests.reconciliation.ledger_rows import Expect, Record
from tests.reconciliation.people import FORMS, PARTS, SLIPS, Change

THESE, LIKE, MAYBE = Expect.THESE, Expect.LIKE, Expect.MAYBE
OPEN, AGAIN = Expect.OPEN, Expect.AGAIN
KINDS: Final[dict[str, Kind]] = {}
FILLERS: Final = ["000000000000", "111111111111", "123456789012", "999999", "00000000", "123456"]
NOBODY: Final = {"cnss_number": "", "cin": "", "name": ""}


def kind(name: str) -> Callable[[Kind], Kind]:
    def keep(maker: Kind) -> Kind:
        KINDS[name] = maker
        return maker

    return keep


@kind("exact")
def exact(m: Maker, what: str, debt: Record) -> None:
    m.pay(what, debt, THESE, m.post(debt))


# The reference, written wrongly or otherwise by the payer, by the institution's clerk, or by both.


def _payer(change: Change, *, known: bool = False) -> Kind:
    def make(m: Maker, what: str, debt: Record) -> None:
        who = m.known(debt) if known else {}
        m.pay(what, debt, THESE, m.post(debt), reference=change(m.rng, debt.reference), **who)

    return make


def _clerk(change: Change, *, known: bool = False) -> Kind:
    def make(m: Maker, what: str, debt: Record) -> None:
        record = m.post(debt, reference=change(m.rng, debt.reference))
        m.pay(what, debt, THESE, record, **(m.known(debt) if known else {}))

    return make


for _name, _change in {**SLIPS, **FORMS}.items():
    KINDS[f"payer:{_name}"] = _payer(_change)
    KINDS[f"clerk:{_name}"] = _clerk(_change)
for _name, _change in {**PARTS, "two_wrong": people.two_wrong}.items():
    KINDS[f"payer:{_name}"] = _payer(_change, known=True)
    KINDS[f"clerk:{_name}"] = _clerk(_change, known=True)
KINDS["payer:group_order_known"] = _payer(people.groups, known=True)
KINDS["clerk:group_order_known"] = _clerk(people.groups, known=True)


@kind("payer:slip_in_text")
def payer_slip_in_text(m: Maker, what: str, debt: Record) -> None:
    slip = m.rng.choice([people.substitution, people.adjacent])(m.rng, debt.reference)
    m.pay(what, debt, THESE, m.post(debt), reference=f"AMO REF {slip} MERCI")


@kind("payer:grouped_slip")
def payer_grouped_slip(m: Maker, what: str, debt: Record) -> None:
    slip = m.rng.choice([people.substitution, people.adjacent, people.jump])(m.rng, debt.reference)
    m.pay(what, debt, THESE, m.post(debt), reference=people.grouped(m.rng, slip))


@kind("payer:bank_form_slip")
def payer_bank_form_slip(m: Maker, what: str, debt: Record) -> None:
    slip = m.rng.choice([people.substitution, people.adjacent])(m.rng, debt.reference)
    m.pay(what, debt, THESE, m.post(debt), reference=people.bank_form(m.rng, slip))


@kind("payer:bank_form_cut")
def payer_bank_form_cut(m: Maker, what: str, debt: Record) -> None:
    text = people.bank_form(m.rng, debt.reference)[: -m.rng.choice([2, 3, 4])]
    m.pay(what, debt, THESE, m.post(debt), reference=text, **m.known(debt))


@kind("payer:numbers_in_text")
def payer_numbers_in_text(m: Maker, what: str, debt: Record) -> None:
    person = m.people[debt.owner]
    text = m.rng.choice(
        [
            f"AMO {debt.reference} CNSS {person.cnss_number} TEL 0612345678",
            f"{person.cin} {person.cnss_number} {debt.reference}",
            f"REF {debt.reference} CIN {person.cin} 300.00",
        ]
    )
    m.pay(what, debt, THESE, m.post(debt), reference=text)


@kind("payer:letter_for_digit")
def payer_letter_for_digit(m: Maker, what: str, debt: Record) -> None:
    text = people.letter_for_digit(m.rng, debt.reference)
    m.pay(what, debt, LIKE, m.post(debt), reference=text, **m.known(debt))


@kind("payer:slip_of_another")
def payer_slip_of_another(m: Maker, what: str, debt: Record) -> None:
    """Somebody else stood at the counter, and showed his own card."""
    other = m.rng.choice(m.people)
    who = {"cnss_number": "", "cin": other.cin, "name": other.name}
    slip = people.substitution(m.rng, debt.reference)
    m.pay(what, debt, MAYBE, m.post(debt), reference=slip, **who)


@kind("payer:paid_by_another")
def payer_paid_by_another(m: Maker, what: str, debt: Record) -> None:
    other = m.rng.choice(m.people)
    who = {"cnss_number": "", "cin": other.cin, "name": other.name}
    m.pay(what, debt, THESE, m.post(debt), **who)


@kind("both:same_slip")
def both_same_slip(m: Maker, what: str, debt: Record) -> None:
    slip = people.substitution(m.rng, debt.reference)
    m.pay(what, debt, THESE, m.post(debt, reference=slip), reference=slip)


@kind("both:two_slips")
def both_two_slips(m: Maker, what: str, debt: Record) -> None:
    record = m.post(debt, reference=people.substitution(m.rng, debt.reference))
    slip = people.adjacent(m.rng, debt.reference)
    m.pay(what, debt, LIKE, record, reference=slip, **m.known(debt))


@kind("both:form_and_slip")
def both_form_and_slip(m: Maker, what: str, debt: Record) -> None:
    record = m.post(debt, reference=people.adjacent(m.rng, debt.reference))
    m.pay(what, debt, THESE, record, reference=people.in_text(m.rng, debt.reference))


# No reference on a side or on both, and who paid instead.


@kind("identity:no_reference")
def no_reference(m: Maker, what: str, debt: Record) -> None:
    m.pay(what, debt, LIKE, m.post(debt), reference="", **m.known(debt))


@kind("identity:spreadsheet")
def spreadsheet(m: Maker, what: str, debt: Record) -> None:
    text = people.spreadsheet(m.rng, debt.reference)
    m.pay(what, debt, LIKE, m.post(debt), reference=text, **m.known(debt))


@kind("identity:word")
def word(m: Maker, what: str, debt: Record) -> None:
    text = m.rng.choice(["AMO", "COTISATION OCTOBRE 2026", "واجب الانخراط", "-", "néant", "0"])
    m.pay(what, debt, LIKE, m.post(debt), reference=text, **m.known(debt))


@kind("identity:card_written")
def card_written(m: Maker, what: str, debt: Record) -> None:
    cin = debt.cin = m.people[debt.owner].cin
    split = len(cin.rstrip("0123456789"))
    card = m.rng.choice(
        [cin.lower(), f"{cin[:split]} {cin[split:]}", f"{cin[:split]}-{cin[split:]}", f" {cin} "]
    )
    m.pay(what, debt, LIKE, m.post(debt), reference="", cnss_number="", cin=card)


@kind("identity:number_written")
def number_written(m: Maker, what: str, debt: Record) -> None:
    number = m.people[debt.owner].cnss_number
    split = m.rng.choice([" ", "-", "."]).join([number[:3], number[3:6], number[6:]])
    written = m.rng.choice([split, f"{number}.0", people.other_digits(m.rng, number)])
    m.pay(what, debt, LIKE, m.post(debt), reference="", cnss_number=written, cin="")


@kind("identity:filler")
def filler(m: Maker, what: str, debt: Record) -> None:
    text = m.rng.choice(FILLERS)
    m.pay(what, debt, LIKE, m.post(debt), reference=text, **m.known(debt))


@kind("both:filler")
def both_filler(m: Maker, what: str, debt: Record) -> None:
    """Where a form wants a number, people and clerks give one: it says nothing."""
    record = m.post(debt, reference=m.rng.choice(FILLERS))
    m.pay(what, debt, MAYBE, record, reference=m.rng.choice(FILLERS))


@kind("identity:card_slip")
def card_slip(m: Maker, what: str, debt: Record) -> None:
    person = m.people[debt.owner]
    debt.cin = person.cin
    name = people.as_heard(m.rng, person) if m.rng.random() < 0.3 else person.name
    change = m.rng.choice([people.substitution, people.adjacent, people.digit_lost])
    card = change(m.rng, person.cin)
    m.pay(what, debt, LIKE, m.post(debt), reference="", cnss_number="", cin=card, name=name)


@kind("identity:number_slip")
def number_slip(m: Maker, what: str, debt: Record) -> None:
    person = m.people[debt.owner]
    number = m.rng.choice([people.substitution, people.adjacent])(m.rng, person.cnss_number)
    who = {"cnss_number": number, "cin": "", "name": person.name}
    m.pay(what, debt, LIKE, m.post(debt), reference="", **who)


@kind("identity:number_in_reference")
def number_in_reference(m: Maker, what: str, debt: Record) -> None:
    number = m.people[debt.owner].cnss_number
    text = m.rng.choice([number, f"CNSS {number}", f"AMO {number} OCT"])
    m.pay(what, debt, LIKE, m.post(debt), reference=text, cnss_number="", cin="")


@kind("identity:card_in_reference")
def card_in_reference(m: Maker, what: str, debt: Record) -> None:
    cin = debt.cin = m.people[debt.owner].cin
    text = m.rng.choice([cin, cin.lower(), f"CIN {cin}", f"AMO {cin}"])
    m.pay(what, debt, LIKE, m.post(debt), reference=text, cnss_number="", cin="")


@kind("clerk:no_reference")
def clerk_no_reference(m: Maker, what: str, debt: Record) -> None:
    m.pay(what, debt, LIKE, m.post(debt, reference=""), **m.known(debt))


@kind("clerk:number_in_reference")
def clerk_number_in_reference(m: Maker, what: str, debt: Record) -> None:
    m.pay(what, debt, LIKE, m.post(debt, reference=debt.cnss_number), **m.known(debt))


@kind("clerk:card_slip")
def clerk_card_slip(m: Maker, what: str, debt: Record) -> None:
    person = m.people[debt.owner]
    record = m.post(debt, cin=people.substitution(m.rng, person.cin))
    who = {"cnss_number": "", "cin": person.cin, "name": person.name}
    m.pay(what, debt, LIKE, record, reference="", **who)


@kind("both:no_reference")
def both_no_reference(m: Maker, what: str, debt: Record) -> None:
    m.pay(what, debt, LIKE, m.post(debt, reference=""), reference="", **m.known(debt))


@kind("identity:name_only")
def name_only(m: Maker, what: str, debt: Record) -> None:
    """A suggestion for a person, never a match."""
    who = {**NOBODY, "name": m.people[debt.owner].name}
    m.pay(what, debt, OPEN, m.post(debt), reference="", **who)


# The provider's own reference.


@kind("provider:only")
def provider_only(m: Maker, what: str, debt: Record) -> None:
    number = f"TX{m.rng.getrandbits(40):012d}"
    record = m.post(debt, reference="", provider_reference=number)
    m.pay(what, debt, THESE, record, reference="", provider_reference=number, **NOBODY)


@kind("provider:and_cut")
def provider_and_cut(m: Maker, what: str, debt: Record) -> None:
    number = f"TX{m.rng.getrandbits(40):012d}"
    text = people.cut(m.rng, debt.reference)
    record = m.post(debt, provider_reference=number)
    m.pay(what, debt, THESE, record, reference=text, provider_reference=number, **NOBODY)


@kind("provider:of_a_batch")
def provider_of_a_batch(m: Maker, what: str, debt: Record) -> None:
    """The bank's number of a whole batch says nothing of one payment of it."""
    changes = {"reference": "", "provider_reference": f"REMISE {debt.period}"}
    m.pay(what, debt, MAYBE, m.post(debt, **changes), **NOBODY, **changes)


@kind("provider:on_all_parts")
def provider_on_all_parts(m: Maker, what: str, debt: Record) -> None:
    number = f"TX{m.rng.getrandbits(40):012d}"
    debts = [debt, *m.others(debt, 2)]
    for each in debts:
        record = m.post(each, provider_reference=number)
        m.pay(what, each, THESE, record, provider_reference=number)


# Days and amounts.


@kind("late:reference")
def late(m: Maker, what: str, debt: Record) -> None:
    day = debt.posted_on - timedelta(days=m.rng.randint(10, 90))
    m.pay(what, debt, THESE, m.post(debt), paid_on=day)


@kind("late:slip")
def late_slip(m: Maker, what: str, debt: Record) -> None:
    day = debt.posted_on - timedelta(days=m.rng.randint(10, 60))
    slip = people.adjacent(m.rng, debt.reference)
    m.pay(what, debt, THESE, m.post(debt), paid_on=day, reference=slip)


@kind("late:identity")
def late_identity(m: Maker, what: str, debt: Record) -> None:
    day = debt.posted_on - timedelta(days=m.rng.randint(10, 30))
    m.pay(what, debt, LIKE, m.post(debt), paid_on=day, reference="", **m.known(debt))


@kind("late:paid_after")
def late_paid_after(m: Maker, what: str, debt: Record) -> None:
    """After the day due, where the institution's day is that one."""
    day = debt.posted_on + timedelta(days=m.rng.randint(10, 31))
    m.pay(what, debt, LIKE, m.post(debt), paid_on=day, reference="", **m.known(debt))


@kind("early:identity")
def early(m: Maker, what: str, debt: Record) -> None:
    day = debt.posted_on + timedelta(days=m.rng.randint(1, 2))
    m.pay(what, debt, LIKE, m.post(debt), paid_on=day, reference="", **m.known(debt))


@kind("amount:rounded")
def rounded(m: Maker, what: str, debt: Record) -> None:
    amount = debt.amount_minor + m.rng.choice([-5, -3, -2, -1, 1, 2, 3, 5])
    m.pay(what, debt, THESE, m.post(debt), amount_minor=amount)


@kind("amount:rounded_and_slip")
def rounded_and_slip(m: Maker, what: str, debt: Record) -> None:
    amount = debt.amount_minor + m.rng.choice([-2, 2])
    slip = people.substitution(m.rng, debt.reference)
    m.pay(what, debt, THESE, m.post(debt), amount_minor=amount, reference=slip)


@kind("amount:other")
def other_amount(m: Maker, what: str, debt: Record) -> None:
    """With the agent's fee, less than owed, a digit too many, or a few centimes too far."""
    due = debt.amount_minor
    amount = m.rng.choice([due + 500, due + 300, due * 101 // 100, due - 1_000, due * 10, due + 6])
    m.pay(what, debt, OPEN, m.post(debt), amount_minor=amount)
