from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from psycopg import sql
from sqlmodel import SQLModel

import reconciliation.models
import reconciliation.sources.models  # noqa: F401 - registers its tables
import webhooks.models  # noqa: F401
from gateway import migrate
from gateway.db import execute, sqlalchemy_url, transaction
from gateway.errors import Unusable
from gateway.services import Services
from tests.conftest import address_of

CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
"""


def test_models_and_migrations_agree(database: str) -> None:
    migrate.check(database)


def test_migrated_tables_have_the_constraints_of_the_models(
    database: str, services: Services
) -> None:
    """Alembic compares columns and keys; what it does not compare are the checks."""
    drawn = "drawn_from_models"
    with psycopg.connect(services.database_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(drawn)))
        try:
            address = address_of(services, drawn)
            engine = sa.create_engine(sqlalchemy_url(address), poolclass=sa.NullPool)
            SQLModel.metadata.create_all(engine)
            with psycopg.connect(address) as models, psycopg.connect(database) as migrated:
                wanted = set(models.execute(CONSTRAINTS).fetchall())
                assert set(migrated.execute(CONSTRAINTS).fetchall()) == wanted
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(drawn)))


def test_running_them_again_changes_nothing(database: str) -> None:
    migrate.upgrade(database)
    migrate.upgrade(database)


def test_every_judge_is_known(database: str) -> None:
    with transaction() as session:
        triggers = execute(
            session,
            "SELECT tgrelid::regclass::text, tgname, tgfoid::regproc::text FROM pg_trigger"
            " WHERE NOT tgisinternal",
        )
        judges = migrate.judges()
        assert {tuple(trigger) for trigger in triggers} == judges.triggers
        assert execute(session, migrate.FUNCTIONS_QUERY).scalar_one() == judges.functions_md5
        assert execute(session, migrate.CONSTRAINTS_QUERY).scalar_one() == judges.constraints_md5


def test_a_database_of_a_newer_version_is_left_alone(database: str) -> None:
    with transaction() as session:
        execute(session, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Unusable, match="9999"):
        migrate.upgrade(database)


def test_amounts_are_bigints_and_instants_are_aware(database: str) -> None:
    with transaction() as session:
        columns = execute(
            session,
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'public'",
        ).all()
    for table, column, kind in columns:
        if column.endswith("_minor"):
            assert kind == "bigint", f"{table}.{column}"
        if column.endswith("_at"):
            assert kind == "timestamp with time zone", f"{table}.{column}"
        if column.endswith("_on"):
            assert kind == "date", f"{table}.{column}"
        if kind == "numeric":
            assert column.endswith("_rate"), f"{table}.{column}: only shares have decimals"
            continue
        assert kind not in {"double precision", "real", "timestamp without time zone"}


def test_rules_of_the_version_before_can_be_said_in_any_language(services: Services) -> None:
    """Their figures are taken out of the sentences that it wrote."""
    name = sql.Identifier("of_the_version_before")
    with psycopg.connect(services.database_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            address = address_of(services, "of_the_version_before")
            config = migrate._config()
            with migrate._engine(address).begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "0002")
                for rule in (
                    "artisan-untaxed: 0.75 × SMIG 17.92/h × 191 h × 6.37 %",
                    "cpu: fixed amount, annual principal duty up to 1000.00",
                    "something that nobody wrote",
                ):
                    connection.execute(
                        sa.text("INSERT INTO rule (rule, source, verified) VALUES (:r, 's', true)"),
                        {"r": rule},
                    )
            migrate.upgrade(address)
            with psycopg.connect(address) as connection:
                facts = [f for (f,) in connection.execute("SELECT facts FROM rule ORDER BY id")]
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
    smig = {"coefficient": "0.75", "smig": "17.92", "hours": "191", "rate": "6.37"}
    band = {"form": "band-up-to", "base": "annual principal duty", "edge": "1000.00"}
    assert facts == [{"form": "share-of-smig", **smig}, band, {}]


def test_invoices_of_the_version_before_are_judged_by_their_types_and_back(
    services: Services,
) -> None:
    kept = "SELECT to_jsonb(i)::text FROM invoice i ORDER BY id"
    period = "UPDATE invoice SET period = '2026-13'"
    name = sql.Identifier("before_types")
    with psycopg.connect(services.database_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            address = address_of(services, "before_types")
            with migrate._engine(address).begin() as connection:
                migrate.move(connection, "0016")
                for statement in (
                    "INSERT INTO category (code, periodicity, needs_base)"
                    " VALUES ('cpu', 'quarter', true)",
                    "INSERT INTO contributor (cnss_number, family_name, given_name, category_code,"
                    " registered_on, changed_at)"
                    " VALUES ('123456789', 'A', 'B', 'cpu', '2022-01-01', now())",
                    "INSERT INTO rule (rule, source, verified) VALUES ('r', 's', true)",
                    "INSERT INTO invoice (reference, contributor_id, category_code, period, due_on,"
                    " amount_minor, owed_minor, tariff, issued_at) VALUES ('100000000093', 1,"
                    " 'cpu', '2026-Q4', '2026-12-31', 100, 100, 't', now())",
                    "INSERT INTO invoice_line (invoice_id, position, kind, amount_minor, rule_id)"
                    " VALUES (1, 1, 'principal', 100, 1)",
                ):
                    connection.execute(sa.text(statement))
            with psycopg.connect(address) as connection:
                before = connection.execute(kept).fetchall()
            for revision in (migrate.newest(), "0016"):
                with migrate._engine(address).begin() as connection:
                    migrate.move(connection, revision)
                with psycopg.connect(address) as connection:
                    assert connection.execute(kept).fetchall() == before
                    connection.execute("ALTER TABLE invoice DISABLE TRIGGER facts_stand")
                    with pytest.raises(psycopg.errors.CheckViolation):
                        connection.execute(period)
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
    assert len(before) == 1
