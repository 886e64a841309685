"""How Milepost remembers: SQL on SQLite and PostgreSQL, filling the ports of the domain."""
