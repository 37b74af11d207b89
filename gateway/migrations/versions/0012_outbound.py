"""Outbound webhooks: endpoints, their secrets, where they stand in the feed, attempts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0012"
down_revision = "0011"

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
    "refund_failed",
    "missing_statement",
)
_NEW_CODES = ("endpoint_disabled",)
_TABLES = ("webhook_attempt", "webhook_walk", "webhook_secret", "webhook_endpoint")


def _codes_are(codes: tuple[str, ...]) -> None:
    name = op.f("coded_exception_code_check")
    op.drop_constraint(name, "coded_exception")
    listed = ", ".join(f"'{code}'" for code in codes)
    op.create_check_constraint(name, "coded_exception", f"code IN ({listed})")


def upgrade() -> None:
    _codes_are((*_CODES, *_NEW_CODES))
    _endpoints()
    _walks()


def _endpoints() -> None:
    op.create_table(
        "webhook_endpoint",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("types", ARRAY(sa.Text()), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("added_by", sa.String(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_because", sa.String(), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("cardinality(types) > 0", name=op.f("webhook_endpoint_types_check")),
        sa.CheckConstraint(
            "(disabled_at IS NULL) = (disabled_because IS NULL)",
            name=op.f("webhook_endpoint_disabled_because_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_endpoint_pkey")),
    )
    op.create_table(
        "webhook_secret",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("endpoint_id", sa.BigInteger(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("made_by", sa.String(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["webhook_endpoint.id"], name=op.f("webhook_secret_endpoint_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_secret_pkey")),
    )
    op.create_index(
        "webhook_secret_standing_key",
        "webhook_secret",
        ["endpoint_id"],
        unique=True,
        postgresql_where=sa.text("ends_at IS NULL"),
    )
    op.create_index(
        op.f("webhook_secret_endpoint_id_idx"), "webhook_secret", ["endpoint_id"], unique=False
    )


def _walks() -> None:
    op.create_table(
        "webhook_walk",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("endpoint_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("at_event", sa.BigInteger(), nullable=False),
        sa.Column("upto_event", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("taken", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind IN ('feed', 'resend', 'test')", name=op.f("webhook_walk_kind_check")
        ),
        sa.CheckConstraint(
            "(kind = 'feed') = (upto_event IS NULL)", name=op.f("webhook_walk_upto_event_check")
        ),
        sa.CheckConstraint(
            "attempts >= 0 AND taken >= 0 AND failed >= 0", name=op.f("webhook_walk_counts_check")
        ),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["webhook_endpoint.id"], name=op.f("webhook_walk_endpoint_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_walk_pkey")),
    )
    op.create_index(
        "webhook_walk_feed_key",
        "webhook_walk",
        ["endpoint_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'feed'"),
    )
    op.create_index(
        op.f("webhook_walk_endpoint_id_id_idx"), "webhook_walk", ["endpoint_id", "id"], unique=False
    )
    op.create_table(
        "webhook_attempt",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("endpoint_id", sa.BigInteger(), nullable=False),
        sa.Column("walk_id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=True),
        sa.Column("message_id", sa.String(), nullable=False),
        sa.Column("attempted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ms", sa.Integer(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["webhook_endpoint.id"], name=op.f("webhook_attempt_endpoint_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["walk_id"], ["webhook_walk.id"], name=op.f("webhook_attempt_walk_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_attempt_pkey")),
    )
    op.create_index(
        op.f("webhook_attempt_endpoint_id_id_idx"),
        "webhook_attempt",
        ["endpoint_id", "id"],
        unique=False,
    )


def downgrade() -> None:
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (SELECT FROM webhook_endpoint)
                OR EXISTS (SELECT FROM coded_exception WHERE code = 'endpoint_disabled') THEN
                RAISE EXCEPTION 'somebody is told of what happens: there is no way back';
            END IF;
        END $$
        """
    )
    for table in _TABLES:
        op.drop_table(table)
    _codes_are(_CODES)
