"""Files between the databases."""

from __future__ import annotations

from pathlib import Path

import duckdb

from reconciliation.duckfiles import read_file


def test_the_name_of_a_directory_is_no_column(tmp_path: Path) -> None:
    """Temporary files may lie in a directory that DuckDB would take for a part of a table."""
    path = tmp_path / "k=5" / "rows.csv"
    path.parent.mkdir()
    path.write_text("1,148275036141\n")
    with duckdb.connect() as con:
        rows = con.execute(f"SELECT n, k FROM {read_file(path, {'n': 'BIGINT', 'k': 'BIGINT'})}")
        assert rows.fetchall() == [(1, 148275036141)]
