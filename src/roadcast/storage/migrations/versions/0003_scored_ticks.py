"""The windows whose targets were scored, in place of a mark of the newest one: feeds need not come in order."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Everything up to the mark was scored."""
    op.execute("CREATE TABLE scored_ticks (tick_end timestamptz PRIMARY KEY)")
    op.execute("""INSERT INTO scored_ticks
      SELECT tick_end FROM ticks WHERE tick_end <= (SELECT at FROM marks WHERE name = 'score')""")
    op.execute("DELETE FROM marks WHERE name = 'score'")


def downgrade() -> None:
    """Everything up to the newest was scored."""
    op.execute("INSERT INTO marks SELECT 'score', max(tick_end) FROM scored_ticks HAVING count(*) > 0")
    op.execute("DROP TABLE scored_ticks")
