"""From when on the reference speed of a sensor holds that a running feed has taught."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Those that are known hold for all times, as they did."""
    op.execute("ALTER TABLE sensors ADD COLUMN referenced_from timestamptz")


def downgrade() -> None:
    """They hold for all times again."""
    op.execute("ALTER TABLE sensors DROP COLUMN referenced_from")
