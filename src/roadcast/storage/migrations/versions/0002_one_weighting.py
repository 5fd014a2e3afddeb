"""Speeds and reference speeds are summed apart; `roadcast.store.prepare` then computes the rollups again."""

from alembic import op

revision = "0002"
down_revision = "0001"

ROLLUPS = ("ticks", "sensor_days")
OLD = ("ratio_n", "ratio_sum")
NEW = ("compared_n", "compared_sum", "compared_weighted_sum", "reference_sum", "reference_weighted_sum")


def _replace(old: tuple[str, ...], new: tuple[str, ...]) -> None:
    for table in ROLLUPS:
        drop = [f"DROP COLUMN {name}" for name in old]
        add = [f"ADD COLUMN {name} bigint NOT NULL DEFAULT 0" for name in new]
        op.execute(f"ALTER TABLE {table} {', '.join(drop + add)}")
        op.execute(f"ALTER TABLE {table} {', '.join(f'ALTER COLUMN {name} DROP DEFAULT' for name in new)}")


def upgrade() -> None:
    """Sum both, in place of their ratio."""
    _replace(OLD, NEW)


def downgrade() -> None:
    """Sum the ratio."""
    _replace(NEW, OLD)
