"""The composition root: it builds all parts of the service and connects them.

``serving.py`` starts and stops the service; the modules beside it build the parts of one capability
each. ``commands.py`` has the database commands of the command line.
"""

from milepost.main.checks import check
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
    "check",
    "clean_up",
    "create_key",
    "list_keys",
    "migrate",
    "reencrypt_secrets",
    "revoke_key",
    "serve",
]
