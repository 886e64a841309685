"""Milepost, the operations service: it remembers every long-running piece of work."""
