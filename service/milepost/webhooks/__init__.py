"""Webhooks: signed notifications of owners about their operations."""
