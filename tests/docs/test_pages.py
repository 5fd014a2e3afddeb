"""What the pages name is there, and what is there is named."""

import re
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from roadcast.api.app import create_app
from roadcast.api.context import ApiContext
from roadcast.bootstrap import SUITES
from roadcast.cli import app as commands

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
OPERATIONS = (DOCS / "operations.md").read_text()
LARGEST_IMAGE_BYTES = 200_000


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_images_are_used_and_small() -> None:
    images = {path.resolve() for path in (DOCS / "images").iterdir()}
    shown = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())
    }
    assert images == shown
    assert all(path.stat().st_size < LARGEST_IMAGE_BYTES for path in images)


def no_lifespan() -> AbstractAsyncContextManager[ApiContext]:
    raise AssertionError("describing the API starts nothing")


def test_the_api_page_names_every_route_and_no_other() -> None:
    described = {
        f"{method.upper()} {path}"
        for path, operations in create_app(no_lifespan).openapi()["paths"].items()
        for method in operations
    }
    assert set(re.findall(r"^\| `([A-Z]+ /\S+)` \|", (DOCS / "api.md").read_text(), re.MULTILINE)) == described


def test_the_operations_page_names_every_event_of_the_log() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "src" / "roadcast").rglob("*.py"))
    written = set(re.findall(r"\blog\.(?:info|warning|error|exception|critical)\(\s*\"(\w+)\"", code))
    assert "service_ended" in written
    written |= set(re.findall(r"\bwrite\(\s*\"(\w+)\"", code)) | set(re.findall(r"\"msg\": \"(\w+)\"", code))
    section = OPERATIONS.split("\n## Logs\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", section, re.MULTILINE)
    assert {name.strip("`") for row in rows for name in row.split(", ")} == written


def test_the_operations_page_names_every_metric() -> None:
    code = (ROOT / "src" / "roadcast" / "api" / "metrics.py").read_text()
    counters = set(re.findall(r"Counter\(\s*\"(\w+)\"", code)) | set(
        re.findall(r"CounterMetricFamily\(\s*\"(\w+)\"", code)
    )
    named = set(re.findall(r"\"(roadcast_\w+)\"", code))
    expected = {f"{name}_total" if name in counters else name for name in named}
    assert set(re.findall(r"`(roadcast_\w+)`", OPERATIONS)) == expected


def test_the_readme_names_every_command_and_suite() -> None:
    readme = (ROOT / "README.md").read_text()
    visible = {
        command.name or command.callback.__name__ for command in commands.registered_commands if not command.hidden
    } | {group.name for group in commands.registered_groups}
    assert set(re.findall(r"^\.venv/bin/roadcast (\w+)  ", readme, re.MULTILINE)) == visible
    assert all(f"`{suite}" in readme or f"--type {suite}" in readme for suite in SUITES)


@pytest.mark.parametrize("page", DECISIONS, ids=by_name)
def test_a_decision_has_its_number_and_five_headings(page: Path) -> None:
    lines = page.read_text().splitlines()
    assert lines[0].startswith(f"# {page.name[:4]} ")
    assert [line for line in lines if line.startswith("## ")] == [
        "## Context", "## Options", "## Decision", "## Good", "## Bad",
    ]  # fmt: skip


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
