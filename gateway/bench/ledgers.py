"""Two ledgers that should agree and do not quite: what a match is timed on.

About four payments in a hundred have a defect as real collections do: a digit wrong or swapped,
groups in another order, a part of the reference, none but the payer's numbers, a rounding,
instalments, the same twice, a stranger, a wrong amount. Which, is drawn from a hash, so that a seed
gives the same ledgers. How well they are matched is judged by the tests, not here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import duckdb

_GIVEN: Final = (
    "Mohammed Ahmed Fatima Khadija Youssef Omar Aicha Hassan Rachid Said Karim Nadia Samira Hamza"
    " Salma Imane Mustapha Driss Brahim Latifa Naima Hicham Anas Amine Ayoub Sara"
    " Jamal Mehdi Tarik Houda"
)
_FAMILY: Final = (
    "Alaoui Bennani Berrada Tazi Fassi Idrissi Amrani Chraibi Cherkaoui Filali Guessous Hajji"
    " Kabbaj Lahlou Mansouri Naciri Ouazzani Sebti Skalli Tahiri Zniber Bouazza Daoudi"
    " Haddad Kettani"
)
_RATES: Final = (16352, 16352, 16352, 21803, 30000, 30000, 39000, 43605, 65408, 87211)

# What of a thousand payments is wrong with them, in this order; the rest is right.
_SHARES: Final = {
    "typo": 8,
    "swap": 6,
    "groups": 2,
    "spaced": 4,
    "cut": 2,
    "no_reference": 4,
    "rounding": 4,
    "instalments": 3,
    "twice": 1,
    "stranger": 1,
    "wrong_amount": 1,
    "unpaid": 2,
}
MONTHS: Final = 3


def _drawn(salt: str, below: int | str) -> str:
    return f"CAST(hash(i, seed, '{salt}') % {below} AS BIGINT)"


def _kind() -> str:
    cases, upto = [], 0
    for kind, share in _SHARES.items():
        upto += share
        cases.append(f"WHEN drawn < {upto} THEN '{kind}'")
    return f"CASE {' '.join(cases)} ELSE 'exact' END"


def _word(words: str, salt: str) -> str:
    listed = ", ".join(f"'{word}'" for word in words.split())
    return f"[{listed}][1 + CAST(hash(person, seed, '{salt}') % {len(words.split())} AS BIGINT)]"


_DUE: Final = f"""
    CREATE OR REPLACE TABLE due AS
    SELECT *, {_kind()} AS kind, payload * 100 + 98 - payload * 100 % 97 AS reference,
        CAST('2026-09-30' AS DATE) + CAST(30 * month AS INTEGER) - CAST(day AS INTEGER) AS posted_on
    FROM (
        SELECT i, person, month, seed, 1000000000 + i * 7919317 % 8999999981 AS payload,
            {_drawn("kind", 1000)} AS drawn, {_drawn("day", 20)} AS day,
            CAST(100000000 + person * 7919 % 899999981 AS VARCHAR) AS cnss_number,
            chr(CAST(65 + person % 26 AS INTEGER)) || (10000 + person * 7 % 989999) AS cin,
            {_word(_GIVEN, "given")} || ' ' || {_word(_FAMILY, "family")} AS name,
            CASE WHEN flat THEN 30000 ELSE {list(_RATES)}
                [1 + CAST(hash(person, seed, 'rate') % {len(_RATES)} AS BIGINT)] END AS amount
        FROM (
            SELECT i, i % people AS person, i // people AS month, seed, flat
            FROM range(?) t(i), (SELECT CAST(? AS BIGINT) AS people, ? AS seed, ? AS flat)
        )
    )
"""

# The reference as the payer gave it, from the right one as text.
_GIVEN_REFERENCE: Final = """
    CASE kind
    WHEN 'typo' THEN r[:place] || CAST((CAST(r[place + 1] AS INTEGER) + 1 + i % 9) % 10 AS VARCHAR)
        || r[place + 2:]
    WHEN 'swap' THEN r[:place] || r[place + 2] || r[place + 1] || r[place + 3:]
    WHEN 'groups' THEN r[5:8] || r[:4] || r[9:]
    WHEN 'spaced' THEN r[:4] || ' ' || r[5:8] || ' ' || r[9:]
    WHEN 'cut' THEN r[-8:]
    WHEN 'no_reference' THEN ''
    WHEN 'stranger' THEN CAST((payload + 1) * 100 + 98 - (payload + 1) * 100 % 97 AS VARCHAR)
    ELSE r END
"""

_PAYMENTS: Final = f"""
    SELECT 'P' || lpad(CAST(i AS VARCHAR), 9, '0') || '-' || part AS payment_id,
        {_GIVEN_REFERENCE} AS reference,
        CASE WHEN kind = 'stranger' THEN '' WHEN kind = 'no_reference' OR i % 5 < 3
            THEN cnss_number ELSE '' END AS cnss_number,
        CASE WHEN kind = 'stranger' THEN '' WHEN kind = 'no_reference' OR i % 2 = 0
            THEN cin ELSE '' END AS cin,
        CASE WHEN i % 10 = 0 THEN upper(name) ELSE name END AS name,
        printf('%d.%02d', minor // 100, minor % 100) AS amount,
        posted_on - CAST(i % 3 AS INTEGER) AS paid_on, 'wallet' AS channel,
        'TX' || lpad(CAST(i AS VARCHAR), 10, '0') || part AS provider_reference
    FROM (
        SELECT *, CAST(reference AS VARCHAR) AS r, {_drawn("place", 11)} AS place,
            CASE WHEN kind = 'rounding' THEN amount + 2
                WHEN kind = 'wrong_amount' THEN amount * 7 // 10
                WHEN kind = 'instalments' AND part = 1 THEN amount // 3
                WHEN kind = 'instalments' THEN amount - amount // 3 ELSE amount END AS minor
        FROM due CROSS JOIN (VALUES (1), (2)) times (part)
        WHERE kind <> 'unpaid' AND (part = 1 OR kind IN ('instalments', 'twice'))
    )
    ORDER BY hash(i, part)
"""

_RECORDS: Final = """
    SELECT 'R' || lpad(CAST(i AS VARCHAR), 9, '0') AS record_id,
        CAST(reference AS VARCHAR) AS reference, cnss_number, cin, name,
        strftime(CAST('2026-09-01' AS DATE) + to_months(CAST(month AS INTEGER)), '%Y-%m') AS period,
        printf('%d.%02d', amount // 100, amount % 100) AS amount, posted_on,
        'wallet' AS channel, '' AS provider_reference
    FROM due ORDER BY hash(i)
"""


def make_dues(
    con: duckdb.DuckDBPyConnection, records: int, *, seed: int = 1, flat: bool = False
) -> None:
    """Make the table `due`: so many dues of three months each, and what goes wrong with each.

    Args:
        con: Where the tables are made.
        records: How many dues.
        seed: The same gives the same.
        flat: Everybody owes the same amount.
    """
    con.execute(_DUE, [records, -(-records // MONTHS), seed, flat])


def write_ledgers(con: duckdb.DuckDBPyConnection, folder: Path) -> tuple[Path, Path]:
    """Write `payments.csv` and `records.csv` of `due`, as `wasl match` reads them."""
    payments, records = folder / "payments.csv", folder / "records.csv"
    for query, path in ((_PAYMENTS, payments), (_RECORDS, records)):
        con.execute(f"COPY ({query}) TO '{path}' (FORMAT csv, HEADER)")
    return payments, records


# -- the same dues as rows of a database ----------------------------------------------------------

_STORED: Final = {
    "contributor": """
        SELECT DISTINCT ON (person) person + 1 AS id, cnss_number, cin,
            string_split(name, ' ')[2] AS family_name, string_split(name, ' ')[1] AS given_name,
            'artisan-untaxed' AS category_code, '2022-01-01' AS registered_on,
            '2026-01-01T00:00:00Z' AS changed_at
        FROM due
    """,
    "invoice": """
        SELECT i + 1 AS id, reference, person + 1 AS contributor_id,
            'artisan-untaxed' AS category_code,
            strftime(CAST('2026-09-01' AS DATE) + to_months(CAST(month AS INTEGER)), '%Y-%m')
                AS period,
            '2026-12-31' AS due_on, amount AS amount_minor, amount AS owed_minor, 'bench' AS tariff,
            '2026-09-01T00:00:00Z' AS issued_at, amount AS paid_minor, 'paid' AS status,
            '\\x' || sha256(CAST(i AS VARCHAR)) AS seal
        FROM due
    """,
    "payment": """
        SELECT row_number() OVER (ORDER BY hash(i, part)) AS id, 'cashplus' AS provider,
            'CP-' || lpad(CAST(i AS VARCHAR), 10, '0') || part AS provider_payment_id,
            'booked' AS status, reference AS reference_given, i + 1 AS invoice_id,
            CASE WHEN kind <> 'instalments' THEN amount WHEN part = 1 THEN amount // 3
                ELSE amount - amount // 3 END AS amount_minor,
            'MAD' AS currency, 'cash_agent' AS channel, day_paid AS paid_at, day_paid AS stated_at,
            day_paid AS recorded_at, day_paid AS booked_at, 'delivery:cashplus/' || i AS source
        FROM (SELECT *, posted_on - 1 || 'T11:00:00Z' AS day_paid FROM due)
        CROSS JOIN (VALUES (1), (2)) times (part)
        WHERE kind <> 'unpaid' AND (part = 1 OR kind IN ('instalments', 'twice'))
    """,
    # What the payer got wrong in a file, the institution's clerk gets wrong here: our payments
    # have found their invoices.
    "institution_record": f"""
        SELECT row_number() OVER (ORDER BY hash(i)) AS id,
            'R' || lpad(CAST(i AS VARCHAR), 9, '0') AS record_id, given AS reference_given,
            CASE WHEN kind IN ('typo', 'swap', 'groups', 'cut', 'no_reference') THEN NULL
                ELSE replace(given, ' ', '') END AS reference,
            cnss_number, cin, name,
            strftime(CAST('2026-09-01' AS DATE) + to_months(CAST(month AS INTEGER)), '%Y-%m')
                AS period,
            CASE WHEN kind = 'wrong_amount' THEN amount * 7 // 10 ELSE amount END AS amount_minor,
            posted_on, 'cash_agent' AS channel,
            '\\x' || sha256(CAST(i AS VARCHAR)) AS content_sha256, 1 AS file_id
        FROM (
            SELECT *, {_GIVEN_REFERENCE} AS given FROM (
                SELECT *, CAST(reference AS VARCHAR) AS r, {_drawn("place", 11)} AS place FROM due
            )
        )
    """,
}


def write_rows(con: duckdb.DuckDBPyConnection, folder: Path) -> list[tuple[str, str, Path]]:
    """Write `due` as what a database would hold: (table, its columns, a CSV file), in order."""
    written = []
    for table, query in _STORED.items():
        path = folder / f"{table}.csv"
        columns = con.execute(f"SELECT * FROM ({query}) LIMIT 0").description
        con.execute(f"COPY ({query}) TO '{path}' (FORMAT csv, HEADER false, NULLSTR '')")
        written.append((table, ", ".join(column[0] for column in columns), path))
    return written
