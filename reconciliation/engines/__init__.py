"""Two ways to carry out `docs/matching.md`: DuckDB in memory, and plain SQL on PostgreSQL."""
