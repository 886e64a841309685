"""${message}.

Why: …
The previous release keeps working on this schema: yes, because …

Revision: ${up_revision}
Follows: ${down_revision | comma,n}
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Say what becomes true."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Say what is no longer true."""
    ${downgrades if downgrades else "pass"}
