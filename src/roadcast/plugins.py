"""Forecasters of installed packages: each is an entry point, a factory or an instance, and keeps our contract.

What does not is left out, with one line that says why: a package of others never ends a command of ours, nor holds it
up. It is tried in a process of its own before it is let in.
"""

import os
import time
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from multiprocessing import get_context
from multiprocessing.connection import Connection
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
PATIENCE_S = 60.0
"""Whoever is not imported, made and checked by then is left out."""


def load(refused: Callable[[str], None], points: Iterable[EntryPoint] | None = None) -> list[Added]:
    """All that can be used, by the name of their entry points, in order. `refused` hears a line for each other one."""
    added: dict[str, Added] = {}
    for point in sorted(entry_points(group=GROUP) if points is None else points, key=lambda point: point.name):
        try:
            cost = _tried(point)
            forecaster = _made(point)
            name = forecaster.name
            if name in TAKEN or name in added:
                raise ValueError(f"the name {name} is taken")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the code of others may raise anything
            refused(f"forecaster {point.name} ({point.value}) is left out: {_reason(error)}")
        else:
            added[name] = Added(forecaster, cost)
    return list(added.values())


def _made(point: EntryPoint) -> Forecaster:
    loaded: object = point.load()
    is_factory = isinstance(loaded, type) or not hasattr(loaded, "fit")
    return cast("Forecaster", cast("Callable[[], object]", loaded)() if is_factory else loaded)


def _reason(error: BaseException) -> str:
    return " ".join((str(error) if isinstance(error, AssertionError | ValueError) else repr(error)).split())


def _tried(point: EntryPoint) -> Cost:
    """What it costs, by a process that imports, makes and checks it.

    Raises:
        ValueError: it does not keep the contract, takes too long, or ends its process.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_try, args=(theirs, point), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(PATIENCE_S):
            raise ValueError(f"it was not ready within {PATIENCE_S:g} s")
        found = ours.recv()
    except EOFError:
        process.join(PATIENCE_S)
        raise ValueError(f"it ended its process (exit code {process.exitcode})") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if isinstance(found, str):
        raise ValueError(found)
    return cast("Cost", found)


def _try(pipe: Connection, point: EntryPoint) -> None:
    """The process: what it prints is nobody's."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        forecaster = _made(point)
        for promise in AT_LOAD:
            promise(forecaster)
        found: Cost | str = _cost(forecaster)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the code of others may raise anything
        found = _reason(error)
    pipe.send(found)


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
