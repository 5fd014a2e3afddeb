"""Forecasters of installed packages: each is an entry point, a factory or an instance, and keeps our contract.

What does not is left out, with one line that says why: a package of others never ends a command of ours.
"""

import time
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from roadcast.domain.forecast import LONGEST_MINUTES
from roadcast.forecasting.contract import AT_LOAD, INTERVAL_MS, history_of
from roadcast.forecasting.costs import COSTS, Cost
from roadcast.forecasting.forecaster import Forecaster
from roadcast.forecasting.forecasters import Added
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import SPEED

GROUP = "roadcast.forecasters"
TAKEN = frozenset({*COSTS, "champion"})
"""The names of ours, whether they work here or not, and of the place that they contend for."""
TIMED_SENSORS, TIMED_DAYS, RUNS = 50, 2, 3


def load(refused: Callable[[str], None], points: Iterable[EntryPoint] | None = None) -> list[Added]:
    """All that can be used, by the name of their entry points, in order. `refused` hears a line for each other one."""
    added: dict[str, Added] = {}
    for point in sorted(entry_points(group=GROUP) if points is None else points, key=lambda point: point.name):
        try:
            found = _checked(point)
            name = found.forecaster.name
            if name in TAKEN or name in added:
                raise ValueError(f"the name {name} is taken")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the code of others may raise anything
            reason = " ".join((str(error) if isinstance(error, AssertionError | ValueError) else repr(error)).split())
            refused(f"forecaster {point.name} ({point.value}) is left out: {reason}")
        else:
            added[name] = found
    return list(added.values())


def _checked(point: EntryPoint) -> Added:
    loaded: object = point.load()
    is_factory = isinstance(loaded, type) or not hasattr(loaded, "fit")
    forecaster = cast("Forecaster", cast("Callable[[], object]", loaded)() if is_factory else loaded)
    for promise in AT_LOAD:
        promise(forecaster)
    return Added(forecaster, _cost(forecaster))


def _cost(forecaster: Forecaster) -> Cost:
    """The least of a few runs, all of it as if horizons took it."""
    horizons = LONGEST_MINUTES * 60_000 // INTERVAL_MS
    history = history_of(TIMED_DAYS, sensors=TIMED_SENSORS, interval_ms=6 * INTERVAL_MS)
    fitted, took = forecaster.fit(history, Graph(), SPEED, horizons), list[float]()
    for _ in range(RUNS):
        began = time.process_time()
        fitted.forecast(history)
        took.append(time.process_time() - began)
    return Cost(0, 1_000_000 * min(took) / (TIMED_SENSORS * horizons))
