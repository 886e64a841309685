"""Webhooks, from the transition of an operation to a receiver on the loopback."""
