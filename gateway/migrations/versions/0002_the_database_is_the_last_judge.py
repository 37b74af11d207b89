"""What constraints cannot say: append-only tables, facts that never change, legal moves, links.

A mistake is corrected by a row the other way, so the books keep both. The rules are triggers since
a console session and a future service do not go through the modules that keep them.

Also here: the permutation that references are drawn from (the same as gateway.references), its
key, and the accounts that exist from the first day. Nothing runs beside this migration.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

APPEND_ONLY = (
    "ledger_transfer",
    "ledger_batch",
    "allocation",
    "invoice_line",
    "rule",
    "record_file",
)
NEVER_DELETED = (
    "invoice",
    "payment",
    "contributor",
    "institution_record",
    "webhook_delivery",
    "webhook_variant",
    "coded_exception",
)

# Columns that state a fact. What is not listed (a status, a sum so far) follows from other rows.
FACTS = {
    "invoice": (
        "reference",
        "contributor_id",
        "category_code",
        "period",
        "due_on",
        "amount_minor",
        "tariff",
        "issued_at",
    ),
    "payment": ("provider", "provider_payment_id", "recorded_at"),
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
    "webhook_delivery": ("provider", "delivery_id", "body", "body_sha256", "received_at"),
    "webhook_variant": (
        "provider",
        "delivery_id",
        "body",
        "body_sha256",
        "readable",
        "received_at",
    ),
    "coded_exception": ("code", "subject", "opened_at"),
}

OTHER_TRIGGERS = (
    ("moves", "payment", "wasl_payment_moves"),
    ("follows", "ledger_batch", "wasl_batch_follows"),
    ("reversal_is_opposite", "ledger_transfer", "wasl_reversal_is_opposite"),
)


def upgrade() -> None:
    op.execute(
        """
        CREATE FUNCTION wasl_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only: % refused; correct it by a row the other way',
                TG_TABLE_NAME, lower(TG_OP) USING ERRCODE = 'restrict_violation';
        END $$
        """
    )
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
    op.execute(
        """
        CREATE FUNCTION wasl_refuse_other_facts() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% %: a fact was to change; correct it by a row the other way',
                TG_TABLE_NAME, OLD.id USING ERRCODE = 'restrict_violation';
        END $$
        """
    )
    for table, columns in FACTS.items():
        old = ", ".join(f"OLD.{c}" for c in columns)
        new = ", ".join(f"NEW.{c}" for c in columns)
        op.execute(
            f"CREATE TRIGGER facts_stand BEFORE UPDATE ON {table} FOR EACH ROW"
            f" WHEN (({old}) IS DISTINCT FROM ({new})) EXECUTE FUNCTION wasl_refuse_other_facts()"
        )
    _payments_move_legally()
    _the_chain_is_linked()
    _references()
    op.execute(
        "INSERT INTO ledger_account (code, kind, owner) VALUES"
        " ('payable:institution', 'payable', 'institution'),"
        " ('suspense:unidentified', 'suspense', 'unidentified')"
    )


def _payments_move_legally() -> None:
    op.execute(
        """
        CREATE FUNCTION wasl_payment_moves() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.status <> NEW.status AND (OLD.status, NEW.status) NOT IN (
                ('pending', 'failed'), ('pending', 'booked'), ('pending', 'reversed'),
                ('failed', 'booked'), ('failed', 'reversed'),
                ('booked', 'reversed')
            ) AND NOT (OLD.status = 'reversed' AND NEW.status = 'booked' AND OLD.booked_at IS NULL)
            THEN
                RAISE EXCEPTION 'payment %: % cannot become %', OLD.id, OLD.status, NEW.status
                    USING ERRCODE = 'restrict_violation';
            END IF;
            IF OLD.booked_at IS NOT NULL
                AND (OLD.amount_minor, OLD.currency, OLD.booked_at)
                    IS DISTINCT FROM (NEW.amount_minor, NEW.currency, NEW.booked_at) THEN
                RAISE EXCEPTION 'payment %: it is in the books; its money does not change', OLD.id
                    USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER moves BEFORE UPDATE ON payment"
        " FOR EACH ROW EXECUTE FUNCTION wasl_payment_moves()"
    )


def _the_chain_is_linked() -> None:
    op.execute(
        """
        CREATE FUNCTION wasl_batch_follows() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            before ledger_batch;
        BEGIN
            SELECT * INTO before FROM ledger_batch ORDER BY id DESC LIMIT 1;
            IF NEW.id <> coalesce(before.id, 0) + 1
                OR NEW.first_transfer_id <> coalesce(before.last_transfer_id, 0) + 1
                OR NEW.previous_hash <> coalesce(before.hash, decode(repeat('00', 32), 'hex'))
                OR NEW.total_minor <= coalesce(before.total_minor, 0) THEN
                RAISE EXCEPTION 'ledger_batch % does not follow the last one', NEW.id
                    USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER follows BEFORE INSERT ON ledger_batch"
        " FOR EACH ROW EXECUTE FUNCTION wasl_batch_follows()"
    )
    op.execute(
        """
        CREATE FUNCTION wasl_reversal_is_opposite() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            reversed ledger_transfer;
        BEGIN
            SELECT * INTO reversed FROM ledger_transfer WHERE id = NEW.reverses_id;
            IF reversed.reverses_id IS NOT NULL
                OR (reversed.debit_account_id, reversed.credit_account_id, reversed.amount_minor)
                    IS DISTINCT FROM (NEW.credit_account_id, NEW.debit_account_id, NEW.amount_minor)
                OR reversed.payment_id IS DISTINCT FROM NEW.payment_id
                OR reversed.invoice_id IS DISTINCT FROM NEW.invoice_id THEN
                RAISE EXCEPTION 'ledger_transfer %: not the opposite of transfer %',
                    NEW.id, NEW.reverses_id USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER reversal_is_opposite BEFORE INSERT ON ledger_transfer FOR EACH ROW"
        " WHEN (NEW.reverses_id IS NOT NULL) EXECUTE FUNCTION wasl_reversal_is_opposite()"
    )


def _references() -> None:
    op.execute("CREATE SEQUENCE invoice_number MINVALUE 0 MAXVALUE 8999999999 START 0 NO CYCLE")
    op.execute(
        """
        CREATE FUNCTION wasl_scramble(key bytea, turn bytea, value bigint) RETURNS bigint
        LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
        DECLARE
            digest bytea := sha256(key || turn || int4send(value::int));
        BEGIN
            RETURN ((get_byte(digest, 0) & 127)::bigint << 24) | (get_byte(digest, 1) << 16)
                | (get_byte(digest, 2) << 8) | get_byte(digest, 3);
        END $$
        """
    )
    op.execute(
        """
        CREATE FUNCTION wasl_reference(n bigint, key bytea) RETURNS text
        LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
        DECLARE
            l bigint := (n % 1000000000) / 10000;
            r bigint := n % 10000;
            payload bigint;
        BEGIN
            l := (l + wasl_scramble(key, '\\x00', r)) % 100000;
            r := (r + wasl_scramble(key, '\\x01', l)) % 10000;
            l := (l + wasl_scramble(key, '\\x02', r)) % 100000;
            r := (r + wasl_scramble(key, '\\x03', l)) % 10000;
            l := (l + wasl_scramble(key, '\\x04', r)) % 100000;
            r := (r + wasl_scramble(key, '\\x05', l)) % 10000;
            payload := (n / 1000000000 + 1) * 1000000000 + l * 10000 + r;
            RETURN payload::text || lpad((98 - payload * 100 % 97)::text, 2, '0');
        END $$
        """
    )
    op.execute(
        "INSERT INTO reference_key (id, key) VALUES"
        " (1, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())))"
    )


def downgrade() -> None:
    for table in APPEND_ONLY:
        op.execute(f"DROP TRIGGER append_only ON {table}")
    for table in NEVER_DELETED:
        op.execute(f"DROP TRIGGER never_deleted ON {table}")
    for table in FACTS:
        op.execute(f"DROP TRIGGER facts_stand ON {table}")
    for trigger, table, _ in OTHER_TRIGGERS:
        op.execute(f"DROP TRIGGER {trigger} ON {table}")
    for function in (
        "wasl_refuse()",
        "wasl_refuse_other_facts()",
        "wasl_payment_moves()",
        "wasl_batch_follows()",
        "wasl_reversal_is_opposite()",
        "wasl_reference(bigint, bytea)",
        "wasl_scramble(bytea, bytea, bigint)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("DROP SEQUENCE invoice_number")
    op.execute("DELETE FROM reference_key")
    op.execute("DELETE FROM ledger_account")
