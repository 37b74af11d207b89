"""What people are written to: messages in line, who wants none, how far was looked."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "message",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("contributor_id", sa.BigInteger(), nullable=False),
        sa.Column("about", sa.String(), nullable=False),
        sa.Column("invoice_id", sa.BigInteger(), nullable=True),
        sa.Column("payment_id", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(length=32), server_default="waiting", nullable=False),
        sa.Column("because", sa.String(), nullable=True),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("send_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("language", sa.String(), nullable=True),
        sa.Column("text", sa.String(), nullable=True),
        sa.Column("parts", sa.Integer(), nullable=True),
        sa.Column("sender", sa.String(), nullable=True),
        sa.Column("sender_id", sa.String(), nullable=True),
        sa.CheckConstraint(
            "(state = 'sent') = (sent_at IS NOT NULL) AND (state <> 'sent' OR num_nonnulls(language, text, parts, sender, sender_id) = 5)",
            name=op.f("message_sent_check"),
        ),
        sa.CheckConstraint(
            "kind IN ('notice', 'due_soon', 'late', 'paid', 'given_back')",
            name=op.f("message_kind_check"),
        ),
        sa.CheckConstraint("language IN ('fr', 'ar')", name=op.f("message_language_check")),
        sa.CheckConstraint(
            "state <> 'dropped' OR because IS NOT NULL", name=op.f("message_dropped_check")
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'sent', 'dropped')", name=op.f("message_state_check")
        ),
        sa.ForeignKeyConstraint(
            ["contributor_id"], ["contributor.id"], name=op.f("message_contributor_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoice.id"], name=op.f("message_invoice_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payment.id"], name=op.f("message_payment_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("message_pkey")),
        sa.UniqueConstraint(
            "contributor_id", "kind", "about", name=op.f("message_contributor_id_kind_about_key")
        ),
    )
    op.create_index(
        "message_waiting_idx",
        "message",
        ["send_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "message_stop",
        sa.Column("contributor_id", sa.BigInteger(), nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["contributor_id"], ["contributor.id"], name=op.f("message_stop_contributor_id_fkey")
        ),
        sa.PrimaryKeyConstraint("contributor_id", name=op.f("message_stop_pkey")),
    )
    op.create_table(
        "message_walk",
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("after_id", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("what", "day", name=op.f("message_walk_pkey")),
    )


def downgrade() -> None:
    for table in ("message_walk", "message_stop", "message"):
        op.drop_table(table)
