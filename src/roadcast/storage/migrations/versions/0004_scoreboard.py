"""Scores by hour, congestion state and onset, and by sensor; what was taken as truth is kept with the scored windows.

Sums by day and jam cannot be told apart by hour and state: they are dropped, and computed anew from the forecasts that
are kept, since no window counts as scored.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = (
    """CREATE TABLE scores (
      day date NOT NULL, hour smallint NOT NULL, model_no integer NOT NULL, horizon_minutes integer NOT NULL,
      state text NOT NULL,
      n bigint NOT NULL, absolute double precision NOT NULL, square double precision NOT NULL,
      error double precision NOT NULL, relative_n bigint NOT NULL, relative double precision NOT NULL,
      interval_n bigint NOT NULL, covered_80 bigint NOT NULL, covered_90 bigint NOT NULL,
      width_80 double precision NOT NULL, width_90 double precision NOT NULL,
      winkler_80 double precision NOT NULL, winkler_90 double precision NOT NULL,
      confidence_n bigint[] NOT NULL, confidence_sum double precision[] NOT NULL, within_n bigint[] NOT NULL,
      PRIMARY KEY (day, hour, model_no, horizon_minutes, state))""",
    """CREATE TABLE sensor_scores (
      day date NOT NULL, sensor_no integer NOT NULL, model_no integer NOT NULL, horizons integer NOT NULL,
      n integer[] NOT NULL, absolute double precision[] NOT NULL, square double precision[] NOT NULL,
      error double precision[] NOT NULL, PRIMARY KEY (day, sensor_no, model_no, horizons))""",
    """CREATE TABLE scored_ticks (
      tick_end timestamptz PRIMARY KEY, speed real[] NOT NULL, reference real[] NOT NULL, near_onset integer[])""",
    "CREATE INDEX scored_ticks_onset ON scored_ticks (tick_end) WHERE near_onset IS NULL",
)


def upgrade() -> None:
    """Nothing is scored."""
    op.execute("DROP TABLE scores")
    op.execute("DROP TABLE scored_ticks")
    for table in TABLES:
        op.execute(table)


def downgrade() -> None:
    """Nothing is scored."""
    op.execute("DROP TABLE scores")
    op.execute("DROP TABLE sensor_scores")
    op.execute("DROP TABLE scored_ticks")
    op.execute("CREATE TABLE scored_ticks (tick_end timestamptz PRIMARY KEY)")
    op.execute(
        """CREATE TABLE scores (
          day date NOT NULL, model text NOT NULL, horizon_minutes integer NOT NULL, jam boolean NOT NULL,
          n bigint NOT NULL, absolute double precision NOT NULL, square double precision NOT NULL,
          error double precision NOT NULL, relative_n bigint NOT NULL, relative double precision NOT NULL,
          interval_n bigint NOT NULL, covered_80 bigint NOT NULL, width_80 double precision NOT NULL,
          confidence_n bigint[] NOT NULL, confidence_sum double precision[] NOT NULL, within_n bigint[] NOT NULL,
          PRIMARY KEY (day, model, horizon_minutes, jam))"""
    )
