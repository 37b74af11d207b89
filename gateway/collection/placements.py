"""Which payment pays which part of which invoice, and the transfers that bring it there. Pure.

An invoice takes payments in the order of the days on which the payers handed the money over,
whatever the order in which we hear of them; those of one day in the order in which their money came
into the books. So a payment that comes late and was made before others takes its place, and what
the others then have too much moves to credit, by transfers of their own. Nothing is taken back that
need not move.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final

from gateway.books.accounts import PAYABLE, SUSPENSE, Posting, account
from gateway.clock import day_of
from gateway.collection.allocation import QUOTED_INVOICE
from gateway.collection.reports import PaymentReport
from gateway.dues.balances import Balance, Bill, Claim, Rates, balance
from gateway.models import AccountKind, Component, PaymentStatus

Key = tuple[str, str]
"""A payment: its provider, and the provider's id of it."""

_NOTHING: Final[Mapping[Key, int]] = {}


@dataclass(frozen=True, slots=True)
class Holding:
    """A payment that may pay an invoice. Amounts in centimes."""

    key: Key
    paid_on: date
    """The payer's day."""
    placed: Mapping[Component, int]
    """What of it pays the invoice now."""
    free_minor: int = 0
    """What else of it may pay the invoice; negative for what is to leave it."""


@dataclass(frozen=True, slots=True)
class Move:
    """A signed change of what a payment pays of one part of an invoice."""

    key: Key
    component: Component
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Placement:
    """What is to change on an invoice, and what it comes to then."""

    moves: list[Move]
    balance: Balance


def place(bill: Bill, holdings: Sequence[Holding], rates: Rates, on: date) -> Placement:
    """Return the changes from what pays an invoice now to what should.

    Args:
        bill: The invoice.
        holdings: All that pays it or may; those of one day in the order given.
        rates: The penalty rule of its category.
        on: Today. Money that a payer's clock dates later counts all the same.
    """
    claims = [
        Claim(each.key, each.paid_on, sum(each.placed.values()) + each.free_minor)
        for each in holdings
    ]
    found = balance(bill, claims, rates, max([on, *(claim.paid_on for claim in claims)]))
    wanted: dict[Key, dict[Component, int]] = {}
    for placed in found.placed:
        parts = wanted.setdefault(placed.key, {})  # type: ignore[arg-type]
        parts[placed.component] = parts.get(placed.component, 0) + placed.amount_minor
    moves = []
    for each in holdings:
        target = wanted.get(each.key, {})
        for component in Component:
            change = target.get(component, 0) - each.placed.get(component, 0)
            if change:
                moves.append(Move(each.key, component, change))
    return Placement(moves, found)


# -- payments and invoices as whoever moves money has them so far ---------------------------------


@dataclass(slots=True)
class PaymentState:
    """A payment as whoever moves money has it so far."""

    report: PaymentReport
    """What the row says of the money: the first booked report, or the latest before booking."""
    status: PaymentStatus
    stated_at: datetime
    paid_at: datetime
    recorded_at: datetime
    invoice_id: int | None = None
    """The invoice whose reference it quoted."""
    bundle_id: int | None = None
    """The bundle whose reference it quoted."""
    booked_at: datetime | None = None
    returned_minor: int = 0
    """What of it refunds and disputes gave back so far."""
    id: int | None = None
    postings: list[Posting] = field(default_factory=list)
    """Its transfers that stand."""
    arrival: int = 0
    """Its place in the order in which money came into the books."""
    beyond: str | None = None
    """Of a payment of a bundle: the account of what no invoice needs. None: the credit of whoever
    owes the invoice."""

    @property
    def key(self) -> Key:
        return self.report.key

    @property
    def name(self) -> str:
        """What the names of its transfers begin with."""
        return f"{self.report.provider}/{self.report.provider_payment_id}"

    @property
    def clearing(self) -> str:
        return _CLEARING + self.report.provider

    @property
    def paid_on(self) -> date:
        return day_of(self.paid_at)

    @property
    def credits(self) -> dict[str, int]:
        """What of it is somebody's credit, by account."""
        return where_it_lies(self.postings).credits

    @property
    def credit_minor(self) -> int:
        """What of it is somebody's credit."""
        return sum(self.credits.values())

    @property
    def loose_minor(self) -> int:
        """What of it no invoice needs: credit, or in suspense."""
        standing = where_it_lies(self.postings)
        return standing.credit_minor + standing.suspense_minor


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the money of a booked payment lies, in centimes. What is nought is left out."""

    suspense_minor: int
    credits: dict[str, int]
    """By account."""
    payable: dict[int, int]
    """By invoice."""

    @property
    def credit_minor(self) -> int:
        return sum(self.credits.values())

    @property
    def payable_minor(self) -> int:
        return sum(self.payable.values())

    @property
    def total_minor(self) -> int:
        return self.credit_minor + self.payable_minor + self.suspense_minor


def where_it_lies(postings: Iterable[Posting]) -> Standing:
    """Return where the transfers of a payment that stand have left its money."""
    suspense = 0
    credits: dict[str, int] = {}
    payable: dict[int, int] = {}
    for posting in postings:
        for code, minor in (
            (posting.credit, posting.amount_minor),
            (posting.debit, -posting.amount_minor),
        ):
            if code == PAYABLE:
                assert posting.invoice_id is not None
                payable[posting.invoice_id] = payable.get(posting.invoice_id, 0) + minor
            elif code == SUSPENSE:
                suspense += minor
            elif code.startswith(_CREDIT):
                credits[code] = credits.get(code, 0) + minor
    return Standing(
        suspense,
        {code: minor for code, minor in credits.items() if minor},
        {at: minor for at, minor in payable.items() if minor},
    )


_CREDIT: Final = account(AccountKind.CREDIT, "")
_CLEARING: Final = account(AccountKind.CLEARING, "")


def credit_of(contributor_id: int) -> str:
    """Return the account of a contributor's own money."""
    return f"{_CREDIT}{contributor_id}"


@dataclass(slots=True)
class InvoiceState:
    """An invoice as whoever moves money has it so far. What is cancelled takes no money."""

    id: int
    reference: str
    contributor_id: int
    """The file that stands of whoever owes it: theirs is the credit."""
    period: str
    bill: Bill
    paid_minor: int
    owed_minor: int
    rates: Rates
    payments: dict[Key, PaymentState] = field(default_factory=dict)
    """Those that pay it, and those that quoted it."""
    held: dict[Key, dict[Component, int]] = field(default_factory=dict)
    """What of each pays which part of it now."""
    policies: dict[Key, str] = field(default_factory=dict)
    """By which policy each came to pay it."""
    latest_on: date = date.min
    """No payment of it is of a later day."""

    @property
    def is_plain(self) -> bool:
        """Whether nothing was changed, remitted or cancelled since its issue."""
        bill = self.bill
        return not (bill.notes or bill.reliefs or bill.cancelled)

    @property
    def credit(self) -> str:
        """The account of what is paid beyond it."""
        return credit_of(self.contributor_id)

    def join(self, payment: PaymentState) -> None:
        """Let a payment stand among those that may pay this invoice."""
        self.payments[payment.key] = payment
        self.latest_on = max(self.latest_on, payment.paid_on)

    def leave(self, key: Key) -> None:
        """Forget a payment that was taken back."""
        self.payments.pop(key, None)
        self.held.pop(key, None)


@dataclass(slots=True)
class BundleState:
    """A bundle whose reference was quoted."""

    id: int
    reference: str
    policy: str
    contributor_id: int | None
    """The file that stands of whose credit is what goes beyond; None: it waits in suspense."""
    withdrawn: bool
    invoices: list[InvoiceState]
    """What it pays, in this order."""

    @property
    def beyond(self) -> str:
        """The account of what none of its invoices needs."""
        return SUSPENSE if self.contributor_id is None else credit_of(self.contributor_id)


Quoted = InvoiceState | BundleState


def due_minor(quoted: Quoted, on: date) -> int:
    """Return what paying a reference on a day would settle, in centimes; 0 where nothing is due."""
    match quoted:
        case InvoiceState():
            return _due_minor(quoted, on)
        case BundleState(withdrawn=True):
            return 0
        case BundleState():
            return sum(_due_minor(each, on) for each in quoted.invoices)


def _due_minor(invoice: InvoiceState, on: date) -> int:
    claims = [
        Claim(key, invoice.payments[key].paid_on, sum(parts.values()))
        for key, parts in invoice.held.items()
    ]
    return balance(invoice.bill, claims, invoice.rates, on).due_minor


@dataclass(slots=True)
class Allocated:
    """What a payment pays more, or less, of a part of an invoice: a row to be written."""

    key: Key
    invoice_id: int
    component: Component
    amount_minor: int
    policy: str


@dataclass(slots=True)
class Moved:
    """What became of one payment's money on one invoice."""

    payment: PaymentState
    invoice: InvoiceState
    before_minor: int
    """What of it paid the invoice before."""
    after_minor: int
    allocations: list[Allocated]
    postings: list[Posting] = field(default_factory=list)
    entered_minor: int = 0
    """What came from the provider for it; negative for what went back there."""
    off_minor: int = 0
    """What the invoice needs no more of it, and is credit now."""
    onto_minor: int = 0
    """What of its credit pays the invoice now."""

    @property
    def used_up(self) -> bool:
        """Whether no credit of it is left, since it pays the invoice."""
        return self.onto_minor > 0 and self.payment.credit_minor == 0


def settle(
    invoice: InvoiceState,
    on: date,
    *,
    entering: Mapping[Key, int] = _NOTHING,
    part: str = "invoice",
    lots: Collection[Key] = (),
    leaving: Collection[Key] = (),
    policy: str = QUOTED_INVOICE,
    outside: str | None = None,
) -> list[Moved]:
    """Bring an invoice to what the facts say: its sums, and what of each payment pays it.

    Args:
        invoice: As it stands; it and its payments are brought to what follows.
        on: Today.
        entering: Money that comes from the provider for this invoice, by payment, of which enters
            what is needed; or, negative, money that goes back to the provider, all of it.
        part: What the names of the transfers from and to the provider say.
        lots: Payments whose credit may pay it beside the credit of those that quoted it.
        leaving: Payments that are to pay it no more: what they paid of it becomes credit.
        policy: By which policy money enters, and lots pay.
        outside: The account that money enters from and goes back to, if not the provider's.
    """
    if invoice.bill.cancelled:
        return []
    payments = sorted(invoice.payments.values(), key=lambda each: each.arrival)
    holdings = []
    for each in payments:
        free = entering.get(each.key, 0)
        if each.invoice_id == invoice.id or each.key in lots:
            free += each.credit_minor
        held = invoice.held.get(each.key, {})
        if each.key in leaving:
            free = -sum(held.values())
        holdings.append(Holding(each.key, each.paid_on, held, free))
    placement = place(invoice.bill, holdings, invoice.rates, on)
    invoice.paid_minor = placement.balance.paid_minor
    invoice.owed_minor = placement.balance.owed_minor
    changes: dict[Key, list[Move]] = {}
    for move in placement.moves:
        changes.setdefault(move.key, []).append(move)
    found = []
    for each in payments:
        if each.key in changes:
            comes = each.key in entering or each.key in lots
            named = policy if comes else invoice.policies.get(each.key, QUOTED_INVOICE)
            moved = _carry_out(each, invoice, changes[each.key], named)
            _post(moved, entering.get(each.key, 0), part, outside or each.clearing)
            found.append(moved)
        if each.key not in invoice.held and each.invoice_id != invoice.id:
            del invoice.payments[each.key]
    return found


def _carry_out(
    payment: PaymentState, invoice: InvoiceState, moves: list[Move], policy: str
) -> Moved:
    """Bring what an invoice holds of a payment to what was decided."""
    held = invoice.held.pop(payment.key, {})
    before = sum(held.values())
    for move in moves:
        held[move.component] = held.get(move.component, 0) + move.amount_minor
    held = {component: minor for component, minor in held.items() if minor}
    if held:
        invoice.held[payment.key] = held
        invoice.policies[payment.key] = policy
    allocations = [Allocated(m.key, invoice.id, m.component, m.amount_minor, policy) for m in moves]
    return Moved(payment, invoice, before, sum(held.values()), allocations)


def _post(moved: Moved, entering_minor: int, part: str, outside: str) -> None:
    """Write the transfers that bring a payment's money on an invoice to what was decided."""
    payment, invoice = moved.payment, moved.invoice
    change = moved.after_minor - moved.before_minor

    def post(name: str, debit: str, credit: str, minor: int) -> None:
        posting = Posting(f"{payment.name}/{name}", debit, credit, minor, invoice_id=invoice.id)
        moved.postings.append(posting)
        payment.postings.append(posting)

    def move(debit: str, credit: str, minor: int) -> None:
        so_far = sum(posting.invoice_id == invoice.id for posting in payment.postings)
        post(f"moved/{invoice.id}/{so_far}", debit, credit, minor)

    if entering_minor > 0:
        moved.entered_minor = max(min(change, entering_minor), 0)
        if moved.entered_minor:
            post(part, outside, PAYABLE, moved.entered_minor)
    elif entering_minor < 0:
        moved.entered_minor = entering_minor
        post(part, PAYABLE, outside, -entering_minor)
    left = change - moved.entered_minor
    moved.off_minor, moved.onto_minor = max(-left, 0), max(left, 0)
    if left < 0:
        move(PAYABLE, payment.beyond or invoice.credit, -left)
    elif left > 0:
        for code, minor in payment.credits.items():
            taken = min(left, minor)
            if taken > 0:
                move(code, PAYABLE, taken)
                left -= taken
        assert left == 0, "more was placed of a payment than there is"


# -- money that comes in, and goes back ------------------------------------------------------------


@dataclass(slots=True)
class Entered:
    """What became of money that came from a provider."""

    own: list[Moved]
    """Of the payment itself."""
    others: list[Moved]
    """What of other payments had to make room."""
    beyond: list[Posting]
    """What no invoice needs: credit, or in suspense."""
    taken_minor: int
    beyond_minor: int


def enter(
    payment: PaymentState,
    quoted: Quoted | None,
    amount_minor: int,
    on: date,
    *,
    how: str = "",
    outside: str | None = None,
) -> Entered:
    """Let money of a payment pay what it quoted, as far as it is needed; the rest is credit.

    Without a known reference, or beyond a bundle that is nobody's, it waits in suspense.

    Args:
        payment: Whose money it is. It has its day, and knows what it quoted.
        quoted: The invoice or bundle whose reference it quoted, as it stands.
        amount_minor: How much comes from the provider now, in centimes, positive.
        on: Today.
        how: Why it comes, in the names of its transfers, if not by its booking.
        outside: The account that it comes from, if not the provider's.
    """
    source = outside or payment.clearing
    targets: Sequence[InvoiceState] = ()
    policy = QUOTED_INVOICE
    match quoted:
        case InvoiceState():
            targets = (quoted,)
        case BundleState(withdrawn=False):
            targets, policy = quoted.invoices, quoted.policy
    result = Entered([], [], [], 0, amount_minor)
    for invoice in targets:
        if not result.beyond_minor:
            break
        part = _named(payment, "invoice" if invoice is quoted else f"invoice/{invoice.id}", how)
        for moved in _enter_one(payment, invoice, result.beyond_minor, on, part, policy, source):
            if moved.payment is payment:
                result.own.append(moved)
                result.taken_minor += moved.entered_minor
                result.beyond_minor -= moved.entered_minor
            else:
                result.others.append(moved)
    if result.beyond_minor:
        beyond = SUSPENSE
        if quoted is not None:
            beyond = quoted.credit if isinstance(quoted, InvoiceState) else quoted.beyond
        part = _named(payment, "suspense" if beyond == SUSPENSE else "credit", how)
        posting = Posting(
            f"{payment.name}/{part}",
            source,
            beyond,
            result.beyond_minor,
            invoice_id=quoted.id if isinstance(quoted, InvoiceState) else None,
        )
        payment.postings.append(posting)
        result.beyond.append(posting)
    return result


def _named(payment: PaymentState, part: str, how: str) -> str:
    return f"{part}/{how}/{len(payment.postings)}" if how else part


def _enter_one(
    payment: PaymentState,
    invoice: InvoiceState,
    amount_minor: int,
    on: date,
    part: str,
    policy: str,
    source: str,
) -> list[Moved]:
    at, day = payment.key, payment.paid_on
    simple = _is_simple(at, day, invoice)
    invoice.payments[at] = payment
    invoice.latest_on = max(invoice.latest_on, day)
    if not simple:
        entering = {at: amount_minor}
        return settle(invoice, on, entering=entering, part=part, policy=policy, outside=source)
    taken = min(invoice.bill.amount_minor - invoice.paid_minor, amount_minor)
    if taken:
        part_of = Component.PRINCIPAL
        invoice.paid_minor += taken
        invoice.held[at] = {part_of: taken}
        invoice.policies[at] = policy
        name = f"{payment.name}/{part}"
        posting = Posting(name, source, PAYABLE, taken, None, invoice.id)
        payment.postings.append(posting)
        allocated = Allocated(at, invoice.id, part_of, taken, policy)
        return [Moved(payment, invoice, 0, taken, [allocated], [posting], taken)]
    if payment.invoice_id != invoice.id:
        del invoice.payments[at]
    return []


def _is_simple(key: Key, day: date, invoice: InvoiceState) -> bool:
    """Say whether a payment comes after all others, before there can be a penalty.

    Then it takes what is unpaid, and nothing else moves: most payments, without exact arithmetic.
    """
    due = invoice.bill.due_on
    return (
        invoice.is_plain
        and key not in invoice.payments
        and invoice.latest_on <= day
        and (day.year, day.month) <= (due.year, due.month)
    )


@dataclass(slots=True)
class GivenBack:
    """What became of money that goes back to a provider."""

    postings: list[Posting]
    """From credit and from suspense."""
    moved: list[Moved]
    """Of this payment and others, on invoices."""


def give_back(
    payment: PaymentState,
    invoices: Mapping[int, InvoiceState],
    amount_minor: int,
    on: date,
    *,
    how: str,
    outside: str | None = None,
) -> GivenBack:
    """Give back a part of a payment: what nobody owes first, then what pays the newest debt.

    Args:
        payment: As it stands.
        invoices: Those where its money lies, and the one that it quoted.
        amount_minor: How much, in centimes: at most what is still there.
        on: Today.
        how: Why it goes, in the names of its transfers (gateway.books.kinds).
        outside: The account that it goes to, if not the provider's.
    """
    held, target = where_it_lies(payment.postings), outside or payment.clearing
    assert 0 < amount_minor <= held.total_minor
    result, left = GivenBack([], []), amount_minor
    loose = {SUSPENSE: held.suspense_minor, **held.credits}
    for code, minor in loose.items():
        taken = min(left, minor)
        if taken:
            part = _named(payment, "suspense" if code == SUSPENSE else "credit", how)
            posting = Posting(
                f"{payment.name}/{part}",
                code,
                target,
                taken,
                invoice_id=payment.invoice_id,
            )
            payment.postings.append(posting)
            result.postings.append(posting)
            left -= taken
    for invoice in sorted(
        (invoices[at] for at in held.payable),
        key=lambda each: (each.bill.due_on, each.id),
        reverse=True,
    ):
        taken = min(left, held.payable[invoice.id])
        if taken:
            part = _named(payment, "invoice", how)
            entering = {payment.key: -taken}
            result.moved += settle(invoice, on, entering=entering, part=part, outside=target)
            left -= taken
    return result


def take_back(payment: PaymentState, invoices: Mapping[int, InvoiceState], on: date) -> GivenBack:
    """Take back all of a payment; what it paid is owed again, and others may take its place.

    Each of its transfers that stand is posted the other way.
    """
    result = GivenBack([posting.opposite() for posting in payment.postings], [])
    touched = set(where_it_lies(payment.postings).payable)
    if payment.invoice_id is not None and payment.postings:
        touched.add(payment.invoice_id)
    payment.postings = []
    for at in sorted(touched):
        invoice = invoices[at]
        policy = invoice.policies.get(payment.key, QUOTED_INVOICE)
        held = invoice.held.get(payment.key, {})
        allocations = [
            Allocated(payment.key, at, component, -minor, policy)
            for component, minor in held.items()
        ]
        result.moved.append(Moved(payment, invoice, sum(held.values()), 0, allocations))
        invoice.leave(payment.key)
        result.moved += settle(invoice, on)
    return result
