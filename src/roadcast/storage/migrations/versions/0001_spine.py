"""Sensors, readings, rollups, forecasts, scores, incidents, alerts, feed."""

from alembic import op

revision = "0001"
down_revision = None

SUMS = """
  readings bigint NOT NULL, speed_n bigint NOT NULL, speed_sum bigint NOT NULL,
  volume_n bigint NOT NULL, volume_sum bigint NOT NULL, density_n bigint NOT NULL, density_sum bigint NOT NULL,
  occupancy_n bigint NOT NULL, occupancy_sum bigint NOT NULL, weighted_n bigint NOT NULL,
  weighted_sum bigint NOT NULL, weight_sum bigint NOT NULL,
  ratio_n bigint NOT NULL, ratio_sum bigint NOT NULL, congested_n bigint NOT NULL
"""

TABLES = [
    """CREATE TABLE sensors (
      sensor_no integer PRIMARY KEY, sensor_id text NOT NULL UNIQUE, name text, road text, direction text,
      lanes smallint, milepost double precision, latitude double precision, longitude double precision,
      speed_limit real, reference_speed real, status text NOT NULL DEFAULT 'active')""",
    """CREATE TABLE links (
      from_no integer NOT NULL REFERENCES sensors, to_no integer NOT NULL REFERENCES sensors,
      distance_mi double precision, weight double precision, PRIMARY KEY (from_no, to_no))""",
    """CREATE TABLE readings (
      ts timestamptz NOT NULL, sensor_no integer NOT NULL, speed real, volume real, density real, occupancy real,
      received_at timestamptz NOT NULL, PRIMARY KEY (ts, sensor_no)) PARTITION BY RANGE (ts)""",
    """CREATE TABLE reading_revisions (
      ts timestamptz NOT NULL, sensor_no integer NOT NULL, speed real, volume real, density real, occupancy real,
      received_at timestamptz NOT NULL, replaced_at timestamptz NOT NULL)""",
    "CREATE INDEX reading_revisions_key ON reading_revisions (ts, sensor_no)",
    f"CREATE TABLE ticks (tick_end timestamptz PRIMARY KEY, {SUMS}, speed_min real, speed_max real)",
    f"""CREATE TABLE sensor_days (
      sensor_no integer NOT NULL, day date NOT NULL, {SUMS}, PRIMARY KEY (sensor_no, day))""",
    """CREATE TABLE models (
      model_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, version text NOT NULL,
      candidates text[] NOT NULL, UNIQUE (name, version, candidates))""",
    """CREATE TABLE forecasts (
      issued_at timestamptz NOT NULL, sensor_no integer NOT NULL, model_no integer NOT NULL, age_ticks integer NOT NULL,
      speed real[] NOT NULL, volume real[] NOT NULL, confidence real[] NOT NULL, tolerance real[] NOT NULL,
      quantiles real[] NOT NULL, candidates real[] NOT NULL,
      PRIMARY KEY (issued_at, sensor_no)) PARTITION BY RANGE (issued_at)""",
    """CREATE TABLE scores (
      day date NOT NULL, model text NOT NULL, horizon_minutes integer NOT NULL, jam boolean NOT NULL,
      n bigint NOT NULL, absolute double precision NOT NULL, square double precision NOT NULL,
      error double precision NOT NULL, relative_n bigint NOT NULL, relative double precision NOT NULL,
      interval_n bigint NOT NULL, covered_80 bigint NOT NULL, width_80 double precision NOT NULL,
      confidence_n bigint[] NOT NULL, confidence_sum double precision[] NOT NULL, within_n bigint[] NOT NULL,
      PRIMARY KEY (day, model, horizon_minutes, jam))""",
    """CREATE TABLE incidents (
      incident_id uuid PRIMARY KEY, type text NOT NULL, severity text NOT NULL, description text NOT NULL,
      sensor_id text, road text, direction text, latitude double precision, longitude double precision,
      lanes integer, started_at timestamptz NOT NULL, ended_at timestamptz, status text NOT NULL,
      source text NOT NULL)""",
    "CREATE INDEX incidents_started ON incidents (started_at)",
    """CREATE TABLE incident_events (
      event_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      incident_id uuid NOT NULL REFERENCES incidents ON DELETE CASCADE, at timestamptz NOT NULL,
      action text NOT NULL, changes jsonb NOT NULL)""",
    "CREATE INDEX incident_events_incident ON incident_events (incident_id, event_no)",
    """CREATE TABLE alerts (
      alert_id uuid PRIMARY KEY, at timestamptz NOT NULL, kind text NOT NULL, severity text NOT NULL,
      message text NOT NULL, sensor_id text, incident_id uuid)""",
    "CREATE INDEX alerts_at ON alerts (at)",
    """CREATE TABLE feed (
      only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), name text NOT NULL, replayed boolean NOT NULL,
      simulated boolean NOT NULL, reached_at timestamptz)""",
    "CREATE TABLE marks (name text PRIMARY KEY, at timestamptz NOT NULL)",
    "CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL)",
]


NAMES = [table.split()[2] for table in TABLES if table.startswith("CREATE TABLE")]


def upgrade() -> None:
    """Make every table."""
    for table in TABLES:
        op.execute(table)


def downgrade() -> None:
    """Drop every table."""
    for name in reversed(NAMES):
        op.execute(f"DROP TABLE IF EXISTS {name} CASCADE")
