"""Every setting, its group, default and meaning. Read from the environment and `.env`, once, by the command line.

`docs/settings.md` and `.env.example` are held to this file by a test.
"""

import re
from collections.abc import Iterable
from datetime import time
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dotenv.parser import Binding, parse_stream
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from roadcast.domain.forecast import LONGEST_MINUTES
from roadcast.domain.units import Units
from roadcast.errors import SettingsError
from roadcast.sources.holidays import holiday_days

DOCUMENTED_SECRET = "your-secret-key-here"  # noqa: S105 - the mission's placeholder, refused in production
MIN_SECRET_LENGTH = 32
ENV_FILE = Path(".env")
_ENCODING = "utf-8-sig"
_OF_A_SERVER = {"db_port", "db_name", "db_user", "db_password"}
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+", re.IGNORECASE)


class Mode(StrEnum):
    """How the system is run: `--config` of the command line."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Role(StrEnum):
    """What a process does. One process may have several."""

    API = "api"
    INGEST = "ingest"
    PREDICT = "predict"
    SCORE = "score"
    DETECT = "detect"
    TRAIN = "train"


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("expected a time zone name such as America/Los_Angeles") from error
    return name


def _folder(value: object) -> object:
    if isinstance(value, str) and "://" in value:
        raise ValueError("expected a folder such as /srv/models, the only kind of store that this version knows")
    return value


def _holidays(value: object) -> object:
    return holiday_days(value) if isinstance(value, str) else value


def _time_of_day(value: object) -> object:
    if isinstance(value, str):
        if value.strip().lower() == "never":
            return None
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
            raise ValueError("expected a local time such as 03:00, or never")
        return time.fromisoformat(value)
    return value


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def setting(group: str, default: Any, description: str, **limits: Any) -> Any:
    """A field of `Settings` with the group under which it is documented."""
    return Field(default, description=description, json_schema_extra={"group": group}, **limits)


class Settings(BaseSettings):
    """All settings. An empty value means the default; names are those of the environment variables, in capitals."""

    model_config = SettingsConfigDict(env_file=ENV_FILE, env_file_encoding=_ENCODING, extra="ignore", frozen=True)

    # Database
    db_host: str | None = setting("Database", None, "PostgreSQL 13 or newer. Unset: the embedded PostgreSQL.")
    db_port: int = setting("Database", 5432, "Its port.", ge=1, le=65535)
    db_name: str = setting("Database", "traffic_db", "The database.")
    db_user: str = setting("Database", "postgres", "The user.")
    db_password: SecretStr = setting("Database", SecretStr("password"), "The user's password.")
    db_pool_size: int = setting("Database", 5, "Connections that each process keeps open.", ge=1, le=200)
    db_max_overflow: int = setting("Database", 5, "Connections above the pool's size in a rush.", ge=0, le=200)
    db_timeout_s: float = setting("Database", 10.0, "Longest wait for a connection, and to connect.", gt=0, le=3_600)
    db_query_timeout_s: float = setting("Database", 30.0, "Longest run of one query of the API.", gt=0, le=3_600)
    retention_days: int | None = setting(
        "Database", None, "Days of readings to keep, counted on the feed's clock. Unset: all.", ge=1, le=36_500
    )
    forecast_retention_days: int = setting("Database", 30, "Days of issued forecasts to keep.", ge=1, le=36_500)

    # Kafka
    kafka_bootstrap_servers: str | None = setting(
        "Kafka", None, "Kafka brokers. Unset: the log in memory, for one process, which is what this version runs on."
    )
    kafka_topic_traffic_events: str = setting("Kafka", "traffic-events", "Topic of incoming readings.")
    kafka_topic_processed_aggregates: str = setting(
        "Kafka", "processed-traffic-aggregates", "Topic of what ingest committed."
    )
    kafka_topic_predictions: str = setting("Kafka", "traffic-predictions", "Topic of issued forecasts.")
    kafka_topic_alerts: str = setting("Kafka", "traffic-alerts", "Topic of alerts.")

    # API
    api_host: str = setting("API", "0.0.0.0", "Address to listen on.")  # noqa: S104 - the mission's default
    api_port: int = setting("API", 8000, "Port to listen on; 0 takes a free one.", ge=0, le=65535)
    api_reload: bool = setting(
        "API", False, "Restart the API process when code changes; on with `--config development`."
    )
    api_workers: int = setting("API", 4, "At most this many workers; the log in memory runs one.", ge=1, le=64)
    cors_origins: Annotated[list[str], NoDecode] = setting(
        "API",
        ["http://localhost:3000", "https://yourdomain.com"],
        "Browser origins allowed, comma-separated.",
    )
    max_body_bytes: int = setting("API", 16_000_000, "Largest request body.", ge=1_000, le=1_000_000_000)
    ingest_queue_readings: int = setting(
        "API", 1_000_000, "Readings that may wait to be stored; above it a request gets 503.", ge=1_000, le=100_000_000
    )

    # Logging
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = setting(
        "Logging", "INFO", "Least level written; `--config development` writes DEBUG unless this is set."
    )
    log_format: Literal["json", "console"] = setting(
        "Logging", "json", "Form of the log's lines; `--config development` writes `console` unless this is set."
    )
    log_file: Path | None = setting(
        "Logging",
        Path("/var/log/traffic-api/app.log"),
        "File beside standard output, empty for none; unwritable is one warning.",
    )

    # Security
    secret_key: SecretStr = setting(
        "Security", SecretStr(DOCUMENTED_SECRET), "Key of what is signed. Production refuses this default."
    )

    # System
    data_dir: Path = setting("System", Path("var"), "Everything that is written but LOG_FILE.")
    model_store: Annotated[Path | None, BeforeValidator(_folder)] = setting(
        "System", None, "Folder of the versions of trained models. Unset: `models` in DATA_DIR."
    )
    timezone: Annotated[str, AfterValidator(_zone)] = setting(
        "System", "UTC", "Time zone of the road: local days, hours and naive stamps in files."
    )
    holidays: Annotated[tuple[int, ...] | None, NoDecode, BeforeValidator(_holidays)] = setting(
        "System",
        None,
        "Days with a Sunday's traffic: a country or a part of one such as US-CA, dates with commas between them, or a "
        "file with one date a line. Unset: none.",
    )
    units: Units = setting("System", Units.US, "`us` (mph, miles) or `metric` (km/h, km), in requests and answers.")
    roles: Annotated[list[Role], NoDecode] = setting(
        "System", list(Role), "What this process does, comma-separated; the log in memory needs all in one."
    )
    feed: Literal["demo", "none"] | None = setting(
        "System",
        None,
        "`demo` runs a simulated corridor; unset: `demo` in development where nothing real is stored, else `none`.",
    )
    demo_seed: int = setting("System", 1, "Seed of the simulated corridor.", ge=0, le=2**32 - 1)
    demo_tick_s: float = setting(
        "System", 5.0, "Seconds between ticks of the demo until it reaches the present.", gt=0, le=86_400
    )
    unknown_sensors: Literal["register", "reject"] | None = setting(
        "System",
        None,
        "Readings of unknown sensors; unset: `register` in development, `reject` in production.",
    )
    stale_after_s: float = setting("System", 900.0, "A reading older than this is stale.", gt=0, le=31_536_000)

    # Pipeline
    interval_s: int = setting("Pipeline", 300, "Length of a window: whole minutes that divide an hour.", ge=60, le=3600)
    horizon_minutes: int = setting("Pipeline", 60, "How far ahead forecasts reach.", ge=5, le=LONGEST_MINUTES)
    max_future_s: int = setting(
        "Pipeline", 300, "A reading further ahead of the clock is rejected.", ge=0, le=31_536_000
    )
    allowed_lateness_s: int = setting(
        "Pipeline", 86_400, "A reading later than this counts as late.", ge=0, le=315_360_000
    )
    idle_timeout_s: float = setting(
        "Pipeline", 30.0, "A window closes when its sensors have been silent for this long.", gt=0, le=86_400
    )

    train_at: Annotated[time | None, BeforeValidator(_time_of_day)] = setting(
        "Pipeline", time(3), "Local time at which a model is trained every day, or `never`."
    )

    @property
    def horizons(self) -> int:
        """How many windows ahead forecasts are issued."""
        return self.horizon_minutes * 60 // self.interval_s

    @property
    def reach(self) -> int:
        """How many windows ahead forecasters can look."""
        return LONGEST_MINUTES * 60 // self.interval_s

    @property
    def models_dir(self) -> Path:
        """Where the versions of models lie."""
        return self.model_store or self.data_dir / "models"

    @property
    def local_url(self) -> str:
        """Where the system of these settings is asked from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.api_host, self.api_host)  # noqa: S104 - compared
        return f"http://[{host}]:{self.api_port}" if ":" in host else f"http://{host}:{self.api_port}"

    @model_validator(mode="before")
    @classmethod
    def _empty_means_default(cls, values: dict[str, Any]) -> dict[str, Any]:
        """An empty LOG_FILE means none; any other empty value its default."""
        given = {name: value for name, value in values.items() if value != "" or name == "log_file"}
        return given | ({"log_file": None} if given.get("log_file") == "" else {})

    @field_validator("cors_origins", "roles", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return _split(value)

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        bare = [origin.rstrip("/") for origin in origins]
        for origin in bare:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r}: expected an origin such as https://example.org, without a path")
        return bare

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) and value.upper() in _LEVELS else value

    @model_validator(mode="after")
    def _intervals_agree(self) -> Self:
        if 3600 % self.interval_s or self.interval_s % 60:
            raise ValueError(f"INTERVAL_S={self.interval_s}: expected whole minutes that divide an hour, such as 300")
        if self.horizon_minutes * 60 % self.interval_s:
            raise ValueError(
                f"HORIZON_MINUTES={self.horizon_minutes}: expected a multiple of INTERVAL_S={self.interval_s} s"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is passed wins over the environment, which wins over `.env`."""
        return init_settings, env_settings, dotenv_settings


def load_settings(mode: Mode | None = None, **given: Any) -> Settings:
    """Read the settings, fill in what `mode` decides, if one is given, and refuse contradictions.

    Raises:
        SettingsError: naming the variable, its value and what was expected.
    """
    try:
        _refuse_broken_lines(_file_lines())
        settings = Settings(**given)
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_readable(error)) + ".", remedy="Correct it in the environment or .env."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"byte {error.start} is not UTF-8"
        raise SettingsError(f".env cannot be read: {reason}.", remedy="Correct it, or remove it.") from error
    settings = settings.model_copy(update=_decided(settings, mode))
    _refuse_contradictions(settings, mode)
    return settings


@cache
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return load_settings()


def doubts(settings: Settings) -> Iterable[str]:
    """What was set and has no effect, a line each."""
    if settings.db_host is None:
        for name in sorted(settings.model_fields_set & _OF_A_SERVER):
            yield f"{name.upper()} has no effect without DB_HOST: the embedded PostgreSQL is used."
    known = [name.upper() for name in Settings.model_fields]
    for name in (line.key for line in _file_lines() if line.key and line.key.upper() not in known):
        if near := get_close_matches(name.upper(), known, 1, 0.85):
            yield f".env: {name} is no setting. {near[0]}?"


def _file_lines() -> list[Binding]:
    """What stands in .env, line by line."""
    if not ENV_FILE.exists():
        return []
    with ENV_FILE.open(encoding=_ENCODING) as file:
        return list(parse_stream(file))


def _refuse_broken_lines(lines: Iterable[Binding]) -> None:
    for line in lines:
        if line.error or (line.key is not None and line.value is None):
            raise SettingsError(
                f".env line {line.original.line} sets nothing.", remedy="Write NAME=value, or # before a comment."
            )


def _readable(error: ValidationError) -> Iterable[str]:
    for item in error.errors():
        name = "_".join(str(part) for part in item["loc"][:1]).upper()
        message = item["msg"].removeprefix("Value error, ")
        secret = name in {"SECRET_KEY", "DB_PASSWORD"}
        yield f"{name}={item['input']!r}: {message}" if name and not secret else f"{name} {message}".strip()


_BY_MODE: dict[Mode, dict[str, object]] = {
    Mode.DEVELOPMENT: {
        "unknown_sensors": "register", "log_level": "DEBUG", "log_format": "console", "api_reload": True,
    },
    Mode.PRODUCTION: {"unknown_sensors": "reject"},
}  # fmt: skip
"""What `--config` decides where it is not given."""


def _decided(settings: Settings, mode: Mode | None) -> dict[str, object]:
    """The values that the mode decides, and whole paths."""
    decided = _BY_MODE[mode] if mode else {}
    given = {name for name in settings.model_fields_set if getattr(settings, name) is not None}
    return {name: value for name, value in decided.items() if name not in given} | {
        "data_dir": _whole("DATA_DIR", settings.data_dir),
        "model_store": settings.model_store and _whole("MODEL_STORE", settings.model_store),
        "log_file": settings.log_file and _whole("LOG_FILE", settings.log_file),
    }


def _whole(name: str, path: Path) -> Path:
    """The path from the root, whatever becomes the working directory."""
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise SettingsError(f"{name}={path}: that user's home is not known.", remedy="Write the whole path.") from error


def _refuse_contradictions(settings: Settings, mode: Mode | None) -> None:
    if settings.kafka_bootstrap_servers:
        raise SettingsError(
            f"KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers!r}: this version runs on its log in memory.",
            remedy="Unset it.",
        )
    missing = [role for role in Role if role not in (*settings.roles, Role.TRAIN)]
    if missing:
        raise SettingsError(
            f"ROLES lacks {', '.join(missing)}: the log in memory cannot be shared between processes.",
            remedy="Unset ROLES.",
        )
    if mode is Mode.PRODUCTION:
        secret = settings.secret_key.get_secret_value().strip()
        if secret == DOCUMENTED_SECRET or len(secret) < MIN_SECRET_LENGTH:
            raise SettingsError(
                "SECRET_KEY is the documented default or shorter than 32 characters.",
                remedy="Set SECRET_KEY to the output of: openssl rand -hex 32",
            )
        if "*" in settings.cors_origins:
            raise SettingsError("CORS_ORIGINS=* allows every site.", remedy="Name your sites in CORS_ORIGINS.")
