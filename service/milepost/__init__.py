"""Milepost, the operations service: it remembers every long-running piece of work."""

from typing import Final

__version__: Final = "0.1.0"
