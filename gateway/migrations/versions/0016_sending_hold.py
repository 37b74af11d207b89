"""Sending outward can be held: after a restore it is, until an operator says go."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

OTHER_TRIGGERS = ()

# As in the migrations before: of what is in force after this one.
CONSTRAINTS_MD5 = "12a296e2f3087fad360caaba9cd42c8b"
FUNCTIONS_MD5 = "dbc6c9fe690c63f2318586b724a15772"


def upgrade() -> None:
    op.create_table(
        "sending_hold",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.Column("held_by", sa.String(), nullable=False),
        sa.Column("held_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("released_by", sa.String(), nullable=True),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(released_by IS NULL) = (released_at IS NULL)",
            name=op.f("sending_hold_released_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("sending_hold_pkey")),
    )
    op.create_index(
        "sending_hold_open_key",
        "sending_hold",
        [sa.text("(released_at IS NULL)")],
        unique=True,
        postgresql_where=sa.text("released_at IS NULL"),
    )


def downgrade() -> None:
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (SELECT FROM sending_hold WHERE released_at IS NULL) THEN
                RAISE EXCEPTION 'sending is held: the version before would send';
            END IF;
        END $$
        """
    )
    op.drop_table("sending_hold")
