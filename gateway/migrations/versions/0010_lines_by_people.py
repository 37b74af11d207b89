"""The few lines that people joined are found among the millions that runs made.

Most lines are a group by themselves: those need not say that they are the first of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

FIRST = ("payment_line", "record_line")


def upgrade() -> None:
    op.create_index(
        "match_line_by_people_idx",
        "match_line",
        ["group_id"],
        unique=False,
        postgresql_where=sa.text("decided_by IS NOT NULL"),
    )
    for column in FIRST:
        op.alter_column("match_line", column, server_default="0")


def downgrade() -> None:
    for column in FIRST:
        op.alter_column("match_line", column, server_default=None)
    op.drop_index("match_line_by_people_idx", table_name="match_line")
