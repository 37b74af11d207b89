"""Money that we give back ourselves: asked, approved by another, carried out, within what came in.

What the institution paid back by hand has an account of its own, and is told apart among returns.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

APPEND_ONLY = ("refund_step",)
NEVER_DELETED = ("refund",)
FACTS = {
    "refund": (
        "id",
        "token",
        "payment_id",
        "provider",
        "amount_minor",
        "way",
        "asked_by",
        "because",
        "asked_at",
    )
}
OTHER_TRIGGERS = (
    ("moves", "refund", "wasl_refund_moves"),
    ("within_when_asked", "refund", "wasl_refund_within"),
    ("within_when_going_on", "refund", "wasl_refund_within"),
)

# As in the migration before: of what is in force after this one.
CONSTRAINTS_MD5 = ""
FUNCTIONS_MD5 = ""

_AMOUNT_MAX = 10**12
_STATES = "'asked', 'refused', 'approved', 'dropped', 'sent', 'done', 'failed'"
_ACCOUNTS = (
    "clearing",
    "suspense",
    "credit",
    "payable",
    "fees",
    "float",
    "till",
    "commission",
)
_RETURNS = ("refund", "refund_total", "dispute")
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
    "missing_statement",
)
_EVENTS = (
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
_WIDENED = (
    ("ledger_account", "kind", _ACCOUNTS, ("paid_out",)),
    ("payment_return", "kind", _RETURNS, ("by_hand",)),
    ("coded_exception", "code", _CODES, ("refund_failed",)),
    ("event", "type", _EVENTS, ("refund.asked", "refund.decided", "refund.ended")),
)


def _is_one_of(table: str, column: str, values: tuple[str, ...]) -> None:
    name = op.f(f"{table}_{column}_check")
    op.drop_constraint(name, table)
    listed = ", ".join(f"'{value}'" for value in values)
    op.create_check_constraint(name, table, f"{column} IN ({listed})")


def upgrade() -> None:
    for table, column, known, new in _WIDENED:
        _is_one_of(table, column, (*known, *new))
    _tables()
    _the_ceiling()
    _legal_moves()
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
    for table, facts in FACTS.items():
        before, after = (", ".join(f"{row}.{fact}" for fact in facts) for row in ("OLD", "NEW"))
        op.execute(
            f"CREATE TRIGGER facts_stand BEFORE UPDATE ON {table} FOR EACH ROW"
            f" WHEN (({before}) IS DISTINCT FROM ({after}))"
            " EXECUTE FUNCTION wasl_refuse_other_facts()"
        )


def _tables() -> None:
    op.create_table(
        "refund",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("way", sa.String(32), nullable=False),
        sa.Column("state", sa.String(32), server_default="asked", nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_by", sa.String(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("return_id", sa.String(), nullable=True),
        sa.Column("bank_reference", sa.String(), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("act_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("way IN ('provider', 'by_hand')", name=op.f("refund_way_check")),
        sa.CheckConstraint(f"state IN ({_STATES})", name=op.f("refund_state_check")),
        sa.CheckConstraint(
            f"amount_minor BETWEEN 1 AND {_AMOUNT_MAX}", name=op.f("refund_amount_check")
        ),
        sa.CheckConstraint("btrim(because) <> ''", name=op.f("refund_because_check")),
        sa.CheckConstraint(
            "(decided_by IS NULL) = (decided_at IS NULL)", name=op.f("refund_decided_check")
        ),
        sa.CheckConstraint(
            "(state = 'asked') = (decided_by IS NULL)", name=op.f("refund_approval_check")
        ),
        sa.CheckConstraint(
            "decided_by <> asked_by OR state = 'refused'", name=op.f("refund_eyes_check")
        ),
        sa.CheckConstraint(
            "state NOT IN ('sent', 'done') OR return_id IS NOT NULL",
            name=op.f("refund_named_check"),
        ),
        sa.CheckConstraint(
            "(ended_at IS NOT NULL) = (state IN ('refused', 'dropped', 'done', 'failed'))",
            name=op.f("refund_ended_check"),
        ),
        sa.CheckConstraint(
            "bank_reference IS NULL OR way = 'by_hand'", name=op.f("refund_bank_reference_check")
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payment.id"], name=op.f("refund_payment_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("refund_pkey")),
        sa.UniqueConstraint("token", name=op.f("refund_token_key")),
        sa.UniqueConstraint("provider", "return_id", name=op.f("refund_provider_return_id_key")),
    )
    op.create_index(op.f("refund_payment_id_idx"), "refund", ["payment_id"], unique=False)
    op.create_index(
        "refund_act_idx",
        "refund",
        ["act_at"],
        unique=False,
        postgresql_where=sa.text("act_at IS NOT NULL"),
    )
    op.create_table(
        "refund_step",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("refund_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("taken_by", sa.String(), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(f"state IN ({_STATES})", name=op.f("refund_step_state_check")),
        sa.CheckConstraint("btrim(because) <> ''", name=op.f("refund_step_because_check")),
        sa.ForeignKeyConstraint(
            ["refund_id"], ["refund.id"], name=op.f("refund_step_refund_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("refund_step_pkey")),
    )
    op.create_index(op.f("refund_step_refund_id_idx"), "refund_step", ["refund_id"], unique=False)


def _the_ceiling() -> None:
    """What may still be given back of a payment: asked by whoever decides, and by the trigger.

    The payment's row is locked, so that of two who ask at once the second sees the first. Each
    statement of a function that may change data has a snapshot of its own.
    """
    op.execute(
        """
        CREATE FUNCTION wasl_refund_room(of_payment bigint, but_refund bigint) RETURNS bigint
        LANGUAGE plpgsql VOLATILE AS $$
        DECLARE
            paid payment;
            under_way bigint;
            disputed bigint;
        BEGIN
            SELECT * INTO paid FROM payment WHERE id = of_payment FOR NO KEY UPDATE;
            IF paid.status IS DISTINCT FROM 'booked' THEN
                RETURN 0;
            END IF;
            SELECT coalesce(sum(amount_minor), 0) INTO under_way FROM refund
                WHERE payment_id = of_payment AND state IN ('asked', 'approved')
                AND id IS DISTINCT FROM but_refund;
            SELECT coalesce(sum(amount_minor), 0) INTO disputed FROM payment_return
                WHERE provider = paid.provider AND provider_payment_id = paid.provider_payment_id
                AND kind = 'dispute' AND state = 'announced' AND outcome IS NULL;
            RETURN greatest(paid.amount_minor - paid.returned_minor - under_way - disputed, 0);
        END $$
        """
    )
    op.execute(
        """
        CREATE FUNCTION wasl_refund_within() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'INSERT' AND NEW.state <> 'asked' THEN
                RAISE EXCEPTION 'refund %: a refund begins by being asked for', NEW.id
                    USING ERRCODE = 'restrict_violation';
            END IF;
            IF NEW.amount_minor > wasl_refund_room(NEW.payment_id, NEW.id) THEN
                RAISE EXCEPTION 'refund %: it gives back more than is left of the payment', NEW.id
                    USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER within_when_asked BEFORE INSERT ON refund"
        " FOR EACH ROW EXECUTE FUNCTION wasl_refund_within()"
    )
    # Once the provider was asked, the money may be gone: what is so is never refused.
    op.execute(
        "CREATE TRIGGER within_when_going_on BEFORE UPDATE ON refund FOR EACH ROW"
        " WHEN (NEW.state = 'approved'"
        " AND (OLD.state = 'asked' OR OLD.tries = 0 AND NEW.tries > 0))"
        " EXECUTE FUNCTION wasl_refund_within()"
    )


def _legal_moves() -> None:
    """One that was given up may turn out to be made all the same: the provider's word decides."""
    op.execute(
        """
        CREATE FUNCTION wasl_refund_moves() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
                ('asked', 'approved'), ('asked', 'refused'),
                ('approved', 'refused'), ('approved', 'dropped'), ('approved', 'sent'),
                ('approved', 'done'), ('approved', 'failed'),
                ('sent', 'done'), ('sent', 'failed'), ('done', 'failed'),
                ('dropped', 'sent'), ('dropped', 'done'), ('failed', 'sent'), ('failed', 'done')
            ) THEN
                RAISE EXCEPTION 'refund %: % cannot become %', OLD.id, OLD.state, NEW.state
                    USING ERRCODE = 'restrict_violation';
            END IF;
            IF OLD.state = 'approved' AND NEW.state = 'refused' AND OLD.tries > 0 THEN
                RAISE EXCEPTION 'refund %: the provider was asked, it may be made', OLD.id
                    USING ERRCODE = 'restrict_violation';
            END IF;
            IF OLD.return_id <> NEW.return_id OR NEW.tries < OLD.tries THEN
                RAISE EXCEPTION 'refund %: a fact was to change', OLD.id
                    USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER moves BEFORE UPDATE ON refund"
        " FOR EACH ROW EXECUTE FUNCTION wasl_refund_moves()"
    )


def downgrade() -> None:
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (SELECT FROM refund) THEN
                RAISE EXCEPTION 'refunds were asked for: there is no way back';
            END IF;
        END $$
        """
    )
    op.drop_table("refund_step")
    op.drop_table("refund")
    for function in ("within()", "moves()", "room(bigint, bigint)"):
        op.execute(f"DROP FUNCTION wasl_refund_{function}")
    for table, column, known, _ in _WIDENED:
        _is_one_of(table, column, known)
