"""The order of a worker's processes: a late registration of a dead one is told from a new one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agents", sa.Column("boot_number", sa.BigInteger()))


def downgrade() -> None:
    op.drop_column("agents", "boot_number")
