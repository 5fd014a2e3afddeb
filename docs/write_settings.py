"""Writes `docs/settings.md` and `.env.example` from `Settings`. Run by `make settings`."""

from collections.abc import Iterator
from datetime import time
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from roadcast.settings import Settings

ROOT = Path(__file__).resolve().parents[1]

OF_A_DATABASE_OF_YOURS = {"DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD"}
DECIDED_BY_CONFIG = {"API_RELOAD", "LOG_LEVEL", "LOG_FORMAT"}

TABLE = """\
# Settings

Each setting is an environment variable. A file `.env` in the folder where a command runs may hold them too; the
environment wins over it. `src/api/deploy.py` always runs in the repository's folder. An empty value means the default.
A contradiction ends the start with one line that says what to do.

With `--config development` unknown sensors are registered, the log has every detail in plain lines, and code is
reloaded. With `--config production` unknown sensors are rejected, the log is JSON from INFO on, and the documented
`SECRET_KEY` is refused. A setting that is given wins over both.

This page and `.env.example` are written by `make settings` from `src/roadcast/settings.py`.
"""

EXAMPLE = """\
# Copy to .env and change what you need. Each line shows a default.
# Where a line is commented out, the system chooses by itself until you set it.
"""


def shown(default: object) -> str:
    """A default as one writes it in the environment; empty where the setting is unset."""
    match default:
        case bool():
            return str(default).lower()
        case float():
            return f"{default:g}"
        case SecretStr():
            return default.get_secret_value()
        case time():
            return default.isoformat("minutes")
        case list():
            return ",".join(str(item) for item in cast("list[object]", default))
        case _:
            return "" if default is None else str(default)


def grouped() -> Iterator[tuple[str, list[tuple[str, FieldInfo]]]]:
    """Each group's name with its settings, in the order of the code."""
    for group, fields in groupby(Settings.model_fields.items(), lambda item: extra(item[1])["group"]):
        yield group, [(name.upper(), field) for name, field in fields]


def extra(field: FieldInfo) -> dict[str, Any]:
    """What `settings.setting` says beside pydantic."""
    return cast("dict[str, Any]", field.json_schema_extra)


def table() -> Iterator[str]:
    """The lines of `docs/settings.md`."""
    yield TABLE
    for group, fields in grouped():
        yield f"## {group}\n"
        yield "| name | default | meaning |"
        yield "|---|---|---|"
        for name, field in fields:
            default = shown(field.default)
            yield f"| `{name}` | {f'`{default}`' if default else 'unset'} | {field.description} |"
        yield ""


def example() -> Iterator[str]:
    """The lines of `.env.example`."""
    yield EXAMPLE
    for group, fields in grouped():
        yield f"## {group}\n"
        for name, field in fields:
            yield f"# {field.description}"
            yield f"{'#' if is_left_out(name, group, field) else ''}{name}={shown(field.default)}\n"


def is_left_out(name: str, group: str, field: FieldInfo) -> bool:
    """Whether a copy of the example must not give it, lest it override what the system would choose."""
    return field.default is None or group == "Kafka" or name in OF_A_DATABASE_OF_YOURS | DECIDED_BY_CONFIG


def write(path: Path, lines: Iterator[str]) -> None:
    """Write lines with one newline at the end."""
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(ROOT / "docs" / "settings.md", table())
    write(ROOT / ".env.example", example())
