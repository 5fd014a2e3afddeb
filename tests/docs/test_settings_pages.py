"""`docs/settings.md` and `.env.example` say what the code does."""

import os
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from roadcast.errors import SettingsError
from roadcast.settings import Mode, Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "settings.md"
EXAMPLE = ROOT / ".env.example"
SETTINGS = {name.upper(): field for name, field in Settings.model_fields.items()}


def documented() -> dict[str, tuple[str, str, str]]:
    """Group, default and meaning of each setting in the table."""
    found: dict[str, tuple[str, str, str]] = {}
    group = ""
    for line in TABLE.read_text().splitlines():
        if line.startswith("## "):
            group = line.removeprefix("## ")
        elif row := re.fullmatch(r"\| `(\w+)` \| (.*?) \| (.*) \|", line):
            name, default, meaning = row.groups()
            assert name not in found
            found[name] = (group, "" if default == "unset" else default.strip("`"), meaning)
    return found


def exemplified() -> dict[str, tuple[str, str, str, bool]]:
    """Group, default, comment and whether it is commented out, of each setting in the example."""
    found: dict[str, tuple[str, str, str, bool]] = {}
    group = comment = ""
    for line in EXAMPLE.read_text().splitlines():
        if line.startswith("## "):
            group = line.removeprefix("## ")
        elif line.startswith("# "):
            comment = line.removeprefix("# ")
        elif line:
            name, _, default = line.removeprefix("#").partition("=")
            assert name not in found
            found[name] = (group, default, comment, line.startswith("#"))
    return found


@pytest.fixture
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS.keys() & os.environ.keys():
        monkeypatch.delenv(name)


def test_both_name_every_setting_and_no_other() -> None:
    assert list(documented()) == list(SETTINGS)
    assert list(exemplified()) == list(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_both_give_its_group_and_meaning(name: str) -> None:
    field = SETTINGS[name]
    assert isinstance(field.json_schema_extra, dict)
    group, _, meaning = documented()[name]
    assert (group, meaning) == (field.json_schema_extra["group"], field.description)
    group, _, comment, _ = exemplified()[name]
    assert (group, comment) == (field.json_schema_extra["group"], field.description)


@pytest.mark.usefixtures("_nothing_set")
@pytest.mark.parametrize("source", [documented, exemplified])
def test_the_defaults_said_are_those_of_the_code(source) -> None:
    said = {name.lower(): row[1] for name, row in source().items() if row[1]}
    unset = {name.lower() for name, field in SETTINGS.items() if field.default is None}
    assert set(said) == {name.lower() for name in SETTINGS} - unset
    assert Settings(_env_file=None, **said) == Settings(_env_file=None)


@pytest.mark.usefixtures("_nothing_set")
@pytest.mark.parametrize("mode", Mode)
def test_a_copy_of_the_example_changes_nothing(mode: Mode) -> None:
    given = {"secret_key": SecretStr("k" * 32)}
    assert load_settings(mode, _env_file=EXAMPLE, **given) == load_settings(mode, _env_file=None, **given)


@pytest.mark.usefixtures("_nothing_set")
def test_production_refuses_the_secret_of_the_example() -> None:
    assert exemplified()["SECRET_KEY"][1:] == ("your-secret-key-here", SETTINGS["SECRET_KEY"].description, False)
    with pytest.raises(SettingsError, match=r"^SECRET_KEY .* openssl rand -hex 32$"):
        load_settings(Mode.PRODUCTION, _env_file=EXAMPLE)


@pytest.mark.parametrize("name", ["DB_HOST", "DB_PASSWORD", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TOPIC_ALERTS", "FEED"])
def test_the_example_leaves_out_what_the_system_brings_along(name: str) -> None:
    assert exemplified()[name][3]


def test_defaults_can_be_read_without_the_environment() -> None:
    assert SETTINGS["API_PORT"].default == 8000
    assert exemplified()["API_PORT"][1] == documented()["API_PORT"][1] == "8000"
