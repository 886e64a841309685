"""The life of operations, as a real Jaeger shows it."""
