"""Read camt.053 statements and camt.054 notifications of ISO 20022, versions 02 to 08. Pure.

The file is parsed without entities, network or DTD. A movement is booked in the direction that its
`CdtDbtInd` says: a reversal of a credit is `DBIT` already, and is not turned again. Only `BOOK` is
money. A movement whose details do not come to its amount is one line, with the difference kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Final

from lxml import etree

from gateway.clock import INSTITUTION_ZONE
from gateway.money import AMOUNT_MINOR_MAX
from reconciliation.sources.statements import (
    BALANCE_MINOR_MAX,
    DAY_MAX,
    DAY_MIN,
    TEXT_MAX,
    Draft,
    Form,
    Kind,
    Statement,
    StatementLine,
    Why,
    days_covered,
    plain_account,
    refused,
)

_NAMESPACE: Final = re.compile(r"urn:iso:std:iso:20022:tech:xsd:camt\.(05[0-9])\.001\.([0-9]{2})")
_VERSIONS: Final = range(2, 9)
_FORMS: Final = {
    "053": (Form.CAMT_053, "BkToCstmrStmt", "Stmt", "StmtPgntn"),
    "054": (Form.CAMT_054, "BkToCstmrDbtCdtNtfctn", "Ntfctn", "NtfctnPgntn"),
}
# ISO 20022 allows five decimals; those after the centimes must say nothing.
_AMOUNT: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{0,2})(0*))?", re.ASCII)
_DAY: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:T([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]+)?)?(Z|[+-][0-9]{2}:[0-9]{2})?",
    re.ASCII,
)
_CHARGES: Final = frozenset({"CHRG", "COMM", "FEES"})
_BATCH_MAX: Final = 999_999_999
_NOTHING: Final = frozenset({"", "NOTPROVIDED", "NONREF", "NOT PROVIDED"})
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False, "": False}


def read_camt(data: bytes, name: str) -> list[Statement]:
    """Return the statements or notifications of a file, each with its own account.

    Args:
        data: The file.
        name: Its name, for what is said of it.

    Raises:
        Unusable: It is not such a file, it was cut, or a statement in it does not add up.
    """
    root = _parse(data, name)
    form, wrapper, element, paging = _form(root, name)
    at = etree.QName(root).namespace
    body = root.find(f"{{{at}}}{wrapper}")
    found = [] if body is None else body.findall(f"{{{at}}}{element}")
    if not found:
        raise refused(name, 1, f"it holds no {element}")
    return [_Reader(_Node(each, f"{{{at}}}"), form, name).statement(paging) for each in found]


def _parse(data: bytes, name: str) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        # The parser's own words may quote what stands there.
        raise refused(name, max(error.lineno or 1, 1), "this is no whole XML document") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise refused(name, 1, "a DOCTYPE has no place in a bank's file")
    return root


def _form(root: etree._Element, name: str) -> tuple[Form, str, str, str]:
    tag = etree.QName(root)
    kind = _NAMESPACE.fullmatch(tag.namespace or "")
    if kind is None or tag.localname != "Document":
        raise refused(name, 1, "this is no camt document of ISO 20022")
    if kind[1] == "052":
        raise refused(name, 1, "camt.052 is an interim report, nothing in it is final")
    if kind[1] not in _FORMS:
        raise refused(name, 1, f"camt.{kind[1]} is neither a statement nor a notification")
    if int(kind[2]) not in _VERSIONS:
        raise refused(name, 1, f"version {kind[2]} is not read, only 02 to 08 are")
    return _FORMS[kind[1]]


class _Unread(Exception):
    """Something of a movement cannot be read; the text says what."""

    def __init__(self, reason: str, why: Why = Why.AMOUNT) -> None:
        super().__init__(reason)
        self.why: Final = why


@dataclass(frozen=True, slots=True)
class _Node:
    """An element whose children are found by their names without the namespace."""

    element: etree._Element
    namespace: str

    def all(self, path: str) -> list[_Node]:
        found = self.element.findall("/".join(self.namespace + step for step in path.split("/")))
        return [_Node(each, self.namespace) for each in found]

    def first(self, path: str) -> _Node | None:
        found = self.element.find("/".join(self.namespace + step for step in path.split("/")))
        return None if found is None else _Node(found, self.namespace)

    def text(self, path: str) -> str:
        """Return the text at a path, its spaces as one; empty where there is none."""
        node = self.first(path)
        return "" if node is None else " ".join((node.element.text or "").split())

    @property
    def line(self) -> int:
        return self.element.sourceline or 1


@dataclass(frozen=True, slots=True)
class _Balance:
    code: str
    minor: int
    currency: str
    on: date


class _Reader:
    """Reads one statement or notification."""

    def __init__(self, node: _Node, form: Form, name: str) -> None:
        self._node: Final = node
        self._form: Final = form
        self._draft: Final = Draft(name)
        self._currency = node.text("Acct/Ccy")

    def statement(self, paging: str) -> Statement:
        node, draft = self._node, self._draft
        account = node.text("Acct/Id/IBAN") or node.text("Acct/Id/Othr/Id")
        number = node.text("Id")
        for what, named in (("account", account), ("Id", number)):
            if not named or len(named) > TEXT_MAX or not named.isprintable():
                raise draft.refused(node.line, f"a statement names no {what}, or none that can be")
        page = node.text(f"{paging}/PgNb")
        is_paged = node.text(f"{paging}/LastPgInd") not in {"", "true", "1"} or page not in {
            "",
            "1",
        }
        balances = self._balances() if self._form is Form.CAMT_053 else []
        for at, entry in enumerate(node.all("Ntry"), start=1):
            self._entry(at, entry)
        ends = self._ends(balances, f"statement {number}", is_paged=is_paged)
        from_on = to_on = None
        if ends is not None:
            began_on = ends[0].on
            if ends[0].code == "PRCD":
                began_on = min(began_on + timedelta(days=1), ends[1].on)
            booked = (line.booked_on for line in draft.lines)
            from_on, to_on = days_covered([began_on, ends[1].on, *booked])
        return Statement(
            form=self._form,
            account=plain_account(account),
            number=f"{number}/{page}" if is_paged else number,
            currency=self._currency,
            lines=tuple(draft.lines),
            set_aside=tuple(draft.set_aside),
            opening_minor=None if ends is None else ends[0].minor,
            closing_minor=None if ends is None else ends[1].minor,
            from_on=from_on,
            to_on=to_on,
        )

    # -- balances ---------------------------------------------------------------------------------

    def _balances(self) -> list[_Balance]:
        return [self._balance(each) for each in self._node.all("Bal")]

    def _balance(self, node: _Node) -> _Balance:
        code = node.text("Tp/CdOrPrtry/Cd") or node.text("Tp/CdOrPrtry/Prtry")
        try:
            minor, currency = self._amount(node, BALANCE_MINOR_MAX)
            on = self._day(node.text("Dt/Dt") or node.text("Dt/DtTm"))
            sign = self._sign(node)
        except _Unread as unread:
            raise self._draft.refused(node.line, f"of balance {code[:8]} {unread}") from None
        if on is None:
            raise self._draft.refused(node.line, f"balance {code[:8]} has no day")
        return _Balance(code, sign * minor, currency, on)

    def _ends(
        self, balances: list[_Balance], what: str, *, is_paged: bool
    ) -> tuple[_Balance, _Balance] | None:
        """Return the opening and the closing balance, which the movements must lead between."""
        if self._form is Form.CAMT_054:
            return None
        between = [each for each in balances if each.code == "ITBD"] if is_paged else []
        by_code = {each.code: each for each in reversed(balances)}
        opening = by_code.get("OPBD") or by_code.get("PRCD") or next(iter(between), None)
        closing = by_code.get("CLBD") or next(reversed(between), None)
        line = self._node.line
        if opening is None or closing is None or (opening is closing):
            side = "opening" if opening is None else "closing"
            raise self._draft.refused(line, f"{what} has no {side} booked balance")
        self._currency = self._currency or opening.currency
        for each in (opening, closing):
            if each.currency != self._currency:
                raise self._draft.refused(
                    line,
                    f"{what} is of an account in {self._currency[:3]} and has a balance in"
                    f" {each.currency[:3]}",
                )
        self._draft.require_balance(what, line, opening.minor, closing.minor)
        return opening, closing

    # -- movements --------------------------------------------------------------------------------

    def _entry(self, at: int, node: _Node) -> None:
        draft = self._draft
        status = node.text("Sts/Cd") or node.text("Sts") or node.text("Sts/Prtry")
        if status != "BOOK":
            said = status if status in {"PDNG", "INFO", "FUTR"} else "another than BOOK"
            draft.put_aside(node.line, Why.NOT_BOOKED, f"entry {at}: its status is {said}")
            return
        try:
            minor, currency = self._amount(node, AMOUNT_MINOR_MAX)
            self._currency = self._currency or currency
            if currency != self._currency:
                raise _Unread(
                    f"its amount is in {currency[:3]}, the account in {self._currency[:3]}",
                    Why.CURRENCY,
                )
            entry_minor = self._sign(node) * minor
        except _Unread as unread:
            reason = f"entry {at}: {unread}"
            draft.unread = draft.unread or (node.line, reason)
            draft.put_aside(node.line, unread.why, reason)
            return
        draft.moved_minor += entry_minor
        if not entry_minor:
            draft.put_aside(node.line, Why.AMOUNT, f"entry {at}: its amount is zero")
            return
        try:
            lines = list(self._lines(at, node, entry_minor))
        except _Unread as unread:
            draft.put_aside(node.line, unread.why, f"entry {at}: {unread}")
            return
        draft.lines += lines

    def _lines(self, at: int, node: _Node, entry_minor: int) -> Iterator[StatementLine]:
        reversal = _FLAGS.get(node.text("RvslInd"))
        if reversal is None:
            raise _Unread("whether it is a reversal cannot be read", Why.UNREADABLE)
        booked_on = self._day(node.text("BookgDt/Dt") or node.text("BookgDt/DtTm"))
        value_on = self._day(node.text("ValDt/Dt") or node.text("ValDt/DtTm"))
        details = node.all("NtryDtls/TxDtls")
        bank_reference = _named(node.text("AcctSvcrRef")) or next(
            (ref for each in details if (ref := _named(each.text("Refs/AcctSvcrRef")))), None
        )
        if bank_reference is None and self._form is Form.CAMT_054:
            raise _Unread(
                "a notification without AcctSvcrRef: the statement will bring the same money, and"
                " nothing could tell the two",
                Why.UNREADABLE,
            )
        parts, details_minor = self._parts(node, details, entry_minor)
        charge = _is_charge(node)
        for transaction, detail, amount_minor in parts:
            reason = "" if detail is None else detail.text("RtrInf/Rsn/Cd")
            yield StatementLine(
                line=node.line,
                kind=_kind(amount_minor, charge=charge, reversal=reversal, returned=bool(reason)),
                amount_minor=amount_minor,
                booked_on=booked_on,
                value_on=value_on,
                payment_ids=_ids(detail),
                # What is said of the whole movement is said of none of several payments.
                texts=tuple(_texts(node if len(parts) == 1 else None, detail)),
                bank_reference=bank_reference,
                entry=at,
                transaction=transaction,
                entry_minor=entry_minor,
                is_reversal=reversal,
                return_reason=reason[:4] or None,
                batch_of=None if transaction else self._batch_of(node, len(details)),
                details_minor=details_minor,
            )

    def _parts(
        self, node: _Node, details: list[_Node], entry_minor: int
    ) -> tuple[list[tuple[int, _Node | None, int]], int | None]:
        """Return the payments of a movement, or the movement as a whole.

        With the latter: what its details come to, where that is why. Zero: they say no amounts.
        """
        if not details:
            return [(0, None, entry_minor)], None
        amounts = [self._detail_amount(each, entry_minor) for each in details]
        if amounts == [None] and self._batch_of(node, 1) == 1:
            # The only payment of a movement need not repeat its amount.
            return [(1, details[0], entry_minor)], None
        found = [each for each in amounts if each is not None]
        if len(found) < len(details) or sum(found) != entry_minor or not self._agrees(node, found):
            return [(0, details[0] if len(details) == 1 else None, entry_minor)], sum(found)
        return [
            (number, detail, amount)
            for number, (detail, amount) in enumerate(zip(details, found, strict=True), start=1)
            if amount
        ], None

    def _detail_amount(self, detail: _Node, entry_minor: int) -> int | None:
        """Return the signed amount of a payment in the account's currency; None: it says none."""
        for holder in (detail, detail.first("AmtDtls/TxAmt")):
            if holder is None or holder.first("Amt") is None:
                continue
            try:
                minor, currency = self._amount(holder, AMOUNT_MINOR_MAX)
                sign = self._sign(detail) if detail.first("CdtDbtInd") else _sign_of(entry_minor)
            except _Unread:
                return None
            if currency == self._currency:
                return sign * minor
        return None

    def _agrees(self, node: _Node, amounts: list[int]) -> bool:
        """Say whether the batch that the details stand in says of them what they come to."""
        batches = node.all("NtryDtls/Btch")
        if len(batches) != 1 or len(node.all("NtryDtls")) != 1:
            return True
        (batch,) = batches
        count = batch.text("NbOfTxs")
        if count and count.lstrip("0") != str(len(amounts)):
            return False
        if batch.first("TtlAmt") is None:
            return True
        try:
            minor, currency = self._amount(batch, BALANCE_MINOR_MAX, "TtlAmt")
        except _Unread:
            return False
        return currency != self._currency or minor == abs(sum(amounts))

    def _batch_of(self, node: _Node, otherwise: int) -> int | None:
        counts = [each.text("NbOfTxs") for each in node.all("NtryDtls/Btch")]
        if counts and all(re.fullmatch(r"[0-9]{1,9}", each, re.ASCII) for each in counts):
            count = sum(map(int, counts))
            return count if count <= _BATCH_MAX else None
        return otherwise or None

    # -- values -----------------------------------------------------------------------------------

    def _amount(self, node: _Node, most: int, name: str = "Amt") -> tuple[int, str]:
        holder = node.first(name)
        found = _AMOUNT.fullmatch(node.text(name))
        currency = "" if holder is None else holder.element.get("Ccy", "")
        if found is None or holder is None or len(holder.element) or not currency.isalpha():
            raise _Unread("its amount cannot be read as one with a currency and two decimals")
        minor = int(found[1]) * 100 + int((found[2] or "").ljust(2, "0"))
        if minor > most:
            raise _Unread("its amount is larger than any that can be")
        return minor, currency

    def _sign(self, node: _Node) -> int:
        said = node.text("CdtDbtInd")
        if said not in {"CRDT", "DBIT"}:
            raise _Unread("whether it is a credit or a debit cannot be read")
        return 1 if said == "CRDT" else -1

    def _day(self, text: str) -> date | None:
        """Return the day in Casablanca that a date or an instant means; None for an empty text."""
        if not text:
            return None
        found = _DAY.fullmatch(text)
        try:
            if found is None:
                raise ValueError
            day = date.fromisoformat(found[1])
            if not DAY_MIN <= day <= DAY_MAX:
                raise ValueError
            if found[2] is None or found[3] is None:
                return day
            at = datetime.fromisoformat(f"{found[1]}T{found[2]}{found[3]}")
            return at.astimezone(INSTITUTION_ZONE).date()
        except (ValueError, OverflowError):
            raise _Unread("its day cannot be read", Why.UNREADABLE) from None


def _sign_of(minor: int) -> int:
    return -1 if minor < 0 else 1


def _named(text: str) -> str | None:
    """Return what names something; None where nothing does, or no bank would write it."""
    is_name = text.isprintable() and len(text) <= TEXT_MAX and text.upper() not in _NOTHING
    return text if is_name else None


def _is_charge(node: _Node) -> bool:
    return not _CHARGES.isdisjoint(
        node.text(f"BkTxCd/{path}").upper()
        for path in ("Domn/Fmly/SubFmlyCd", "Domn/Fmly/Cd", "Prtry/Cd")
    )


def _kind(amount_minor: int, *, charge: bool, reversal: bool, returned: bool) -> Kind:
    if charge:
        return Kind.FEE
    if amount_minor < 0:
        return Kind.REVERSAL if reversal or returned else Kind.OTHER
    return Kind.OTHER if reversal else Kind.PAYMENT


def _ids(detail: _Node | None) -> tuple[str, ...]:
    if detail is None:
        return ()
    named = (detail.text(f"Refs/{each}") for each in ("EndToEndId", "TxId", "InstrId", "UETR"))
    return tuple(dict.fromkeys(each for text in named if (each := _named(text)) is not None))


def _texts(entry: _Node | None, detail: _Node | None) -> Iterator[str]:
    if detail is not None:
        yield from (each.text("Ref") for each in detail.all("RmtInf/Strd/CdtrRefInf"))
        pieces = [each.element.text or "" for each in detail.all("RmtInf/Ustrd")]
        yield from pieces
        for piece, following in pairwise(pieces):
            # A bank cuts a text after 140 characters, and goes on in the next piece.
            if len(piece) == TEXT_MAX:
                yield piece + following
        yield detail.text("AddtlTxInf")
        yield from _ids(detail)
    if entry is not None:
        yield entry.text("AddtlNtryInf")
