"""Forecasts that were asked for and reach further than those that are issued."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Nobody has asked yet."""
    op.execute("""CREATE TABLE asked (
      asked_at timestamptz NOT NULL, sensor_no integer NOT NULL, issued_at timestamptz, model_no integer,
      age_ticks integer, speed real[], volume real[], confidence real[], tolerance real[], quantiles real[],
      PRIMARY KEY (asked_at, sensor_no))""")
    op.execute("CREATE INDEX asked_waiting ON asked (asked_at) WHERE issued_at IS NULL")


def downgrade() -> None:
    """Whoever asked has to ask again."""
    op.execute("DROP TABLE asked")
