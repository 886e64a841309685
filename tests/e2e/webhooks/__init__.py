"""Webhooks, from the move of an operation to a receiver on the loopback, and back to its owner."""
