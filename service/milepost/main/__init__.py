"""The composition root: all that is plugged together is plugged together here.

``serving.py`` is the recipe, from the settings to the last span; beside it are its ingredients by
capability. ``commands.py`` is what the command line does to the database without a service.
"""

from milepost.main.commands import (
    DatabaseError,
    clean_up,
    create_key,
    list_keys,
    migrate,
    reencrypt_secrets,
    revoke_key,
)
from milepost.main.serving import serve

__all__ = [
    "DatabaseError",
    "clean_up",
    "create_key",
    "list_keys",
    "migrate",
    "reencrypt_secrets",
    "revoke_key",
    "serve",
]
