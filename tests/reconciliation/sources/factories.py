"""Settlement files that are valid unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from reconciliation.sources.dialects import dialects
from reconciliation.sources.formats import read_settlements
from reconciliation.sources.statements import Statement

GOLDEN: Final = Path(__file__).parents[2] / "golden" / "settlement"
RIB: Final = "011810000001234567890136"
AGENT: Final = GOLDEN / "agent_settlement_utf8_bom.csv"
MT940: Final = GOLDEN / "mt940_mad.sta"
CAMT: Final = {
    (form, version): GOLDEN / f"camt{form}_v{version}_batch_mad.xml"
    for form in ("053", "054")
    for version in (2, 8)
}


def read(data: bytes, name: str = "file") -> list[Statement]:
    """Read a file by what its content looks like."""
    return read_settlements(data, name, chosen=None, dialects=dialects(), provider="anybody")


def an_entry(
    amount: str = "100.00",
    sign: str = "CRDT",
    *,
    reference: str | None = "BR-1",
    day: str = "2026-11-20",
    text: str = "",
    details: Sequence[str] = (),
    status: str = "BOOK",
    reversal: str = "false",
    currency: str = "MAD",
    batch_of: int | None = None,
) -> str:
    """Return a movement, as version 02 writes it."""
    named = "" if reference is None else f"<AcctSvcrRef>{reference}</AcctSvcrRef>"
    batch = "" if batch_of is None else f"<Btch><NbOfTxs>{batch_of}</NbOfTxs></Btch>"
    inner = f"<NtryDtls>{batch}{''.join(details)}</NtryDtls>" if details or batch else ""
    return (
        f'<Ntry><Amt Ccy="{currency}">{amount}</Amt><CdtDbtInd>{sign}</CdtDbtInd>'
        f"<RvslInd>{reversal}</RvslInd><Sts>{status}</Sts><BookgDt><Dt>{day}</Dt></BookgDt>{named}"
        f"<BkTxCd/>{inner}<AddtlNtryInf>{text}</AddtlNtryInf></Ntry>"
    )


def a_detail(amount: str | None, payment_id: str = "NOTPROVIDED", text: str = "") -> str:
    """Return a payment of a movement, as version 02 writes it."""
    said = "" if amount is None else f'<Amt Ccy="MAD">{amount}</Amt>'
    return (
        f"<TxDtls><Refs><EndToEndId>{payment_id}</EndToEndId></Refs><AmtDtls><TxAmt>{said}</TxAmt>"
        f"</AmtDtls><RmtInf><Ustrd>{text}</Ustrd></RmtInf></TxDtls>"
    )


def a_statement(
    *entries: str,
    opening: str = "0.00",
    closing: str,
    number: str = "ST-1",
    account: str = RIB,
    day: str = "2026-11-20",
    currency: str = "MAD",
    opened_on: str | None = None,
    more: str = "",
) -> str:
    """Return one statement of a camt.053."""
    balances = "".join(
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>"
        f'<Amt Ccy="{currency}">{amount.lstrip("-")}</Amt>'
        f"<CdtDbtInd>{'DBIT' if amount.startswith('-') else 'CRDT'}</CdtDbtInd>"
        f"<Dt><Dt>{on}</Dt></Dt></Bal>"
        for code, amount, on in (("OPBD", opening, opened_on or day), ("CLBD", closing, day))
    )
    return (
        f"<Stmt><Id>{number}</Id>{more}<Acct><Id><Othr><Id>{account}</Id></Othr></Id>"
        f"<Ccy>{currency}</Ccy></Acct>{balances}{''.join(entries)}</Stmt>"
    )


def a_notification(*entries: str, number: str = "NT-1", account: str = RIB) -> str:
    """Return one notification of a camt.054."""
    return (
        f"<Ntfctn><Id>{number}</Id><Acct><Id><Othr><Id>{account}</Id></Othr></Id><Ccy>MAD</Ccy>"
        f"</Acct>{''.join(entries)}</Ntfctn>"
    )


def camt(*parts: str, version: str = "02", head: str = "") -> bytes:
    """Return a file of statements, or of notifications."""
    form, body = "054", "BkToCstmrDbtCdtNtfctn"
    if parts and parts[0].startswith("<Stmt>"):
        form, body = "053", "BkToCstmrStmt"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{head}<Document'
        f' xmlns="urn:iso:std:iso:20022:tech:xsd:camt.{form}.001.{version}"><{body}>\n'
        + "\n".join(parts)
        + f"\n</{body}></Document>\n"
    ).encode()


def mt940(
    *movements: str,
    opening: str = "C261119MAD0,",
    closing: str,
    number: str = "1/1",
    account: str = RIB,
) -> bytes:
    """Return a file of one message, without blocks around it."""
    fields = (
        *(":20:X", f":25:{account}", f":28C:{number}", f":60F:{opening}"),
        *(f":61:{each}" for each in movements),
        *(f":62F:{closing}", "-"),
    )
    return "\r\n".join((*fields, "")).encode()


def agents(*lines: str, count: int | None = None, total: str = "", fees: str = "0,00") -> bytes:
    """Return an agents' file in French; each line is day;reference;amount;id;kind;fee."""
    rows = ["date_operation;heure;agence;reference;montant;devise;id_transaction;type;commission"]
    for line in lines:
        day, reference, amount, named, kind, fee = line.split(";")
        rows.append(f"{day};10:00:00;77;{reference};{amount};MAD;{named};{kind};{fee}")
    if total:
        shown = len(lines) if count is None else count
        rows.append(f"TOTAL;;;;{total};MAD;{shown};;{fees}")
    return ("\r\n".join(rows) + "\r\n").encode()
