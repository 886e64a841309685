"""Milepost, the operations service: it remembers every long-running piece of work."""

__version__ = "0.1.0"
