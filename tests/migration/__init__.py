"""The migrations: forwards, backwards, and what they make of a database."""
