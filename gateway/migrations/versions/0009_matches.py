"""Matches by lines, made for a million at once; runs in shards; what a person joined or parted.

What was matched before becomes lines, under the groups' least payments. Of what was undone before,
only the runs remain that had found it: which rows those groups had was not kept.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"

APPEND_ONLY = ("undone_match",)
NEVER_DELETED = ("parted_pair",)
FACTS = {
    "parted_pair": ("payment_id", "record_id", "decided_by", "why", "decided_at"),
}
OTHER_TRIGGERS = (
    ("never_changed", "match_line", "wasl_refuse"),
    ("id_stands", "institution_record", "wasl_refuse_other_facts"),
)

# As in the migration before: of what is in force after this one.
CONSTRAINTS_MD5 = "7b2fb8f5c8647736a2790b19a711cd3c"
FUNCTIONS_MD5 = "7a61a2b71d0b7db070009e67ae256bab"


def upgrade() -> None:
    _runs()
    _tables()
    _carry_over()
    for table in ("matched_payment", "matched_record", "match_group"):
        op.drop_table(table)
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
    op.execute(
        "CREATE TRIGGER never_changed BEFORE UPDATE OR TRUNCATE ON match_line"
        " FOR EACH STATEMENT EXECUTE FUNCTION wasl_refuse()"
    )
    # What each run looks for first, and what is rare.
    op.create_index(
        "payment_given_back_idx",
        "payment",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status = 'reversed' OR returned_minor > 0"),
    )
    op.create_index(
        "institution_record_taking_back_idx",
        "institution_record",
        ["id"],
        unique=False,
        postgresql_where=sa.text("amount_minor < 0 AND reverses_id IS NULL"),
    )
    # Lines name records without a foreign key, so a record keeps its id, as a payment does.
    op.execute(
        "CREATE TRIGGER id_stands BEFORE UPDATE OF id ON institution_record FOR EACH ROW"
        " WHEN (OLD.id <> NEW.id) EXECUTE FUNCTION wasl_refuse_other_facts()"
    )


def _runs() -> None:
    op.add_column(
        "reconciliation_run",
        sa.Column("tolerance_minor", sa.BigInteger(), server_default="0", nullable=False),
    )
    op.add_column(
        "reconciliation_run", sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "reconciliation_run", sa.Column("outcomes", JSONB(), server_default="{}", nullable=False)
    )
    op.execute("UPDATE reconciliation_run SET finished_at = started_at")
    op.create_check_constraint(
        op.f("reconciliation_run_tolerance_check"), "reconciliation_run", "tolerance_minor >= 0"
    )
    op.create_index(
        "reconciliation_run_open_key",
        "reconciliation_run",
        [sa.text("(finished_at IS NULL)")],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "reconciliation_shard",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("shards", sa.Integer(), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcomes", JSONB(), server_default="{}", nullable=False),
        sa.CheckConstraint(
            "shard BETWEEN 0 AND shards - 1", name=op.f("reconciliation_shard_shard_check")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["reconciliation_run.id"], name=op.f("reconciliation_shard_run_id_fkey")
        ),
        sa.PrimaryKeyConstraint("run_id", "shard", name=op.f("reconciliation_shard_pkey")),
    )


def _tables() -> None:
    op.create_table(
        "match_line",
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("record_id", sa.BigInteger(), nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("score", sa.SmallInteger(), nullable=False),
        sa.Column("payment_line", sa.SmallInteger(), nullable=False),
        sa.Column("record_line", sa.SmallInteger(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=True),
        sa.Column("decided_by", sa.String(), nullable=True),
        sa.CheckConstraint("score BETWEEN 0 AND 100", name=op.f("match_line_score_check")),
        sa.CheckConstraint(
            "least(payment_line, record_line) = 0", name=op.f("match_line_lines_check")
        ),
        sa.CheckConstraint(
            "run_id IS NOT NULL OR decided_by IS NOT NULL", name=op.f("match_line_by_check")
        ),
        sa.PrimaryKeyConstraint("payment_id", "payment_line", name=op.f("match_line_pkey")),
        sa.UniqueConstraint(
            "record_id", "record_line", name=op.f("match_line_record_id_record_line_key")
        ),
    )
    op.create_table(
        "undone_match",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("record_id", sa.BigInteger(), nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("score", sa.SmallInteger(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=True),
        sa.Column("decided_by", sa.String(), nullable=True),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("undone_because", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payment.id"], name=op.f("undone_match_payment_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["record_id"], ["institution_record.id"], name=op.f("undone_match_record_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["reconciliation_run.id"], name=op.f("undone_match_run_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("undone_match_pkey")),
    )
    op.create_table(
        "parted_pair",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("record_id", sa.BigInteger(), nullable=False),
        sa.Column("decided_by", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("joined_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("btrim(why) <> ''", name=op.f("parted_pair_why_check")),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payment.id"], name=op.f("parted_pair_payment_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["record_id"], ["institution_record.id"], name=op.f("parted_pair_record_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("parted_pair_pkey")),
    )
    op.create_index(
        "parted_pair_standing_key",
        "parted_pair",
        ["payment_id", "record_id"],
        unique=True,
        postgresql_where=sa.text("joined_at IS NULL"),
    )
    for table, column in (
        ("undone_match", "payment_id"),
        ("undone_match", "record_id"),
        ("parted_pair", "record_id"),
    ):
        op.create_index(op.f(f"{table}_{column}_idx"), table, [column], unique=False)


def _carry_over() -> None:
    op.execute(
        """
        INSERT INTO match_line (payment_id, record_id, group_id, run_id, amount_minor, score,
            payment_line, record_line, rule)
        SELECT payment_id, record_id, min(payment_id) OVER (PARTITION BY group_id), run_id,
            p.amount_minor, score,
            row_number() OVER (PARTITION BY payment_id ORDER BY record_id) - 1,
            row_number() OVER (PARTITION BY record_id ORDER BY payment_id) - 1, rule
        FROM matched_payment p JOIN matched_record r USING (group_id)
        JOIN match_group g ON g.id = group_id
        WHERE g.undone_at IS NULL
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (SELECT FROM match_line) OR EXISTS (SELECT FROM undone_match)
                OR EXISTS (SELECT FROM parted_pair)
                OR EXISTS (SELECT FROM reconciliation_run WHERE finished_at IS NULL) THEN
                RAISE EXCEPTION 'payments and records were matched: there is no way back';
            END IF;
        END $$
        """
    )
    op.execute("DROP TRIGGER id_stands ON institution_record")
    op.drop_index("payment_given_back_idx", table_name="payment")
    op.drop_index("institution_record_taking_back_idx", table_name="institution_record")
    for table in ("match_line", "undone_match", "parted_pair", "reconciliation_shard"):
        op.drop_table(table)
    op.drop_index("reconciliation_run_open_key", table_name="reconciliation_run")
    for column in ("tolerance_minor", "finished_at", "outcomes"):
        op.drop_column("reconciliation_run", column)
    _as_before()


def _as_before() -> None:
    op.create_table(
        "match_group",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("score", sa.SmallInteger(), nullable=False),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("undone_because", sa.String(), nullable=True),
        sa.CheckConstraint("score BETWEEN 0 AND 100", name=op.f("match_group_score_check")),
        sa.CheckConstraint(
            "(undone_at IS NULL) = (undone_because IS NULL)", name=op.f("match_group_undone_check")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["reconciliation_run.id"], name=op.f("match_group_run_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("match_group_pkey")),
    )
    for table, key, named, others in (
        (
            "matched_payment",
            "payment_id",
            "payment",
            [sa.Column("amount_minor", sa.BigInteger(), nullable=False)],
        ),
        ("matched_record", "record_id", "institution_record", []),
    ):
        op.create_table(
            table,
            sa.Column(key, sa.BigInteger(), nullable=False),
            sa.Column("group_id", sa.BigInteger(), nullable=False),
            *others,
            sa.ForeignKeyConstraint([key], [f"{named}.id"], name=op.f(f"{table}_{key}_fkey")),
            sa.ForeignKeyConstraint(
                ["group_id"], ["match_group.id"], name=op.f(f"{table}_group_id_fkey")
            ),
            sa.PrimaryKeyConstraint(key, name=op.f(f"{table}_pkey")),
        )
        op.create_index(op.f(f"{table}_group_id_idx"), table, ["group_id"], unique=False)
