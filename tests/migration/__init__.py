"""The migrations: forwards, backwards, and the schema that they create."""
