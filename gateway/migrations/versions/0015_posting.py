"""Cheaper posting: what is judged row by row, or looked up time and again, is judged at once.

Who names a payment mostly names also the invoice that the payment quoted, which was looked up when
the payment was written: only other pairs are looked up by themselves. Reversals are compared with
what they reverse for all rows of a statement: a trigger for each row kept COPY from writing pages
at once. And facts are compared where a statement sets one of them.
"""

import importlib
from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

OTHER_TRIGGERS = ()

# As in the migrations before: of what is in force after this one.
CONSTRAINTS_MD5 = "e8b3ff0cdeddd9c83b9cfe55245ed86b"
FUNCTIONS_MD5 = "dbc6c9fe690c63f2318586b724a15772"

_INVOICE = (
    "reference",
    "contributor_id",
    "category_code",
    "period",
    "due_on",
    "amount_minor",
    "tariff",
    "issued_at",
)
_DELIVERY = ("provider", "delivery_id", "body_sha256", "received_at", "path")


def upgrade() -> None:
    _facts_stand("BEFORE UPDATE OF", "C")
    _transfers()
    op.drop_index(op.f("allocation_payment_id_idx"), table_name="allocation")
    op.drop_constraint(op.f("allocation_pkey"), "allocation")
    op.create_primary_key(op.f("allocation_pkey"), "allocation", ["payment_id", "id"])
    _names_stand("allocation", _PAIRS.format(table="allocation"))
    _names_stand("ledger_transfer", _ENTRIES + _PAIRS.format(table="ledger_transfer"))
    _names_stand("payment", _QUOTED, "")


def _differ(columns: tuple[str, ...]) -> str:
    old, new = (", ".join(f"{row}.{column}" for column in columns) for row in ("OLD", "NEW"))
    return f"({old}) IS DISTINCT FROM ({new})"


def _facts_stand(when: str, collation: str) -> None:
    """Have the facts of what posting updates compared.

    Args:
        when: The event. A column is only ever changed by a statement that sets it.
        collation: Of references: by bytes, they are found without asking a language's rules.
    """
    masked = "OLD.masked_at IS NULL AND NEW.masked_at IS NOT NULL"
    forgot = "OLD.masked_at IS NOT NULL AND NEW.masked_at IS DISTINCT FROM OLD.masked_at"
    named = {
        "invoice": (_INVOICE, _differ(_INVOICE)),
        "webhook_delivery": (
            (*_DELIVERY, "body", "masked_at"),
            f"{_differ(_DELIVERY)} OR {forgot} OR {_differ(('body',))} AND NOT ({masked})",
        ),
    }
    for table, (columns, condition) in named.items():
        of = ", ".join(columns) if when.endswith(" OF") else ""
        op.execute(f"DROP TRIGGER facts_stand ON {table}")
        if table == "invoice":
            op.execute(f'ALTER TABLE invoice ALTER reference TYPE varchar COLLATE "{collation}"')
        op.execute(
            f"CREATE TRIGGER facts_stand {when} {of} ON {table} FOR EACH ROW WHEN ({condition})"
            " EXECUTE FUNCTION wasl_refuse_other_facts()"
        )


def _transfers() -> None:
    """Judge what reverses for a whole statement; it also finds what is not there to be reversed."""
    op.execute("DROP TRIGGER reversal_is_opposite ON ledger_transfer")
    op.execute(
        """
        CREATE OR REPLACE FUNCTION wasl_reversal_is_opposite() RETURNS trigger LANGUAGE plpgsql
        SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
        DECLARE
            wrong record;
        BEGIN
            SELECT f.id, f.reverses_id INTO wrong FROM fresh AS f
            LEFT JOIN ledger_transfer AS r ON r.id = f.reverses_id
            WHERE f.reverses_id IS NOT NULL AND (r.id IS NULL OR r.reverses_id IS NOT NULL
                OR (r.debit_account_id, r.credit_account_id, r.amount_minor)
                    IS DISTINCT FROM (f.credit_account_id, f.debit_account_id, f.amount_minor)
                OR (r.payment_id, r.invoice_id) IS DISTINCT FROM (f.payment_id, f.invoice_id))
            LIMIT 1;
            IF FOUND THEN
                RAISE EXCEPTION 'ledger_transfer %: not the opposite of transfer %',
                    wrong.id, wrong.reverses_id USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER reversal_is_opposite AFTER INSERT ON ledger_transfer REFERENCING NEW TABLE"
        " AS fresh FOR EACH STATEMENT EXECUTE FUNCTION wasl_reversal_is_opposite()"
    )
    table, key = "ledger_transfer", op.f("ledger_transfer_reverses_id_key")
    op.drop_constraint(op.f("ledger_transfer_reverses_id_fkey"), table)
    op.drop_constraint(key, table)
    op.create_index(
        key,
        table,
        ["reverses_id"],
        unique=True,
        postgresql_where=sa.text("reverses_id IS NOT NULL"),
    )


_SPAN: Final = """
        DECLARE
            lowest bigint;
            highest bigint;
            many bigint;
            missing text;"""

_PAIRS: Final = """
            SELECT min(payment_id), max(payment_id), count(payment_id)
                INTO lowest, highest, many FROM fresh;
            IF highest - lowest >= 2 * many THEN
                lowest := NULL;
            END IF;
            SELECT CASE WHEN p.id IS NULL AND f.payment_id IS NOT NULL
                THEN 'payment_id: there is no such payment'
                ELSE 'invoice_id: there is no such invoice' END INTO missing
            FROM (SELECT payment_id, invoice_id FROM fresh
                EXCEPT SELECT id, invoice_id FROM payment WHERE id BETWEEN lowest AND highest) AS f
            LEFT JOIN payment AS p ON p.id = f.payment_id
            LEFT JOIN invoice AS i ON i.id = f.invoice_id
            WHERE p.id IS NULL AND f.payment_id IS NOT NULL
                OR i.id IS NULL AND f.invoice_id IS NOT NULL LIMIT 1;
            IF FOUND THEN
                RAISE EXCEPTION '{table}.%', missing USING ERRCODE = 'foreign_key_violation';
            END IF;"""

_ENTRIES: Final = """
            IF EXISTS (SELECT FROM
                    (SELECT DISTINCT batch_id, debit_account_id, credit_account_id FROM fresh) AS f
                LEFT JOIN ledger_batch AS b ON b.id = f.batch_id
                LEFT JOIN ledger_account AS d ON d.id = f.debit_account_id
                LEFT JOIN ledger_account AS c ON c.id = f.credit_account_id
                WHERE b.id IS NULL OR d.id IS NULL OR c.id IS NULL) THEN
                RAISE EXCEPTION 'ledger_transfer: there is no such ledger_batch or ledger_account'
                    USING ERRCODE = 'foreign_key_violation';
            END IF;"""

_QUOTED: Final = "".join(
    f"""
            IF EXISTS (SELECT FROM fresh AS f WHERE {named}_id IS NOT NULL
                    AND NOT EXISTS (SELECT FROM {named} AS n WHERE n.id = f.{named}_id)) THEN
                RAISE EXCEPTION 'payment.{named}_id: there is no such {named}'
                    USING ERRCODE = 'foreign_key_violation';
            END IF;"""
    for named in ("invoice", "bundle")
)


def _names_stand(table: str, checks: str, declared: str = _SPAN) -> None:
    """Have the trigger of the migrations before check what rows name in this way."""
    op.execute(
        f"""
        CREATE OR REPLACE FUNCTION wasl_{table}_names() RETURNS trigger LANGUAGE plpgsql
        SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $${declared}
        BEGIN{checks}
            RETURN NULL;
        END $$
        """
    )


def downgrade() -> None:
    before = importlib.import_module("gateway.migrations.versions.0007_cheaper_posting")
    for table in ("allocation", "ledger_transfer"):
        pointers = before._NAMES[table]
        checks = [before._span if n == "payment" else before._one_by_one for _, n in pointers]
        body = "".join(c(table, *pointer) for c, pointer in zip(checks, pointers, strict=True))
        before._names_stand(table, body, before._SPAN)
    pointers = (("invoice_id", "invoice"), ("bundle_id", "bundle"))
    before._names_stand("payment", "".join(before._one_by_one("payment", *p) for p in pointers))
    op.drop_constraint(op.f("allocation_pkey"), "allocation")
    op.create_primary_key(op.f("allocation_pkey"), "allocation", ["id"])
    op.create_index(op.f("allocation_payment_id_idx"), "allocation", ["payment_id"])
    _transfers_before()
    _facts_stand("BEFORE UPDATE", "default")


def _transfers_before() -> None:
    table, key = "ledger_transfer", op.f("ledger_transfer_reverses_id_key")
    op.drop_index(key, table)
    op.create_unique_constraint(key, table, ["reverses_id"])
    op.create_foreign_key(
        op.f("ledger_transfer_reverses_id_fkey"), table, table, ["reverses_id"], ["id"]
    )
    op.execute("DROP TRIGGER reversal_is_opposite ON ledger_transfer")
    op.execute("DROP FUNCTION wasl_reversal_is_opposite()")
    op.execute(
        """
        CREATE FUNCTION wasl_reversal_is_opposite() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            reversed ledger_transfer;
        BEGIN
            SELECT * INTO reversed FROM ledger_transfer WHERE id = NEW.reverses_id;
            IF reversed.reverses_id IS NOT NULL
                OR (reversed.debit_account_id, reversed.credit_account_id, reversed.amount_minor)
                    IS DISTINCT FROM (NEW.credit_account_id, NEW.debit_account_id, NEW.amount_minor)
                OR reversed.payment_id IS DISTINCT FROM NEW.payment_id
                OR reversed.invoice_id IS DISTINCT FROM NEW.invoice_id THEN
                RAISE EXCEPTION 'ledger_transfer %: not the opposite of transfer %',
                    NEW.id, NEW.reverses_id USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER reversal_is_opposite BEFORE INSERT ON ledger_transfer FOR EACH ROW"
        " WHEN (NEW.reverses_id IS NOT NULL) EXECUTE FUNCTION wasl_reversal_is_opposite()"
    )
