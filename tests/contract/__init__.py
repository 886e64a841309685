"""Contract tests of the stores, on SQLite and on PostgreSQL."""
