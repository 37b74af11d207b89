"""The tables, with every rule that a constraint can say.

The first migration: nothing runs beside it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "role IN ('admin', 'finance', 'approver', 'agent', 'supervisor', 'chamber', 'provider')",
            name=op.f("api_key_role_check"),
        ),
        sa.CheckConstraint("length(secret_sha256) = 32", name=op.f("api_key_secret_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("api_key_pkey")),
    )
    op.create_table(
        "category",
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("periodicity", sa.String(32), nullable=False),
        sa.Column("needs_base", sa.Boolean(), nullable=False),
        sa.CheckConstraint(
            "periodicity IN ('month', 'quarter')", name=op.f("category_periodicity_check")
        ),
        sa.PrimaryKeyConstraint("code", name=op.f("category_pkey")),
    )
    op.create_table(
        "ledger_account",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.CheckConstraint("code = kind || ':' || owner", name=op.f("ledger_account_code_check")),
        sa.CheckConstraint(
            "kind IN ('clearing', 'suspense', 'credit', 'payable', 'fees', 'float', 'till', 'commission')",
            name=op.f("ledger_account_kind_check"),
        ),
        sa.CheckConstraint("owner <> ''", name=op.f("ledger_account_owner_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("ledger_account_pkey")),
        sa.UniqueConstraint("code", name=op.f("ledger_account_code_key")),
    )
    op.create_table(
        "ledger_batch",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("first_transfer_id", sa.BigInteger(), nullable=False),
        sa.Column("last_transfer_id", sa.BigInteger(), nullable=False),
        sa.Column("total_count", sa.BigInteger(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("posted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "last_transfer_id >= first_transfer_id", name=op.f("ledger_batch_transfers_check")
        ),
        sa.CheckConstraint(
            "length(hash) = 32 AND length(previous_hash) = 32", name=op.f("ledger_batch_hash_check")
        ),
        sa.CheckConstraint(
            "total_count = last_transfer_id", name=op.f("ledger_batch_total_count_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("ledger_batch_pkey")),
    )
    op.create_table(
        "outbox_message",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("arguments", JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_message_pkey")),
    )
    op.create_table(
        "reconciliation_run",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("period", sa.String(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("summary", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("reconciliation_run_pkey")),
    )
    op.create_table(
        "record_file",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("imported_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("record_file_pkey")),
        sa.UniqueConstraint("sha256", name=op.f("record_file_sha256_key")),
    )
    op.create_table(
        "reference_key",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("reference_key_only_one_check")),
        sa.CheckConstraint("length(key) = 32", name=op.f("reference_key_key_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("reference_key_pkey")),
    )
    op.create_table(
        "rule",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("rule_pkey")),
        sa.UniqueConstraint(
            "rule", "source", "verified", name=op.f("rule_rule_source_verified_key")
        ),
    )
    op.create_table(
        "staff",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("totp_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("name = btrim(name) AND name <> ''", name=op.f("staff_name_check")),
        sa.CheckConstraint(
            "role IN ('admin', 'finance', 'approver', 'agent', 'supervisor', 'chamber', 'provider')",
            name=op.f("staff_role_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("staff_pkey")),
        sa.UniqueConstraint("name", name=op.f("staff_name_key")),
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("delivery_id", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(32), server_default="waiting", nullable=False),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("processed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.CheckConstraint(
            "(state = 'done') = (outcome IS NOT NULL)", name=op.f("webhook_delivery_outcome_check")
        ),
        sa.CheckConstraint(
            "state <> 'parked' OR last_error IS NOT NULL",
            name=op.f("webhook_delivery_last_error_check"),
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'done', 'parked')", name=op.f("webhook_delivery_state_check")
        ),
        sa.CheckConstraint(
            "length(body_sha256) = 32", name=op.f("webhook_delivery_body_sha256_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_delivery_pkey")),
        sa.UniqueConstraint(
            "provider", "delivery_id", name=op.f("webhook_delivery_provider_delivery_id_key")
        ),
    )
    op.create_index(
        "webhook_delivery_waiting_idx",
        "webhook_delivery",
        ["provider", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "webhook_variant",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("delivery_id", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("readable", sa.Boolean(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("processed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "length(body_sha256) = 32", name=op.f("webhook_variant_body_sha256_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_variant_pkey")),
        sa.UniqueConstraint(
            "provider",
            "delivery_id",
            "body_sha256",
            name=op.f("webhook_variant_provider_delivery_id_body_sha256_key"),
        ),
    )
    op.create_index(
        "webhook_variant_waiting_idx",
        "webhook_variant",
        ["id"],
        unique=False,
        postgresql_where=sa.text("processed_at IS NULL"),
    )
    op.create_table(
        "contributor",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("cnss_number", sa.String(), nullable=False),
        sa.Column("cin", sa.String(), nullable=True),
        sa.Column("family_name", sa.String(), nullable=False),
        sa.Column("given_name", sa.String(), nullable=False),
        sa.Column("family_name_ar", sa.String(), nullable=True),
        sa.Column("given_name_ar", sa.String(), nullable=True),
        sa.Column("phone", sa.String(), nullable=True),
        sa.Column("language", sa.String(), nullable=True),
        sa.Column("category_code", sa.String(), nullable=False),
        sa.Column("category_base_minor", sa.BigInteger(), nullable=True),
        sa.Column("region", sa.String(), nullable=True),
        sa.Column("province", sa.String(), nullable=True),
        sa.Column("chamber", sa.String(), nullable=True),
        sa.Column("registered_on", sa.Date(), nullable=False),
        sa.Column("left_on", sa.Date(), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "cnss_number ~ '^[0-9]{9}$'", name=op.f("contributor_cnss_number_check")
        ),
        sa.CheckConstraint("language IN ('fr', 'ar')", name=op.f("contributor_language_check")),
        sa.CheckConstraint(
            "category_base_minor >= 0", name=op.f("contributor_category_base_check")
        ),
        sa.CheckConstraint("left_on >= registered_on", name=op.f("contributor_left_on_check")),
        sa.ForeignKeyConstraint(
            ["category_code"], ["category.code"], name=op.f("contributor_category_code_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("contributor_pkey")),
        sa.UniqueConstraint("cnss_number", name=op.f("contributor_cnss_number_key")),
    )
    op.create_index(
        op.f("contributor_category_code_id_idx"),
        "contributor",
        ["category_code", "id"],
        unique=False,
    )
    op.create_table(
        "institution_record",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("record_id", sa.String(), nullable=False),
        sa.Column("reference_given", sa.String(), nullable=False),
        sa.Column("reference", sa.String(), nullable=True),
        sa.Column("cnss_number", sa.String(), nullable=True),
        sa.Column("cin", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("period", sa.String(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("posted_on", sa.Date(), nullable=False),
        sa.Column("channel", sa.String(), nullable=True),
        sa.Column("provider_reference", sa.String(), nullable=True),
        sa.Column("content_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("file_id", sa.BigInteger(), nullable=False),
        sa.Column("reverses_id", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "amount_minor <> 0 AND abs(amount_minor) <= 1000000000000",
            name=op.f("institution_record_amount_check"),
        ),
        sa.CheckConstraint(
            "reverses_id IS NULL OR amount_minor < 0",
            name=op.f("institution_record_reverses_check"),
        ),
        sa.ForeignKeyConstraint(
            ["file_id"], ["record_file.id"], name=op.f("institution_record_file_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["reverses_id"],
            ["institution_record.id"],
            name=op.f("institution_record_reverses_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("institution_record_pkey")),
        sa.UniqueConstraint("record_id", name=op.f("institution_record_record_id_key")),
        sa.UniqueConstraint("reverses_id", name=op.f("institution_record_reverses_id_key")),
    )
    op.create_index(
        op.f("institution_record_reference_idx"), "institution_record", ["reference"], unique=False
    )
    op.create_table(
        "match_group",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("score", sa.SmallInteger(), nullable=False),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("undone_because", sa.String(), nullable=True),
        sa.CheckConstraint(
            "(undone_at IS NULL) = (undone_because IS NULL)", name=op.f("match_group_undone_check")
        ),
        sa.CheckConstraint("score BETWEEN 0 AND 100", name=op.f("match_group_score_check")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["reconciliation_run.id"], name=op.f("match_group_run_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("match_group_pkey")),
    )
    op.create_table(
        "invoice",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("reference", sa.String(), nullable=False),
        sa.Column("contributor_id", sa.BigInteger(), nullable=False),
        sa.Column("category_code", sa.String(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("paid_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("status", sa.String(32), server_default="open", nullable=False),
        sa.Column("tariff", sa.String(), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "period ~ '^[0-9]{4}-(0[1-9]|1[0-2]|Q[1-4])$'", name=op.f("invoice_period_check")
        ),
        sa.CheckConstraint(
            "reference ~ '^[1-9][0-9]{11}$' AND mod(reference::bigint, 97) = 1 AND mod(reference::bigint, 100) BETWEEN 2 AND 98",
            name=op.f("invoice_reference_check"),
        ),
        sa.CheckConstraint(
            "status = CASE WHEN paid_minor = 0 THEN 'open' WHEN paid_minor < amount_minor THEN 'part_paid' ELSE 'paid' END",
            name=op.f("invoice_status_check"),
        ),
        sa.CheckConstraint(
            "amount_minor BETWEEN 1 AND 1000000000000", name=op.f("invoice_amount_check")
        ),
        sa.CheckConstraint(
            "paid_minor BETWEEN 0 AND amount_minor", name=op.f("invoice_paid_check")
        ),
        sa.ForeignKeyConstraint(
            ["category_code"], ["category.code"], name=op.f("invoice_category_code_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["contributor_id"], ["contributor.id"], name=op.f("invoice_contributor_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("invoice_pkey")),
        sa.UniqueConstraint(
            "contributor_id", "period", name=op.f("invoice_contributor_id_period_key")
        ),
        sa.UniqueConstraint("reference", name=op.f("invoice_reference_key")),
    )
    op.create_index(op.f("invoice_period_idx"), "invoice", ["period"], unique=False)
    op.create_table(
        "matched_record",
        sa.Column("record_id", sa.BigInteger(), nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["match_group.id"], name=op.f("matched_record_group_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["record_id"], ["institution_record.id"], name=op.f("matched_record_record_id_fkey")
        ),
        sa.PrimaryKeyConstraint("record_id", name=op.f("matched_record_pkey")),
    )
    op.create_index(
        op.f("matched_record_group_id_idx"), "matched_record", ["group_id"], unique=False
    )
    op.create_table(
        "invoice_line",
        sa.Column("invoice_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("rule_id", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('principal', 'penalty', 'fee', 'remission', 'adjustment')",
            name=op.f("invoice_line_kind_check"),
        ),
        sa.CheckConstraint("amount_minor <> 0", name=op.f("invoice_line_amount_check")),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoice.id"], name=op.f("invoice_line_invoice_id_fkey")
        ),
        sa.ForeignKeyConstraint(["rule_id"], ["rule.id"], name=op.f("invoice_line_rule_id_fkey")),
        sa.PrimaryKeyConstraint("invoice_id", "position", name=op.f("invoice_line_pkey")),
    )
    op.create_table(
        "payment",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("provider_payment_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("reference_given", sa.String(), nullable=False),
        sa.Column("invoice_id", sa.BigInteger(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("channel", sa.String(32), nullable=True),
        sa.Column("agent_id", sa.String(), nullable=True),
        sa.Column("terminal_id", sa.String(), nullable=True),
        sa.Column("fee_minor", sa.BigInteger(), nullable=True),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("booked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.CheckConstraint(
            "channel IN ('cash_agent', 'kiosk', 'wallet', 'card', 'transfer')",
            name=op.f("payment_channel_check"),
        ),
        sa.CheckConstraint("currency = 'MAD'", name=op.f("payment_currency_check")),
        sa.CheckConstraint(
            "status <> 'booked' OR booked_at IS NOT NULL", name=op.f("payment_booked_at_check")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'failed', 'booked', 'reversed')",
            name=op.f("payment_status_check"),
        ),
        sa.CheckConstraint(
            "amount_minor BETWEEN 1 AND 1000000000000", name=op.f("payment_amount_check")
        ),
        sa.CheckConstraint("fee_minor BETWEEN 0 AND 1000000000000", name=op.f("payment_fee_check")),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoice.id"], name=op.f("payment_invoice_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("payment_pkey")),
        sa.UniqueConstraint(
            "provider", "provider_payment_id", name=op.f("payment_provider_provider_payment_id_key")
        ),
    )
    op.create_index(op.f("payment_invoice_id_idx"), "payment", ["invoice_id"], unique=False)
    op.create_table(
        "allocation",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("invoice_id", sa.BigInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("allocated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("amount_minor <> 0", name=op.f("allocation_amount_check")),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoice.id"], name=op.f("allocation_invoice_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payment.id"], name=op.f("allocation_payment_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("allocation_pkey")),
    )
    op.create_index(op.f("allocation_invoice_id_idx"), "allocation", ["invoice_id"], unique=False)
    op.create_index(op.f("allocation_payment_id_idx"), "allocation", ["payment_id"], unique=False)
    op.create_table(
        "coded_exception",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("code", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("detail", JSONB(), nullable=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolution", sa.String(), nullable=True),
        sa.CheckConstraint(
            "code IN ('unknown_reference', 'overpaid', 'paid_twice', 'wrong_currency', 'invalid_amount', 'conflicting_delivery', 'conflicting_payment', 'conflicting_record', 'unreadable_delivery', 'parked_delivery', 'implausible_date', 'payment_without_record', 'record_without_payment', 'amount_differs', 'ambiguous_match')",
            name=op.f("coded_exception_code_check"),
        ),
        sa.CheckConstraint(
            "(resolved_at IS NULL) = (resolution IS NULL)",
            name=op.f("coded_exception_resolution_check"),
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payment.id"], name=op.f("coded_exception_payment_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("coded_exception_pkey")),
    )
    op.create_index(
        "coded_exception_open_key",
        "coded_exception",
        ["code", "subject"],
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_index(
        op.f("coded_exception_payment_id_idx"), "coded_exception", ["payment_id"], unique=False
    )
    op.create_table(
        "ledger_transfer",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("batch_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("debit_account_id", sa.BigInteger(), nullable=False),
        sa.Column("credit_account_id", sa.BigInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=True),
        sa.Column("invoice_id", sa.BigInteger(), nullable=True),
        sa.Column("reverses_id", sa.BigInteger(), nullable=True),
        sa.Column("posted_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "amount_minor BETWEEN 1 AND 1000000000000", name=op.f("ledger_transfer_amount_check")
        ),
        sa.CheckConstraint(
            "debit_account_id <> credit_account_id", name=op.f("ledger_transfer_accounts_check")
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["ledger_batch.id"], name=op.f("ledger_transfer_batch_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["credit_account_id"],
            ["ledger_account.id"],
            name=op.f("ledger_transfer_credit_account_id_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["debit_account_id"],
            ["ledger_account.id"],
            name=op.f("ledger_transfer_debit_account_id_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoice.id"], name=op.f("ledger_transfer_invoice_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payment.id"], name=op.f("ledger_transfer_payment_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["reverses_id"], ["ledger_transfer.id"], name=op.f("ledger_transfer_reverses_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("ledger_transfer_pkey")),
        sa.UniqueConstraint("name", name=op.f("ledger_transfer_name_key")),
        sa.UniqueConstraint("reverses_id", name=op.f("ledger_transfer_reverses_id_key")),
    )
    op.create_index(
        op.f("ledger_transfer_batch_id_idx"), "ledger_transfer", ["batch_id"], unique=False
    )
    op.create_index(
        op.f("ledger_transfer_credit_account_id_idx"),
        "ledger_transfer",
        ["credit_account_id"],
        unique=False,
    )
    op.create_index(
        op.f("ledger_transfer_debit_account_id_idx"),
        "ledger_transfer",
        ["debit_account_id"],
        unique=False,
    )
    op.create_index(
        op.f("ledger_transfer_payment_id_idx"), "ledger_transfer", ["payment_id"], unique=False
    )
    op.create_table(
        "matched_payment",
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["match_group.id"], name=op.f("matched_payment_group_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payment.id"], name=op.f("matched_payment_payment_id_fkey")
        ),
        sa.PrimaryKeyConstraint("payment_id", name=op.f("matched_payment_pkey")),
    )
    op.create_index(
        op.f("matched_payment_group_id_idx"), "matched_payment", ["group_id"], unique=False
    )


def downgrade() -> None:
    op.drop_index(op.f("matched_payment_group_id_idx"), table_name="matched_payment")
    op.drop_table("matched_payment")
    op.drop_index(op.f("ledger_transfer_payment_id_idx"), table_name="ledger_transfer")
    op.drop_index(op.f("ledger_transfer_debit_account_id_idx"), table_name="ledger_transfer")
    op.drop_index(op.f("ledger_transfer_credit_account_id_idx"), table_name="ledger_transfer")
    op.drop_index(op.f("ledger_transfer_batch_id_idx"), table_name="ledger_transfer")
    op.drop_table("ledger_transfer")
    op.drop_index(op.f("coded_exception_payment_id_idx"), table_name="coded_exception")
    op.drop_index(
        "coded_exception_open_key",
        table_name="coded_exception",
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.drop_table("coded_exception")
    op.drop_index(op.f("allocation_payment_id_idx"), table_name="allocation")
    op.drop_index(op.f("allocation_invoice_id_idx"), table_name="allocation")
    op.drop_table("allocation")
    op.drop_index(op.f("payment_invoice_id_idx"), table_name="payment")
    op.drop_table("payment")
    op.drop_table("invoice_line")
    op.drop_index(op.f("matched_record_group_id_idx"), table_name="matched_record")
    op.drop_table("matched_record")
    op.drop_index(op.f("invoice_period_idx"), table_name="invoice")
    op.drop_table("invoice")
    op.drop_table("match_group")
    op.drop_index(op.f("institution_record_reference_idx"), table_name="institution_record")
    op.drop_table("institution_record")
    op.drop_index(op.f("contributor_category_code_id_idx"), table_name="contributor")
    op.drop_table("contributor")
    op.drop_index(
        "webhook_variant_waiting_idx",
        table_name="webhook_variant",
        postgresql_where=sa.text("processed_at IS NULL"),
    )
    op.drop_table("webhook_variant")
    op.drop_index(
        "webhook_delivery_waiting_idx",
        table_name="webhook_delivery",
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.drop_table("webhook_delivery")
    op.drop_table("staff")
    op.drop_table("rule")
    op.drop_table("reference_key")
    op.drop_table("record_file")
    op.drop_table("reconciliation_run")
    op.drop_table("outbox_message")
    op.drop_table("ledger_batch")
    op.drop_table("ledger_account")
    op.drop_table("category")
    op.drop_table("api_key")
