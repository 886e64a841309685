"""Storage in SQLite and PostgreSQL, which implements the ports of the domain."""
