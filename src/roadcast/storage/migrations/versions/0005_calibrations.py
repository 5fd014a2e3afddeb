"""What is known of every forecaster's errors at the last issues."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Nothing is known before the next issue."""
    op.execute("""CREATE TABLE calibrations (
      issued_at timestamptz NOT NULL, forecaster text NOT NULL, arrays bytea NOT NULL,
      PRIMARY KEY (issued_at, forecaster))""")


def downgrade() -> None:
    """A restart learns from the history again."""
    op.execute("DROP TABLE calibrations")
