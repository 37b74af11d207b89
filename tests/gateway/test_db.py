"""How a process is bound to its database: what an address may say, and what holds without it."""

from __future__ import annotations

import psycopg

from gateway import db
from gateway.db import execute, transaction


def test_a_database_that_vanishes_is_not_waited_for_and_an_address_has_the_last_word(
    database: str,
) -> None:
    db.connect(f"{database}?keepalives_idle=7&options=-csearch_path%3Dpg_catalog")
    with transaction() as session:
        connection = session.connection().connection.driver_connection
        assert isinstance(connection, psycopg.Connection)
        said = connection.info.get_parameters()
        shown = [
            execute(session, f"SHOW {name}").scalar_one() for name in ("timezone", "search_path")
        ]
    assert said["keepalives_idle"] == "7"
    assert int(said["tcp_user_timeout"]) <= 30_000
    assert int(said["keepalives_interval"]) * int(said["keepalives_count"]) <= 30
    assert shown == ["UTC", "pg_catalog"]
