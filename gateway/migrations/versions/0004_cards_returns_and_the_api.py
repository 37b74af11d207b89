"""Money given back in part, payers sent to a card page, the API's keys, answers and events.

Adds columns with defaults that need no rewrite, and tables; what was matched before is written
anew with its amounts. The version before does not write
events: what it books beside this migration is in the books and missing in the feed.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"

APPEND_ONLY = ("event",)
NEVER_DELETED = ("payment_return", "payment_attempt", "api_key")
FACTS = {
    "payment_return": (
        "provider",
        "provider_payment_id",
        "return_id",
        "kind",
        "recorded_at",
    ),
    "payment_attempt": ("invoice_id", "provider", "amount_minor", "language", "made_at"),
    "api_key": ("role", "scope", "secret_sha256", "created_at"),
}
OTHER_TRIGGERS = (("attempt_ends", "payment_attempt", "wasl_refuse_other_facts"),)

# As in the migration before: of what is in force after this one.
CONSTRAINTS_MD5 = "254179a479852c72e6d9c5dc5db5862d"
FUNCTIONS_MD5 = "5018dc3fe6045f3bece490066b89bd72"

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
)
_NEW_CODES = ("wrong_mode", "payment_disputed", "over_returned", "return_without_payment")
_AMOUNT_MAX = 10**12


def _codes_are(codes: tuple[str, ...]) -> None:
    name = op.f("coded_exception_code_check")
    op.drop_constraint(name, "coded_exception")
    listed = ", ".join(f"'{code}'" for code in codes)
    op.create_check_constraint(name, "coded_exception", f"code IN ({listed})")


def upgrade() -> None:
    op.add_column(
        "payment", sa.Column("returned_minor", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.create_check_constraint(
        op.f("payment_returned_check"), "payment", "returned_minor BETWEEN 0 AND amount_minor"
    )
    op.create_index(op.f("contributor_region_id_idx"), "contributor", ["region", "id"])
    _codes_are((*_CODES, *_NEW_CODES))
    _matched_amounts()
    _returns()
    _attempts()
    _api()
    _events()
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
        old = ", ".join(f"OLD.{c}" for c in columns)
        new = ", ".join(f"NEW.{c}" for c in columns)
        op.execute(
            f"CREATE TRIGGER facts_stand BEFORE UPDATE ON {table} FOR EACH ROW"
            f" WHEN (({old}) IS DISTINCT FROM ({new})) EXECUTE FUNCTION wasl_refuse_other_facts()"
        )
    # What is paid stays paid. What was closed may still turn out to be paid, and nothing else.
    op.execute(
        "CREATE TRIGGER attempt_ends BEFORE UPDATE ON payment_attempt FOR EACH ROW"
        " WHEN (OLD.state <> NEW.state AND (OLD.state = 'paid'"
        " OR (OLD.state = 'closed' AND NEW.state <> 'paid')))"
        " EXECUTE FUNCTION wasl_refuse_other_facts()"
    )


def _matched_amounts() -> None:
    op.add_column("matched_payment", sa.Column("amount_minor", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE matched_payment SET amount_minor = payment.amount_minor"
        " FROM payment WHERE payment.id = payment_id"
    )
    op.alter_column("matched_payment", "amount_minor", nullable=False)


def _returns() -> None:
    op.create_table(
        "payment_return",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("provider_payment_id", sa.String(), nullable=False),
        sa.Column("return_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("restored_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind IN ('refund', 'refund_total', 'dispute')", name=op.f("payment_return_kind_check")
        ),
        sa.CheckConstraint(
            "state IN ('announced', 'given', 'restored')", name=op.f("payment_return_state_check")
        ),
        sa.CheckConstraint(
            f"amount_minor BETWEEN 0 AND {_AMOUNT_MAX}", name=op.f("payment_return_amount_check")
        ),
        sa.CheckConstraint(
            "outcome IS NULL OR kind = 'dispute'", name=op.f("payment_return_outcome_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("payment_return_pkey")),
        sa.UniqueConstraint(
            "provider", "kind", "return_id", name=op.f("payment_return_provider_kind_return_id_key")
        ),
    )
    op.create_index(
        op.f("payment_return_provider_provider_payment_id_idx"),
        "payment_return",
        ["provider", "provider_payment_id"],
    )


def _attempts() -> None:
    op.create_table(
        "payment_attempt",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("invoice_id", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False, server_default="made"),
        sa.Column("session_id", sa.String(), nullable=True),
        sa.Column("page_url", sa.String(), nullable=True),
        sa.Column("provider_payment_id", sa.String(), nullable=True),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("ask_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_because", sa.String(), nullable=True),
        sa.CheckConstraint(
            "state IN ('made', 'sent', 'paid', 'closed')", name=op.f("payment_attempt_state_check")
        ),
        sa.CheckConstraint(
            f"amount_minor BETWEEN 1 AND {_AMOUNT_MAX}", name=op.f("payment_attempt_amount_check")
        ),
        sa.CheckConstraint("language IN ('fr', 'ar')", name=op.f("payment_attempt_language_check")),
        sa.CheckConstraint(
            "(state = 'closed') = (closed_because IS NOT NULL)",
            name=op.f("payment_attempt_closed_check"),
        ),
        sa.CheckConstraint(
            "state <> 'sent' OR session_id IS NOT NULL", name=op.f("payment_attempt_sent_check")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoice.id"], name=op.f("payment_attempt_invoice_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("payment_attempt_pkey")),
        sa.UniqueConstraint(
            "provider", "session_id", name=op.f("payment_attempt_provider_session_id_key")
        ),
    )
    op.create_index(
        "payment_attempt_open_key",
        "payment_attempt",
        ["invoice_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('made', 'sent')"),
    )
    op.create_index(
        "payment_attempt_ask_idx",
        "payment_attempt",
        ["ask_at"],
        postgresql_where=sa.text("ask_at IS NOT NULL"),
    )


def _api() -> None:
    op.add_column("api_key", sa.Column("label", sa.String(), nullable=False, server_default=""))
    op.add_column("api_key", sa.Column("scope", sa.String(), nullable=True))
    op.create_check_constraint(
        op.f("api_key_scope_check"), "api_key", "scope IS NULL OR role IN ('chamber', 'provider')"
    )
    op.create_table(
        "idempotent_answer",
        sa.Column("api_key_id", sa.String(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=False),
        sa.Column("request_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("headers", JSONB(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "length(request_sha256) = 32", name=op.f("idempotent_answer_request_check")
        ),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["api_key.id"], name=op.f("idempotent_answer_api_key_id_fkey")
        ),
        sa.PrimaryKeyConstraint(
            "api_key_id", "idempotency_key", name=op.f("idempotent_answer_pkey")
        ),
    )
    op.create_index(op.f("idempotent_answer_answered_at_idx"), "idempotent_answer", ["answered_at"])


def _events() -> None:
    op.create_table(
        "event",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("invoice_id", sa.BigInteger(), nullable=True),
        sa.Column("payment_id", sa.BigInteger(), nullable=True),
        sa.Column("data", JSONB(), nullable=False),
        sa.Column("happened_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "type IN ('invoice.issued', 'invoice.cancelled', 'payment.booked', 'payment.returned',"
            " 'payment.reversed', 'exception.opened', 'exception.resolved',"
            " 'reconciliation.finished')",
            name=op.f("event_type_check"),
        ),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoice.id"], name=op.f("event_invoice_id_fkey")),
        sa.ForeignKeyConstraint(["payment_id"], ["payment.id"], name=op.f("event_payment_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("event_pkey")),
    )


def downgrade() -> None:
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (SELECT FROM payment_return) OR EXISTS (SELECT FROM payment_attempt)
                OR EXISTS (SELECT FROM coded_exception WHERE code IN ('wrong_mode',
                    'payment_disputed', 'over_returned', 'return_without_payment')) THEN
                RAISE EXCEPTION 'money was given back or payers sent out: there is no way back';
            END IF;
        END $$
        """
    )
    op.execute("DROP TRIGGER never_deleted ON api_key")
    op.execute("DROP TRIGGER facts_stand ON api_key")
    for table in ("event", "idempotent_answer", "payment_attempt", "payment_return"):
        op.drop_table(table)
    op.drop_constraint(op.f("api_key_scope_check"), "api_key")
    op.drop_column("api_key", "scope")
    op.drop_column("api_key", "label")
    _codes_are(_CODES)
    op.drop_column("matched_payment", "amount_minor")
    op.drop_index(op.f("contributor_region_id_idx"), "contributor")
    op.drop_column("payment", "returned_minor")
