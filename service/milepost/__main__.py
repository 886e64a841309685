"""``python -m milepost``."""

from milepost.cli import app

app()
