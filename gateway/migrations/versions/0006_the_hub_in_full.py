"""The hub in full: calls whose sender waits, callbacks we owe, replays, budgets, masking, erasure.

Adds columns and tables, and lets what names a person be taken out of a delivery or a record, once.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"

APPEND_ONLY = ("webhook_answer", "webhook_replay", "erasure")
NEVER_DELETED = ("provider_callback", "replayed_delivery", "ledger_account")
FACTS = {
    "provider_callback": ("provider", "delivery_pk", "url", "body", "made_at"),
}
# What is written by thousands names other rows by these columns, checked once a statement.
_NAMES = {
    "payment": (("invoice_id", "invoice"), ("bundle_id", "bundle")),
    "allocation": (("payment_id", "payment"), ("invoice_id", "invoice")),
    "receipt_due": (("payment_id", "payment"),),
    "ledger_transfer": (
        ("batch_id", "ledger_batch"),
        ("debit_account_id", "ledger_account"),
        ("credit_account_id", "ledger_account"),
        ("payment_id", "payment"),
        ("invoice_id", "invoice"),
    ),
    "event": (("payment_id", "payment"), ("invoice_id", "invoice")),
}
_UPDATED = ("payment", "receipt_due")
"""The others are append-only."""
_NAMED = ("invoice", "bundle", "payment", "ledger_account")
"""Beside ledger_batch, which is append-only: none of these is ever deleted."""
OTHER_TRIGGERS = (
    *(("names_stand_inserted", table, f"wasl_{table}_names") for table in _NAMES),
    *(("names_stand_updated", table, f"wasl_{table}_names") for table in _UPDATED),
    *(("id_stands", table, "wasl_refuse_other_facts") for table in _NAMED),
)

# As in the migration before: of what is in force after this one.
CONSTRAINTS_MD5 = "fbad6b02d92fa33cf19ffce4a8e180e6"
FUNCTIONS_MD5 = "3c0256378d284cc47db522cb61defe7f"

_MASKED = {
    "webhook_delivery": (
        ("provider", "delivery_id", "body_sha256", "received_at", "path"),
        ("body",),
    ),
    "webhook_variant": (
        ("provider", "delivery_id", "body_sha256", "readable", "received_at", "path"),
        ("body",),
    ),
    "institution_record": (
        (
            "record_id",
            "reference_given",
            "reference",
            "period",
            "amount_minor",
            "posted_on",
            "channel",
            "provider_reference",
            "content_sha256",
            "file_id",
        ),
        ("cnss_number", "cin", "name"),
    ),
}
"""What stands for ever, and what is personal: that may be taken out once, which is then said."""

_BEFORE = {
    "webhook_delivery": ("provider", "delivery_id", "body", "body_sha256", "received_at"),
    "webhook_variant": (
        "provider",
        "delivery_id",
        "body",
        "body_sha256",
        "readable",
        "received_at",
    ),
    "institution_record": (
        "record_id",
        "reference_given",
        "reference",
        "cnss_number",
        "cin",
        "name",
        "period",
        "amount_minor",
        "posted_on",
        "channel",
        "provider_reference",
        "content_sha256",
        "file_id",
    ),
}
_SAID_BY = {
    "webhook_delivery": "masked_at",
    "webhook_variant": "masked_at",
    "institution_record": "erased_at",
}


def _differ(columns: tuple[str, ...]) -> str:
    old = ", ".join(f"OLD.{c}" for c in columns)
    new = ", ".join(f"NEW.{c}" for c in columns)
    return f"({old}) IS DISTINCT FROM ({new})"


def _facts_stand(table: str, condition: str) -> None:
    op.execute(f"DROP TRIGGER IF EXISTS facts_stand ON {table}")
    op.execute(
        f"CREATE TRIGGER facts_stand BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({condition})"
        " EXECUTE FUNCTION wasl_refuse_other_facts()"
    )


def upgrade() -> None:
    _tables()
    _columns()
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
        _facts_stand(table, _differ(columns))
    for table, (facts, personal) in _MASKED.items():
        said = _SAID_BY[table]
        once = f"OLD.{said} IS NULL AND NEW.{said} IS NOT NULL"
        forgot = f"OLD.{said} IS NOT NULL AND NEW.{said} IS DISTINCT FROM OLD.{said}"
        _facts_stand(table, f"{_differ(facts)} OR {forgot} OR {_differ(personal)} AND NOT ({once})")
    for table in _NAMED:
        op.execute(
            f"CREATE TRIGGER id_stands BEFORE UPDATE OF id ON {table} FOR EACH ROW"
            " WHEN (OLD.id <> NEW.id) EXECUTE FUNCTION wasl_refuse_other_facts()"
        )
    for table, pointers in _NAMES.items():
        _names_stand(table, pointers)
    op.drop_index(op.f("ledger_transfer_batch_id_idx"), table_name="ledger_transfer")


def _names_stand(table: str, pointers: tuple[tuple[str, str], ...]) -> None:
    """Check what rows name for all rows of a statement at once, in place of foreign keys.

    A foreign key asks for each row. A row is looked up by its key however few there were when the
    plan was made: a plan is kept, and tables grow.
    """
    checks = "".join(
        f"""
        IF EXISTS (SELECT FROM (SELECT DISTINCT {column} AS id FROM fresh) AS f
            WHERE id IS NOT NULL AND NOT EXISTS (SELECT FROM {named} AS n WHERE n.id = f.id)) THEN
            RAISE EXCEPTION '{table}.{column}: there is no such {named}'
                USING ERRCODE = 'foreign_key_violation';
        END IF;"""
        for column, named in pointers
    )
    op.execute(
        f"""
        CREATE FUNCTION wasl_{table}_names() RETURNS trigger LANGUAGE plpgsql
        SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
        BEGIN{checks}
            RETURN NULL;
        END $$
        """
    )
    for when, event in (("inserted", "INSERT"), ("updated", "UPDATE")):
        if when == "inserted" or table in _UPDATED:
            op.execute(
                f"CREATE TRIGGER names_stand_{when} AFTER {event} ON {table} REFERENCING NEW TABLE"
                f" AS fresh FOR EACH STATEMENT EXECUTE FUNCTION wasl_{table}_names()"
            )
    for column, _ in pointers:
        op.drop_constraint(op.f(f"{table}_{column}_fkey"), table)


def _tables() -> None:
    op.create_table(
        "inquiry_budget",
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.CheckConstraint("asked >= 0", name=op.f("inquiry_budget_asked_check")),
        sa.PrimaryKeyConstraint("provider", name=op.f("inquiry_budget_pkey")),
    )
    op.create_table(
        "webhook_replay",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("chosen_by", JSONB(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("btrim(why) <> ''", name=op.f("webhook_replay_why_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_replay_pkey")),
    )
    op.create_table(
        "provider_callback",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("delivery_pk", sa.BigInteger(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("headers", JSONB(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=32), server_default="waiting", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'waiting') = (ended_at IS NULL)",
            name=op.f("provider_callback_ended_at_check"),
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'done', 'given_up')", name=op.f("provider_callback_state_check")
        ),
        sa.ForeignKeyConstraint(
            ["delivery_pk"],
            ["webhook_delivery.id"],
            name=op.f("provider_callback_delivery_pk_fkey"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("provider_callback_pkey")),
        sa.UniqueConstraint("delivery_pk", name=op.f("provider_callback_delivery_pk_key")),
    )
    op.create_index(
        "provider_callback_waiting_idx",
        "provider_callback",
        ["retry_at"],
        unique=False,
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "replayed_delivery",
        sa.Column("replay_id", sa.BigInteger(), nullable=False),
        sa.Column("delivery_pk", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("processed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(outcome IS NULL) = (processed_at IS NULL)",
            name=op.f("replayed_delivery_outcome_check"),
        ),
        sa.ForeignKeyConstraint(
            ["delivery_pk"],
            ["webhook_delivery.id"],
            name=op.f("replayed_delivery_delivery_pk_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["replay_id"], ["webhook_replay.id"], name=op.f("replayed_delivery_replay_id_fkey")
        ),
        sa.PrimaryKeyConstraint("replay_id", "delivery_pk", name=op.f("replayed_delivery_pkey")),
    )
    op.create_index(
        op.f("replayed_delivery_delivery_pk_idx"),
        "replayed_delivery",
        ["delivery_pk"],
        unique=False,
    )
    op.create_index(
        "replayed_delivery_waiting_idx",
        "replayed_delivery",
        ["replay_id", "delivery_pk"],
        unique=False,
        postgresql_where=sa.text("processed_at IS NULL"),
    )
    op.create_table(
        "webhook_answer",
        sa.Column("delivery_pk", sa.BigInteger(), nullable=False),
        sa.Column("ticket", sa.String(), nullable=True),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery_pk"], ["webhook_delivery.id"], name=op.f("webhook_answer_delivery_pk_fkey")
        ),
        sa.PrimaryKeyConstraint("delivery_pk", name=op.f("webhook_answer_pkey")),
        sa.UniqueConstraint("ticket", name=op.f("webhook_answer_ticket_key")),
    )
    op.create_table(
        "erasure",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("contributor_id", sa.BigInteger(), nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("found", JSONB(), nullable=False),
        sa.CheckConstraint("btrim(why) <> ''", name=op.f("erasure_why_check")),
        sa.ForeignKeyConstraint(
            ["contributor_id"], ["contributor.id"], name=op.f("erasure_contributor_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("erasure_pkey")),
    )
    op.create_index(op.f("erasure_contributor_id_idx"), "erasure", ["contributor_id"], unique=False)


def _columns() -> None:
    op.add_column("contributor", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "institution_record", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column("payment_attempt", sa.Column("token_sha256", sa.LargeBinary(), nullable=True))
    op.create_unique_constraint(
        op.f("payment_attempt_provider_token_sha256_key"),
        "payment_attempt",
        ["provider", "token_sha256"],
    )
    op.create_index(
        op.f("payment_attempt_invoice_id_made_at_idx"), "payment_attempt", ["invoice_id", "made_at"]
    )
    op.add_column("webhook_delivery", sa.Column("path", sa.String(), nullable=True))
    op.add_column(
        "webhook_delivery", sa.Column("masked_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column("webhook_variant", sa.Column("path", sa.String(), nullable=True))
    op.add_column(
        "webhook_variant", sa.Column("masked_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.create_check_constraint(
        op.f("payment_attempt_token_check"), "payment_attempt", "length(token_sha256) = 32"
    )
    op.drop_constraint(op.f("contributor_cnss_number_check"), "contributor")
    op.create_check_constraint(
        op.f("contributor_cnss_number_check"),
        "contributor",
        "cnss_number ~ '^[0-9]{9}$' OR erased_at IS NOT NULL AND cnss_number = 'erased-' || id",
    )
    op.create_check_constraint(
        op.f("contributor_erased_check"),
        "contributor",
        "erased_at IS NULL OR num_nonnulls(cin, family_name_ar, given_name_ar, phone, ice,"
        " commune) = 0 AND family_name = '' AND given_name = ''",
    )
    op.create_check_constraint(
        op.f("institution_record_erased_check"),
        "institution_record",
        "erased_at IS NULL OR num_nonnulls(cnss_number, cin, name) = 0",
    )


def downgrade() -> None:
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (SELECT FROM webhook_answer) OR EXISTS (SELECT FROM erasure)
                OR EXISTS (SELECT FROM webhook_replay)
                OR EXISTS (SELECT FROM webhook_delivery WHERE masked_at IS NOT NULL)
                OR EXISTS (SELECT FROM webhook_variant WHERE masked_at IS NOT NULL)
                OR EXISTS (SELECT FROM institution_record WHERE erased_at IS NOT NULL) THEN
                RAISE EXCEPTION 'calls were answered, or personal data taken out: there is no way back';
            END IF;
        END $$
        """
    )
    op.create_index(op.f("ledger_transfer_batch_id_idx"), "ledger_transfer", ["batch_id"])
    for table, pointers in _NAMES.items():
        for column, named in pointers:
            name = op.f(f"{table}_{column}_fkey")
            op.create_foreign_key(name, table, named, [column], ["id"])
        op.execute(f"DROP FUNCTION wasl_{table}_names() CASCADE")
    for table in _NAMED:
        op.execute(f"DROP TRIGGER id_stands ON {table}")
    op.execute("DROP TRIGGER never_deleted ON ledger_account")
    for table, columns in _BEFORE.items():
        _facts_stand(table, _differ(columns))
    op.drop_constraint(op.f("contributor_erased_check"), "contributor")
    op.drop_constraint(op.f("contributor_cnss_number_check"), "contributor")
    op.drop_constraint(op.f("institution_record_erased_check"), "institution_record")
    op.drop_index(op.f("payment_attempt_invoice_id_made_at_idx"), table_name="payment_attempt")
    for table, column in (
        ("webhook_variant", "path"),
        ("webhook_variant", "masked_at"),
        ("webhook_delivery", "masked_at"),
        ("webhook_delivery", "path"),
        ("payment_attempt", "token_sha256"),
        ("institution_record", "erased_at"),
        ("contributor", "erased_at"),
    ):
        op.drop_column(table, column)
    op.create_check_constraint(
        op.f("contributor_cnss_number_check"), "contributor", "cnss_number ~ '^[0-9]{9}$'"
    )
    for table in (
        "erasure",
        "webhook_answer",
        "replayed_delivery",
        "provider_callback",
        "webhook_replay",
        "inquiry_budget",
    ):
        op.drop_table(table)
