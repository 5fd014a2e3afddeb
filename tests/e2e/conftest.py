"""Real systems for the tests of the whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.system import PATIENCE_S, System, eventually


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The demo, forecasting: for tests that do not disturb each other.

    Not for the whole session: after some minutes it reaches the present, and a tick then lasts as long as an interval.
    """
    with System(tmp_path_factory.mktemp("demo"), DEMO_TICK_S="2") as system:
        assert eventually(lambda: system.get("/api/predictions/latest"), PATIENCE_S)
        yield system


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[System]:
    """A system without any feed."""
    with System(tmp_path, FEED="none") as system:
        yield system
