"""Values and rules of operations, with the standard library only."""
