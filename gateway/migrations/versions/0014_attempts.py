"""Attempts for several invoices by one reference; by a code at an agency, or asked on a phone."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_OPEN = "state IN ('made', 'sent')"
_MANNERS = ("page", "token", "push")


def upgrade() -> None:
    table = "payment_attempt"
    op.alter_column(table, "invoice_id", existing_type=sa.BigInteger(), nullable=True)
    op.add_column(table, sa.Column("bundle_id", sa.BigInteger(), nullable=True))
    op.add_column(
        table, sa.Column("manner", sa.String(length=32), server_default="page", nullable=False)
    )
    op.add_column(table, sa.Column("code", sa.String(), nullable=True))
    op.create_foreign_key(
        op.f("payment_attempt_bundle_id_fkey"), table, "bundle", ["bundle_id"], ["id"]
    )
    op.create_check_constraint(
        op.f("payment_attempt_whose_check"), table, "num_nonnulls(invoice_id, bundle_id) = 1"
    )
    listed = ", ".join(f"'{each}'" for each in _MANNERS)
    op.create_check_constraint(op.f("payment_attempt_manner_check"), table, f"manner IN ({listed})")
    op.create_index(
        "payment_attempt_open_bundle_key",
        table,
        ["bundle_id"],
        unique=True,
        postgresql_where=sa.text(_OPEN),
    )
    op.create_index(op.f("payment_attempt_bundle_id_made_at_idx"), table, ["bundle_id", "made_at"])


def downgrade() -> None:
    table = "payment_attempt"
    op.drop_index(op.f("payment_attempt_bundle_id_made_at_idx"), table_name=table)
    op.drop_index("payment_attempt_open_bundle_key", table_name=table)
    for each in ("manner", "whose"):
        op.drop_constraint(op.f(f"payment_attempt_{each}_check"), table)
    for each in ("code", "manner", "bundle_id"):
        op.drop_column(table, each)
    op.alter_column(table, "invoice_id", existing_type=sa.BigInteger(), nullable=False)
