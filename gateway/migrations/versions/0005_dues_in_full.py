"""Dues in full: what people did besides, notes and reliefs on invoices, bundles, plans, attestations.

Adds columns and tables. What an invoice comes to now (`owed_minor`) is written to each that there
is, which rewrites that table. The version before does not know penalties, plans and bundles.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

APPEND_ONLY = ("invoice_note", "bundle_item", "plan_instalment", "attestation")
NEVER_DELETED = ("activity", "bundle", "plan", "remission", "invoice_relief")
FACTS = {
    "activity": ("contributor_id", "category_code", "base_minor", "since", "recorded_at"),
    "bundle": ("reference", "kind", "contributor_id", "made_at"),
    "plan": (
        "contributor_id",
        "bundle_id",
        "rule",
        "made_on",
        "months",
        "amount_minor",
        "made_at",
    ),
    "remission": ("contributor_id", "campaign", "granted_on", "plan_id", "granted_at"),
    "invoice_relief": (
        "invoice_id",
        "remission_id",
        "plan_id",
        "granted_on",
        "principal_rate",
        "penalty_rate",
        "fee_rate",
        "stops_penalty",
        "rule_id",
        "granted_at",
    ),
}
OTHER_TRIGGERS = (("seal_stands", "invoice", "wasl_refuse_other_facts"),)

# As in the migration before: of what is in force after this one.
CONSTRAINTS_MD5 = "734942f5dc10f31db71f3d9e69d85c4e"
FUNCTIONS_MD5 = "5018dc3fe6045f3bece490066b89bd72"

_OLD_EVENTS = (
    "invoice.issued",
    "invoice.cancelled",
    "payment.booked",
    "payment.returned",
    "payment.reversed",
    "exception.opened",
    "exception.resolved",
    "reconciliation.finished",
)
_NEW_EVENTS = (
    "invoice.issued",
    "invoice.cancelled",
    "invoice.adjusted",
    "payment.booked",
    "payment.returned",
    "payment.reversed",
    "payment.moved",
    "plan.made",
    "plan.ended",
    "remission.granted",
    "remission.ended",
    "exception.opened",
    "exception.resolved",
    "reconciliation.finished",
)


def _check(table: str, name: str, condition: str) -> None:
    """Put a check in the place of the one of that name, if there is one."""
    full = op.f(f"{table}_{name}_check")
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {full}")
    op.create_check_constraint(full, table, condition)


def _events_are(types: tuple[str, ...]) -> None:
    _check("event", "type", "type IN (" + ", ".join(f"'{each}'" for each in types) + ")")


def upgrade() -> None:
    _events_are(_NEW_EVENTS)
    _register()
    _issues()
    _bundles()
    _columns()
    _notes()
    _plans()
    _remissions()
    _attestations()
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
    op.execute(
        "CREATE TRIGGER seal_stands BEFORE UPDATE OF seal ON invoice FOR EACH ROW"
        " WHEN (OLD.seal IS DISTINCT FROM NEW.seal) EXECUTE FUNCTION wasl_refuse_other_facts()"
    )


def _columns() -> None:
    op.alter_column("receipt", "invoice_id", nullable=True)
    op.add_column(
        "allocation",
        sa.Column("component", sa.String(length=32), nullable=False, server_default="principal"),
    )
    _check("allocation", "component", "component IN ('principal', 'penalty', 'fee')")
    op.add_column("contributor", sa.Column("category_since", sa.Date(), nullable=True))
    _check("contributor", "category_since", "category_since >= registered_on")
    op.add_column("contributor", sa.Column("commune", sa.String(), nullable=True))
    op.add_column("contributor", sa.Column("ice", sa.String(), nullable=True))
    _check("contributor", "ice", "ice ~ '^[0-9]{15}$'")
    op.add_column("contributor", sa.Column("merged_into_id", sa.BigInteger(), nullable=True))
    _check("contributor", "merged", "merged_into_id <> id")
    op.create_foreign_key(
        op.f("contributor_merged_into_id_fkey"),
        "contributor",
        "contributor",
        ["merged_into_id"],
        ["id"],
    )
    op.create_index(
        op.f("contributor_merged_into_id_idx"),
        "contributor",
        ["merged_into_id"],
        postgresql_where=sa.text("merged_into_id IS NOT NULL"),
    )
    op.create_index(
        op.f("contributor_cin_idx"),
        "contributor",
        ["cin"],
        postgresql_where=sa.text("cin IS NOT NULL"),
    )
    op.add_column("invoice", sa.Column("owed_minor", sa.BigInteger(), nullable=True))
    op.add_column("invoice", sa.Column("seal", sa.LargeBinary(), nullable=True))
    op.execute("UPDATE invoice SET owed_minor = amount_minor")
    op.alter_column("invoice", "owed_minor", nullable=False)
    _check("invoice", "paid", "paid_minor BETWEEN 0 AND owed_minor")
    _check(
        "invoice",
        "status",
        "status = CASE WHEN owed_minor = 0 THEN 'cleared' WHEN paid_minor = 0 THEN 'open'"
        " WHEN paid_minor < owed_minor THEN 'part_paid' ELSE 'paid' END",
    )
    op.add_column("payment", sa.Column("bundle_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("payment_bundle_id_fkey"), "payment", "bundle", ["bundle_id"], ["id"]
    )
    op.create_index(
        op.f("payment_bundle_id_idx"),
        "payment",
        ["bundle_id"],
        postgresql_where=sa.text("bundle_id IS NOT NULL"),
    )
    _check("payment", "quoted", "invoice_id IS NULL OR bundle_id IS NULL")


def _register() -> None:
    op.create_table(
        "activity",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("contributor_id", sa.BigInteger(), nullable=False),
        sa.Column("category_code", sa.String(), nullable=False),
        sa.Column("base_minor", sa.BigInteger(), nullable=True),
        sa.Column("since", sa.Date(), nullable=False),
        sa.Column("until", sa.Date(), nullable=True),
        sa.Column("because", sa.String(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("because <> ''", name=op.f("activity_because_check")),
        sa.CheckConstraint("base_minor >= 0", name=op.f("activity_base_check")),
        sa.CheckConstraint("until >= since", name=op.f("activity_until_check")),
        sa.ForeignKeyConstraint(
            ["category_code"], ["category.code"], name=op.f("activity_category_code_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["contributor_id"], ["contributor.id"], name=op.f("activity_contributor_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("activity_pkey")),
    )
    op.create_index(op.f("activity_contributor_id_idx"), "activity", ["contributor_id"])
    op.create_table(
        "reassessment_due",
        sa.Column("contributor_id", sa.BigInteger(), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["contributor_id"],
            ["contributor.id"],
            name=op.f("reassessment_due_contributor_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("contributor_id", name=op.f("reassessment_due_pkey")),
    )


def _issues() -> None:
    op.create_table(
        "issue_run",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("category_code", sa.String(), nullable=True),
        sa.Column("ordered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["category_code"], ["category.code"], name=op.f("issue_run_category_code_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("issue_run_pkey")),
    )
    op.create_index(
        "issue_run_open_key",
        "issue_run",
        ["period", sa.literal_column("coalesce(category_code, '')")],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "issue_chunk",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("first_id", sa.BigInteger(), nullable=False),
        sa.Column("last_id", sa.BigInteger(), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("issued", sa.Integer(), server_default="0", nullable=False),
        sa.Column("already", sa.Integer(), server_default="0", nullable=False),
        sa.Column("total_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("last_id >= first_id", name=op.f("issue_chunk_span_check")),
        sa.ForeignKeyConstraint(["run_id"], ["issue_run.id"], name=op.f("issue_chunk_run_id_fkey")),
        sa.PrimaryKeyConstraint("run_id", "position", name=op.f("issue_chunk_pkey")),
    )


def _bundles() -> None:
    op.create_table(
        "bundle",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("reference", sa.String(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("contributor_id", sa.BigInteger(), nullable=True),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind = 'selection' OR contributor_id IS NOT NULL", name=op.f("bundle_whose_check")
        ),
        sa.CheckConstraint("kind IN ('selection', 'plan')", name=op.f("bundle_kind_check")),
        sa.CheckConstraint(
            "reference ~ '^[1-9][0-9]{11}$' AND mod(reference::bigint, 97) = 1 AND mod(reference::bigint, 100) BETWEEN 2 AND 98",
            name=op.f("bundle_reference_check"),
        ),
        sa.ForeignKeyConstraint(
            ["contributor_id"], ["contributor.id"], name=op.f("bundle_contributor_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("bundle_pkey")),
        sa.UniqueConstraint("reference", name=op.f("bundle_reference_key")),
    )
    op.create_table(
        "bundle_item",
        sa.Column("bundle_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("invoice_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["bundle_id"], ["bundle.id"], name=op.f("bundle_item_bundle_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoice.id"], name=op.f("bundle_item_invoice_id_fkey")
        ),
        sa.PrimaryKeyConstraint("bundle_id", "position", name=op.f("bundle_item_pkey")),
        sa.UniqueConstraint(
            "bundle_id", "invoice_id", name=op.f("bundle_item_bundle_id_invoice_id_key")
        ),
    )
    op.create_index(op.f("bundle_item_invoice_id_idx"), "bundle_item", ["invoice_id"])


def _notes() -> None:
    op.create_table(
        "invoice_note",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("invoice_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("due_on", sa.Date(), nullable=True),
        sa.Column("noted_on", sa.Date(), nullable=False),
        sa.Column("rule_id", sa.BigInteger(), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('adjustment', 'fee')", name=op.f("invoice_note_kind_check")),
        sa.CheckConstraint(
            "(amount_minor > 0) = (due_on IS NOT NULL)", name=op.f("invoice_note_due_on_check")
        ),
        sa.CheckConstraint("amount_minor <> 0", name=op.f("invoice_note_amount_check")),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoice.id"], name=op.f("invoice_note_invoice_id_fkey")
        ),
        sa.ForeignKeyConstraint(["rule_id"], ["rule.id"], name=op.f("invoice_note_rule_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("invoice_note_pkey")),
    )
    op.create_index(op.f("invoice_note_invoice_id_idx"), "invoice_note", ["invoice_id"])


def _plans() -> None:
    op.create_table(
        "plan",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("contributor_id", sa.BigInteger(), nullable=False),
        sa.Column("bundle_id", sa.BigInteger(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("made_on", sa.Date(), nullable=False),
        sa.Column("months", sa.Integer(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kept_on", sa.Date(), nullable=True),
        sa.Column("broken_on", sa.Date(), nullable=True),
        sa.Column("broken_because", sa.String(), nullable=True),
        sa.CheckConstraint(
            "(broken_on IS NULL) = (broken_because IS NULL)", name=op.f("plan_broken_check")
        ),
        sa.CheckConstraint(
            "amount_minor BETWEEN 1 AND 1000000000000", name=op.f("plan_amount_check")
        ),
        sa.CheckConstraint("kept_on IS NULL OR broken_on IS NULL", name=op.f("plan_ended_check")),
        sa.CheckConstraint("months BETWEEN 1 AND 120", name=op.f("plan_months_check")),
        sa.ForeignKeyConstraint(["bundle_id"], ["bundle.id"], name=op.f("plan_bundle_id_fkey")),
        sa.ForeignKeyConstraint(
            ["contributor_id"], ["contributor.id"], name=op.f("plan_contributor_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("plan_pkey")),
        sa.UniqueConstraint("bundle_id", name=op.f("plan_bundle_id_key")),
    )
    op.create_index(
        "plan_open_key",
        "plan",
        ["contributor_id"],
        unique=True,
        postgresql_where=sa.text("kept_on IS NULL AND broken_on IS NULL"),
    )
    op.create_table(
        "plan_instalment",
        sa.Column("plan_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "amount_minor BETWEEN 1 AND 1000000000000", name=op.f("plan_instalment_amount_check")
        ),
        sa.ForeignKeyConstraint(
            ["plan_id"], ["plan.id"], name=op.f("plan_instalment_plan_id_fkey")
        ),
        sa.PrimaryKeyConstraint("plan_id", "position", name=op.f("plan_instalment_pkey")),
    )


def _remissions() -> None:
    op.create_table(
        "remission",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("contributor_id", sa.BigInteger(), nullable=False),
        sa.Column("campaign", sa.String(), nullable=False),
        sa.Column("granted_on", sa.Date(), nullable=False),
        sa.Column("plan_id", sa.BigInteger(), nullable=True),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kept_on", sa.Date(), nullable=True),
        sa.Column("broken_on", sa.Date(), nullable=True),
        sa.Column("broken_because", sa.String(), nullable=True),
        sa.CheckConstraint(
            "(broken_on IS NULL) = (broken_because IS NULL)", name=op.f("remission_broken_check")
        ),
        sa.CheckConstraint(
            "kept_on IS NULL OR broken_on IS NULL", name=op.f("remission_ended_check")
        ),
        sa.ForeignKeyConstraint(
            ["contributor_id"], ["contributor.id"], name=op.f("remission_contributor_id_fkey")
        ),
        sa.ForeignKeyConstraint(["plan_id"], ["plan.id"], name=op.f("remission_plan_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("remission_pkey")),
    )
    op.create_index(
        "remission_standing_key",
        "remission",
        ["contributor_id", "campaign"],
        unique=True,
        postgresql_where=sa.text("broken_on IS NULL"),
    )
    op.create_table(
        "invoice_relief",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("invoice_id", sa.BigInteger(), nullable=False),
        sa.Column("remission_id", sa.BigInteger(), nullable=True),
        sa.Column("plan_id", sa.BigInteger(), nullable=True),
        sa.Column("granted_on", sa.Date(), nullable=False),
        sa.Column("principal_rate", sa.Numeric(precision=5, scale=4), nullable=False),
        sa.Column("penalty_rate", sa.Numeric(precision=5, scale=4), nullable=False),
        sa.Column("fee_rate", sa.Numeric(precision=5, scale=4), nullable=False),
        sa.Column("stops_penalty", sa.Boolean(), nullable=False),
        sa.Column("rule_id", sa.BigInteger(), nullable=False),
        sa.Column("ended_on", sa.Date(), nullable=True),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(remission_id IS NULL) <> (plan_id IS NULL)", name=op.f("invoice_relief_by_check")
        ),
        sa.CheckConstraint(
            "principal_rate BETWEEN 0 AND 1 AND penalty_rate BETWEEN 0 AND 1 AND fee_rate BETWEEN 0 AND 1",
            name=op.f("invoice_relief_rates_check"),
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoice.id"], name=op.f("invoice_relief_invoice_id_fkey")
        ),
        sa.ForeignKeyConstraint(["plan_id"], ["plan.id"], name=op.f("invoice_relief_plan_id_fkey")),
        sa.ForeignKeyConstraint(
            ["remission_id"], ["remission.id"], name=op.f("invoice_relief_remission_id_fkey")
        ),
        sa.ForeignKeyConstraint(["rule_id"], ["rule.id"], name=op.f("invoice_relief_rule_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("invoice_relief_pkey")),
    )
    op.create_index(op.f("invoice_relief_invoice_id_idx"), "invoice_relief", ["invoice_id"])
    op.create_index(op.f("invoice_relief_plan_id_idx"), "invoice_relief", ["plan_id"])
    op.create_index(op.f("invoice_relief_remission_id_idx"), "invoice_relief", ["remission_id"])


def _attestations() -> None:
    op.create_table(
        "attestation",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("contributor_id", sa.BigInteger(), nullable=False),
        sa.Column("issued_on", sa.Date(), nullable=False),
        sa.Column("valid_until", sa.Date(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "number ~ '^A[0-9]{2}-[0-9]{9}$'", name=op.f("attestation_number_check")
        ),
        sa.CheckConstraint("valid_until >= issued_on", name=op.f("attestation_valid_until_check")),
        sa.ForeignKeyConstraint(
            ["contributor_id"], ["contributor.id"], name=op.f("attestation_contributor_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("attestation_pkey")),
        sa.UniqueConstraint("number", name=op.f("attestation_number_key")),
    )
    op.create_index(op.f("attestation_contributor_id_idx"), "attestation", ["contributor_id"])


def downgrade() -> None:
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (SELECT FROM invoice_note) OR EXISTS (SELECT FROM invoice_relief)
                OR EXISTS (SELECT FROM bundle) OR EXISTS (SELECT FROM activity)
                OR EXISTS (SELECT FROM attestation)
                OR EXISTS (SELECT FROM receipt WHERE invoice_id IS NULL)
                OR EXISTS (SELECT FROM contributor WHERE merged_into_id IS NOT NULL)
                OR EXISTS (SELECT FROM invoice WHERE owed_minor <> amount_minor)
                OR EXISTS (SELECT FROM allocation WHERE component <> 'principal')
                OR EXISTS (SELECT FROM event WHERE type NOT IN ('invoice.issued',
                    'invoice.cancelled', 'payment.booked', 'payment.returned', 'payment.reversed',
                    'exception.opened', 'exception.resolved', 'reconciliation.finished')) THEN
                RAISE EXCEPTION 'dues were adjusted, relieved or bundled: there is no way back';
            END IF;
        END $$
        """
    )
    op.execute("DROP TRIGGER seal_stands ON invoice")
    op.alter_column("receipt", "invoice_id", nullable=False)
    op.drop_constraint(op.f("payment_quoted_check"), "payment")
    op.drop_column("payment", "bundle_id")
    _check("invoice", "paid", "paid_minor BETWEEN 0 AND amount_minor")
    _check(
        "invoice",
        "status",
        "status = CASE WHEN paid_minor = 0 THEN 'open'"
        " WHEN paid_minor < amount_minor THEN 'part_paid' ELSE 'paid' END",
    )
    op.drop_column("invoice", "seal")
    op.drop_column("invoice", "owed_minor")
    op.drop_index(op.f("contributor_cin_idx"), "contributor")
    for name in ("category_since", "ice", "merged"):
        op.drop_constraint(op.f(f"contributor_{name}_check"), "contributor")
    for column in ("merged_into_id", "ice", "commune", "category_since"):
        op.drop_column("contributor", column)
    op.drop_column("allocation", "component")
    for table in (
        "invoice_relief",
        "remission",
        "plan_instalment",
        "plan",
        "invoice_note",
        "bundle_item",
        "bundle",
        "reassessment_due",
        "issue_chunk",
        "issue_run",
        "attestation",
        "activity",
    ):
        op.drop_table(table)
    _events_are(_OLD_EVENTS)
