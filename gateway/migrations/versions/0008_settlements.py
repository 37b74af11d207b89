"""What providers and banks say they paid out, and what it was found to stand for.

Files, statements and lines are append-only. A group that no longer holds is undone, not deleted.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0008"
down_revision = "0007"

APPEND_ONLY = ("settlement_file", "settlement_statement", "settlement_line")
NEVER_DELETED = ("settlement_group",)
FACTS = {"settlement_group": ("provider", "by_bank", "rule", "settled_at")}
OTHER_TRIGGERS: tuple[tuple[str, str, str], ...] = ()

# As in the migration before: of what is in force after this one.
CONSTRAINTS_MD5 = "8b6025d69e89d644b28c40d5c59b7f0f"
FUNCTIONS_MD5 = "7a61a2b71d0b7db070009e67ae256bab"

_CODES = (
    "unknown_reference",
    "overpaid",
    "paid_twice",
    "paid_cancelled",
    "wrong_currency",
    "invalid_amount",
    "conflicting_delivery",
    "conflicting_payment",
    "conflicting_record",
    "unreadable_delivery",
    "parked_delivery",
    "implausible_date",
    "payment_without_record",
    "record_without_payment",
    "amount_differs",
    "ambiguous_match",
    "wrong_mode",
    "payment_disputed",
    "over_returned",
    "return_without_payment",
)
_NEW_CODES = ("missing_statement",)


def _codes_are(codes: tuple[str, ...]) -> None:
    name = op.f("coded_exception_code_check")
    op.drop_constraint(name, "coded_exception")
    listed = ", ".join(f"'{code}'" for code in codes)
    op.create_check_constraint(name, "coded_exception", f"code IN ({listed})")


def upgrade() -> None:
    _codes_are((*_CODES, *_NEW_CODES))
    _said()
    _settled()
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION wasl_refuse()"
        )
    for table in NEVER_DELETED:
        op.execute(
            f"CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION wasl_refuse()"
        )
    for table, columns in FACTS.items():
        old, new = (", ".join(f"{row}.{column}" for column in columns) for row in ("OLD", "NEW"))
        op.execute(
            f"CREATE TRIGGER facts_stand BEFORE UPDATE ON {table} FOR EACH ROW"
            f" WHEN (({old}) IS DISTINCT FROM ({new})) EXECUTE FUNCTION wasl_refuse_other_facts()"
        )


def _said() -> None:
    op.create_table(
        "settlement_file",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("imported_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("settlement_file_pkey")),
        sa.UniqueConstraint("provider", "sha256", name=op.f("settlement_file_provider_sha256_key")),
    )
    op.create_table(
        "settlement_statement",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("file_id", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("form", sa.String(length=32), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("opening_minor", sa.BigInteger(), nullable=True),
        sa.Column("closing_minor", sa.BigInteger(), nullable=True),
        sa.Column("from_on", sa.Date(), nullable=True),
        sa.Column("to_on", sa.Date(), nullable=True),
        sa.Column("content_sha256", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "form IN ('camt.053', 'camt.054', 'mt940', 'csv')",
            name=op.f("settlement_statement_form_check"),
        ),
        sa.CheckConstraint(
            "(from_on IS NULL) = (to_on IS NULL)", name=op.f("settlement_statement_days_check")
        ),
        sa.CheckConstraint(
            "(opening_minor IS NULL) = (closing_minor IS NULL)",
            name=op.f("settlement_statement_balances_check"),
        ),
        sa.ForeignKeyConstraint(
            ["file_id"], ["settlement_file.id"], name=op.f("settlement_statement_file_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("settlement_statement_pkey")),
        sa.UniqueConstraint(
            "provider",
            "content_sha256",
            name=op.f("settlement_statement_provider_content_sha256_key"),
        ),
    )
    op.create_index(
        op.f("settlement_statement_provider_account_idx"),
        "settlement_statement",
        ["provider", "account"],
        unique=False,
    )
    op.create_table(
        "settlement_line",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("statement_id", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("entry_key", sa.String(), nullable=False),
        sa.Column("transaction", sa.Integer(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("entry_minor", sa.BigInteger(), nullable=False),
        sa.Column("booked_on", sa.Date(), nullable=True),
        sa.Column("value_on", sa.Date(), nullable=True),
        sa.Column("happened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("payment_ids", ARRAY(sa.Text()), nullable=False),
        sa.Column("quoted", ARRAY(sa.Text()), nullable=False),
        sa.Column("bank_reference", sa.String(), nullable=True),
        sa.Column("is_reversal", sa.Boolean(), nullable=False),
        sa.Column("return_reason", sa.String(), nullable=True),
        sa.Column("fee_minor", sa.BigInteger(), nullable=True),
        sa.Column("batch_of", sa.Integer(), nullable=True),
        sa.Column("details_minor", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('payment', 'reversal', 'fee', 'other')",
            name=op.f("settlement_line_kind_check"),
        ),
        sa.CheckConstraint(
            "amount_minor <> 0 AND abs(amount_minor) <= 1000000000000",
            name=op.f("settlement_line_amount_check"),
        ),
        sa.CheckConstraint(
            "transaction > 0 OR amount_minor = entry_minor",
            name=op.f("settlement_line_entry_check"),
        ),
        sa.CheckConstraint("transaction >= 0", name=op.f("settlement_line_transaction_check")),
        sa.ForeignKeyConstraint(
            ["statement_id"],
            ["settlement_statement.id"],
            name=op.f("settlement_line_statement_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("settlement_line_pkey")),
        sa.UniqueConstraint(
            "provider",
            "entry_key",
            "transaction",
            name=op.f("settlement_line_provider_entry_key_transaction_key"),
        ),
    )
    op.create_index(
        op.f("settlement_line_statement_id_idx"), "settlement_line", ["statement_id"], unique=False
    )


def _settled() -> None:
    op.create_table(
        "settlement_group",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("by_bank", sa.Boolean(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("undone_because", sa.String(), nullable=True),
        sa.CheckConstraint(
            "(undone_at IS NULL) = (undone_because IS NULL)",
            name=op.f("settlement_group_undone_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("settlement_group_pkey")),
    )
    op.create_table(
        "settled_payment",
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("by_bank", sa.Boolean(), nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["settlement_group.id"], name=op.f("settled_payment_group_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payment.id"], name=op.f("settled_payment_payment_id_fkey")
        ),
        sa.PrimaryKeyConstraint(
            "payment_id", "provider", "by_bank", name=op.f("settled_payment_pkey")
        ),
    )
    op.create_index(
        op.f("settled_payment_group_id_idx"), "settled_payment", ["group_id"], unique=False
    )
    op.create_table(
        "settled_line",
        sa.Column("line_id", sa.BigInteger(), nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["settlement_group.id"], name=op.f("settled_line_group_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["line_id"], ["settlement_line.id"], name=op.f("settled_line_line_id_fkey")
        ),
        sa.PrimaryKeyConstraint("line_id", name=op.f("settled_line_pkey")),
    )
    op.create_index(op.f("settled_line_group_id_idx"), "settled_line", ["group_id"], unique=False)


def downgrade() -> None:
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (SELECT FROM settlement_file)
                OR EXISTS (SELECT FROM coded_exception WHERE code = 'missing_statement') THEN
                RAISE EXCEPTION 'settlement files were applied: there is no way back';
            END IF;
        END $$
        """
    )
    for table in (
        "settled_payment",
        "settled_line",
        "settlement_group",
        "settlement_line",
        "settlement_statement",
        "settlement_file",
    ):
        op.drop_table(table)
    _codes_are(_CODES)
