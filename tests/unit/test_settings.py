"""Settings: what the mode decides, what is refused, and that errors name the variable."""

import os

import pytest

from roadcast.errors import SettingsError
from roadcast.settings import Mode, doubts, load_settings

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name not in {"PATH", "HOME"}:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_development_and_production_decide_what_was_not_given():
    development = load_settings(Mode.DEVELOPMENT)
    assert (development.unknown_sensors, development.log_level, development.api_reload) == ("register", "DEBUG", True)
    production = load_settings(Mode.PRODUCTION, secret_key=SECRET)
    assert (production.unknown_sensors, production.log_level, production.api_reload) == ("reject", "INFO", False)
    assert production.log_format == "json"


def test_what_is_given_wins(monkeypatch):
    monkeypatch.setenv("LOG_LEVEL", "warning")
    monkeypatch.setenv("API_RELOAD", "false")
    monkeypatch.setenv("UNKNOWN_SENSORS", "reject")
    settings = load_settings(Mode.DEVELOPMENT)
    assert (settings.log_level, settings.api_reload, settings.unknown_sensors) == ("WARNING", False, "reject")


def test_an_env_file_is_read_and_the_environment_wins(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("API_PORT=9001\nAPI_WORKERS=2\nDB_HOST=\n")
    monkeypatch.setenv("API_PORT", "9002")
    settings = load_settings()
    assert (settings.api_port, settings.api_workers, settings.db_host) == (9002, 2, None)


def test_lists_are_comma_separated(monkeypatch):
    monkeypatch.setenv("CORS_ORIGINS", "http://a, http://b")
    assert load_settings().cors_origins == ["http://a", "http://b"]


def test_the_data_folder_is_absolute(tmp_path):
    assert load_settings().data_dir == tmp_path / "var"


def test_models_lie_with_the_data_or_in_a_folder_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_DIR", "here")
    assert load_settings().models_dir == tmp_path / "here" / "models"
    monkeypatch.setenv("MODEL_STORE", "there")
    assert load_settings().models_dir == tmp_path / "there"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "MODEL_STORE",
            "s3://bucket/models",
            "MODEL_STORE='s3://bucket/models': expected a folder such as /srv/models",
        ),
        ("API_PORT", "x", "API_PORT='x'"),
        ("API_PORT", "70000", "API_PORT='70000'"),
        ("TIMEZONE", "Mars/Base", "America/Los_Angeles"),
        ("TIMEZONE", "America", "America/Los_Angeles"),  # a folder among the zones
        ("MAX_FUTURE_S", "9" * 20, "MAX_FUTURE_S"),
        ("STALE_AFTER_S", "inf", "STALE_AFTER_S='inf'"),
        ("DB_TIMEOUT_S", "nan", "DB_TIMEOUT_S='nan'"),
        ("UNITS", "furlongs", "UNITS='furlongs'"),
        ("INTERVAL_S", "7000", "INTERVAL_S"),
        ("INTERVAL_S", "420", "divide an hour"),
        ("INTERVAL_S", "90", "whole minutes"),
        ("HORIZON_MINUTES", "58", "multiple of INTERVAL_S"),
        ("KAFKA_BOOTSTRAP_SERVERS", "k:9092", "Unset it"),
        ("ROLES", "api,ingest", "ROLES lacks predict"),
        ("FEED", "maybe", "FEED='maybe'"),
    ],
)
def test_a_bad_value_is_named_with_its_remedy(monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("secret", ["your-secret-key-here", "hunter2", "", " " * 40])
def test_production_refuses_a_default_or_short_secret_without_showing_it(secret, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", secret)
    with pytest.raises(SettingsError) as refused:
        load_settings(Mode.PRODUCTION)
    assert "openssl" in str(refused.value)
    assert secret == "" or secret not in str(refused.value)


def test_without_a_mode_the_defaults_are_the_documented_ones():
    settings = load_settings()
    assert (settings.log_level, settings.log_format, settings.api_reload) == ("INFO", "json", False)


def test_an_origin_has_no_path(monkeypatch):
    monkeypatch.setenv("CORS_ORIGINS", "http://localhost:3000/, https://example.org")
    assert load_settings().cors_origins == ["http://localhost:3000", "https://example.org"]
    for wrong in ("foo", "https://example.org/app"):
        monkeypatch.setenv("CORS_ORIGINS", wrong)
        with pytest.raises(SettingsError, match=f"'{wrong}'.*expected an origin such as"):
            load_settings()


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - named
        ("::", "[::1]"),
        ("::1", "[::1]"),
        ("example.org", "example.org"),
    ],
)
def test_the_system_is_asked_where_it_listens(monkeypatch, host, asked):
    monkeypatch.setenv("API_HOST", host)
    assert load_settings(Mode.DEVELOPMENT).local_url == f"http://{asked}:8000"


@pytest.mark.parametrize("line", ["DB_HOST localhost", "DB_HOST", '="x"', 'SECRET_KEY="hunter2'])
def test_a_line_of_the_env_file_that_sets_nothing_is_refused_by_its_number(tmp_path, line):
    (tmp_path / ".env").write_text(f"# ours\n{line}\n")
    with pytest.raises(SettingsError, match=r"^\.env line 2 ") as refused:
        load_settings()
    assert "hunter2" not in str(refused.value)


def test_what_has_no_effect_is_said(tmp_path):
    (tmp_path / ".env").write_text("API_PROT=9\nCOMPOSE_PROJECT_NAME=x\nDB_NAME=traffic\n")
    assert list(doubts(load_settings())) == [
        "DB_NAME has no effect without DB_HOST: the embedded PostgreSQL is used.",
        ".env: API_PROT is no setting. API_PORT?",
    ]
    assert list(doubts(load_settings(db_host="db")))[1:] == []


def test_production_refuses_every_origin(monkeypatch):
    monkeypatch.setenv("CORS_ORIGINS", "*")
    with pytest.raises(SettingsError, match="CORS_ORIGINS"):
        load_settings(Mode.PRODUCTION, secret_key=SECRET)


def test_secrets_do_not_show():
    settings = load_settings(secret_key=SECRET, db_password="hunter2")
    assert SECRET not in repr(settings)
    assert "hunter2" not in repr(settings)


def test_an_empty_value_means_the_default_and_an_empty_log_file_none(monkeypatch):
    monkeypatch.setenv("API_PORT", "")
    monkeypatch.setenv("LOG_FILE", "")
    settings = load_settings(api_reload=False)
    assert (settings.api_port, settings.log_file, settings.api_reload) == (8000, None, False)
