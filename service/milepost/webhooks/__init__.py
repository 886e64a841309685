"""Webhooks: owners are told how their operations end."""
