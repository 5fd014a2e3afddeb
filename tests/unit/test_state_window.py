"""The window over the last ticks, against grids made from all readings at once."""

import numpy as np
import pytest

from roadcast.forecasting.history import STATE_TICKS
from roadcast.pipeline.state_window import StateWindow
from roadcast.storage.readings import Rows

TICK = 300_000
START = 1_000 * TICK


def at(tick: int) -> int:
    return START + tick * TICK


def rows(store: dict[int, float], since_ms: int, until_ms: int) -> Rows:
    """The readings of sensor 1 in (since, until] as they are stored: speed by tick."""
    found = {at(tick): speed for tick, speed in store.items() if since_ms < at(tick) <= until_ms}
    values = np.full((len(found), 4), np.nan, np.float32)
    values[:, 0] = list(found.values())
    times = np.array(list(found), np.int64)
    return Rows(times, np.ones(len(found), np.int32), values, times)


def move(window: StateWindow, store: dict[int, float], tick: int) -> np.ndarray:
    since_ms = window.take(at(tick))
    return window.update(at(tick), since_ms, rows(store, since_ms, at(tick)), 1)


def whole(store: dict[int, float], tick: int) -> np.ndarray:
    return move(StateWindow(TICK), store, tick)


def test_only_what_is_new_or_has_changed_is_read_again():
    window, store = StateWindow(TICK), {tick: 60.0 + tick for tick in range(30)}
    assert window.take(at(29)) == at(29 - STATE_TICKS)
    move(window, store, 29)
    assert window.take(at(30)) == at(29)
    window.touch(at(20))
    window.touch(at(27) - 1)
    assert window.take(at(30)) == at(19)
    window.touch(at(3))
    assert window.take(at(30)) == at(30 - STATE_TICKS)


@pytest.mark.parametrize("late", [30, 28, 10])
def test_what_is_heard_while_it_is_read_is_for_the_next_time(late: int):
    window, store = StateWindow(TICK), dict.fromkeys(range(31), 60.0)
    move(window, store, 29)
    since_ms = window.take(at(30))
    read = rows(store, since_ms, at(30))
    store[late] = 20.0
    window.touch(at(late))
    window.update(at(30), since_ms, read, 1)
    assert window.is_behind(at(30))
    np.testing.assert_array_equal(move(window, store, 31), whole(store, 31))
    assert not window.is_behind(at(31))


def test_readings_of_the_window_that_runs_leave_it_up_to_date():
    window = StateWindow(TICK)
    assert window.is_behind(at(5))
    move(window, {5: 60.0}, 5)
    window.touch(at(6))
    assert not window.is_behind(at(5))
    assert window.is_behind(at(6))
    assert (window.is_past(at(4)), window.is_past(at(5))) == (True, False)
