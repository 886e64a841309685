"""What every store of operations must do, on SQLite and on PostgreSQL alike."""
