"""Requirements of Milepost on its database, checked before the first use."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from milepost.storage.failures import POOLER
from milepost.storage.session import Session

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

LIMIT_S: Final = 4.0
"""Time in which the database answers; afterwards it counts as away."""


def unmet_requirement(engine: Engine, *, allow_data_loss: bool = False) -> str | None:
    """Return why Milepost cannot run on the database, with the remedy, or None.

    With `allow_data_loss` the database may lose acknowledged changes in a crash.

    Raises:
        SQLAlchemyError: the database does not answer.
    """
    session = Session(engine)
    timer = threading.Timer(LIMIT_S, session.abort)
    timer.daemon = True
    timer.start()
    try:
        unmet = session.database.unmet_requirement(session, allow_data_loss=allow_data_loss)
        if unmet is None and session.database.shares_connections(engine):
            return POOLER
        return unmet
    finally:
        timer.cancel()
        session.reset()
