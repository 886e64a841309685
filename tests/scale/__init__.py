"""Measurements of the service at its limits, in minutes instead of seconds."""
