"""Receipts and printed notices, rules that can be said in any language, cancelled invoices.

Adds columns with defaults that need no rewrite, and tables. Stop the workers of the version before:
what they book afterwards is in no line for a receipt (`wasl receipts issue` finds it).
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0003"
down_revision = "0002"

APPEND_ONLY = ("receipt",)

# Once taken back, an invoice stays so, and so does the reason.
OTHER_TRIGGERS = (("stays_cancelled", "invoice", "wasl_refuse_other_facts"),)

# Of the functions' bodies, and of the names of constraints and unique indexes, as all migrations
# make them: what was emptied or dropped shows in the check of the books. A test keeps them right.
CONSTRAINTS_MD5 = "75bfce77ba0c5af5df8ba6a6913f4398"
FUNCTIONS_MD5 = "5018dc3fe6045f3bece490066b89bd72"

_CODES = (
    "unknown_reference",
    "overpaid",
    "paid_twice",
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
)


def _codes_are(codes: tuple[str, ...]) -> None:
    name = op.f("coded_exception_code_check")
    op.drop_constraint(name, "coded_exception")
    listed = ", ".join(f"'{code}'" for code in codes)
    op.create_check_constraint(name, "coded_exception", f"code IN ({listed})")


def upgrade() -> None:
    op.add_column("rule", sa.Column("facts", JSONB(), nullable=False, server_default="{}"))
    _facts_of_known_rules()
    op.add_column("invoice", sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("invoice", sa.Column("cancelled_because", sa.String(), nullable=True))
    op.create_check_constraint(
        op.f("invoice_cancelled_because_check"),
        "invoice",
        "(cancelled_at IS NULL) = (cancelled_because IS NULL)",
    )
    op.create_check_constraint(
        op.f("invoice_cancelled_check"), "invoice", "cancelled_at IS NULL OR paid_minor = 0"
    )
    op.execute(
        "CREATE TRIGGER stays_cancelled BEFORE UPDATE ON invoice FOR EACH ROW"
        " WHEN (OLD.cancelled_at IS NOT NULL AND (OLD.cancelled_at, OLD.cancelled_because)"
        " IS DISTINCT FROM (NEW.cancelled_at, NEW.cancelled_because))"
        " EXECUTE FUNCTION wasl_refuse_other_facts()"
    )
    after = _CODES.index("paid_twice") + 1
    _codes_are((*_CODES[:after], "paid_cancelled", *_CODES[after:]))
    _receipts()
    _print_runs()


def _facts_of_known_rules() -> None:
    """Take the figures out of the sentences that the version before wrote."""
    op.execute("ALTER TABLE rule DISABLE TRIGGER append_only")
    op.execute(
        """
        UPDATE rule SET facts = jsonb_build_object('form', 'share-of-smig', 'coefficient', f[1],
            'smig', f[2], 'hours', f[3], 'rate', f[4])
        FROM (SELECT id, regexp_match(rule, '^[a-z0-9-]+: ([0-9.]+) × SMIG ([0-9.]+)/h'
            ' × ([0-9.]+) h × ([0-9.]+) %$') AS f FROM rule) AS found
        WHERE found.id = rule.id AND f IS NOT NULL
        """
    )
    op.execute(
        """
        UPDATE rule SET facts = jsonb_build_object('form', 'band-' || replace(f[2], ' ', '-'),
            'base', f[1], 'edge', f[3])
        FROM (SELECT id, regexp_match(rule,
            '^[a-z0-9-]+: fixed amount, (.+) (below|up to|above) ([0-9.]+)$') AS f FROM rule)
            AS found
        WHERE found.id = rule.id AND f IS NOT NULL
        """
    )
    op.execute("ALTER TABLE rule ENABLE TRIGGER append_only")


def _receipts() -> None:
    op.create_table(
        "receipt",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("invoice_id", sa.BigInteger(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("number ~ '^R[0-9]{2}-[0-9]{9}$'", name=op.f("receipt_number_check")),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payment.id"], name=op.f("receipt_payment_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoice.id"], name=op.f("receipt_invoice_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("receipt_pkey")),
        sa.UniqueConstraint("number", name=op.f("receipt_number_key")),
        sa.UniqueConstraint("payment_id", name=op.f("receipt_payment_id_key")),
    )
    op.create_index(op.f("receipt_invoice_id_idx"), "receipt", ["invoice_id"])
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON receipt"
        " FOR EACH STATEMENT EXECUTE FUNCTION wasl_refuse()"
    )
    op.execute("CREATE SEQUENCE receipt_number MINVALUE 0 MAXVALUE 999999999 START 0 NO CYCLE")
    op.create_table(
        "receipt_due",
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payment.id"], name=op.f("receipt_due_payment_id_fkey")
        ),
        sa.PrimaryKeyConstraint("payment_id", name=op.f("receipt_due_pkey")),
    )
    op.execute(
        "INSERT INTO receipt_due SELECT id FROM payment"
        " WHERE status = 'booked' AND invoice_id IS NOT NULL"
    )


def _print_runs() -> None:
    op.create_table(
        "print_run",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("selection", sa.String(), nullable=False),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("pages", sa.Integer(), nullable=False),
        sa.Column("ordered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("print_run_pkey")),
    )
    op.create_index(
        "print_run_open_key",
        "print_run",
        ["selection"],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "print_file",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("invoice_ids", ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("printed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pages", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["print_run.id"], name=op.f("print_file_run_id_fkey")),
        sa.PrimaryKeyConstraint("run_id", "position", name=op.f("print_file_pkey")),
    )


def downgrade() -> None:
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (SELECT FROM receipt) OR EXISTS (SELECT FROM invoice WHERE cancelled_at
                IS NOT NULL) OR EXISTS (SELECT FROM coded_exception WHERE code = 'paid_cancelled')
            THEN
                RAISE EXCEPTION 'receipts were given or invoices cancelled: there is no way back';
            END IF;
        END $$
        """
    )
    op.drop_table("print_file")
    op.drop_table("print_run")
    op.drop_table("receipt_due")
    op.drop_table("receipt")
    op.execute("DROP SEQUENCE receipt_number")
    _codes_are(_CODES)
    op.execute("DROP TRIGGER stays_cancelled ON invoice")
    op.drop_column("invoice", "cancelled_because")
    op.drop_column("invoice", "cancelled_at")
    op.drop_column("rule", "facts")
