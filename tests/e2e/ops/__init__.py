"""End-to-end tests of the `ops` commands: a client for terminals and for scripts."""
