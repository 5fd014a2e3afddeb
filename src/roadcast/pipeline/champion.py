"""The model that serves, out of the registry."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf

from roadcast.domain.model import MODEL
from roadcast.errors import RoadcastError
from roadcast.forecasting.features import feature_names
from roadcast.forecasting.forecaster import Forecaster
from roadcast.forecasting.forecasters import Added, every_forecaster
from roadcast.forecasting.trained import Trained, restore
from roadcast.registry.aliases import Action, Change, named_at
from roadcast.registry.manifest import TRAIN_ANEW, ModelRefused, Training
from roadcast.registry.registry import Registry
from roadcast.services import Board, Status

READ_EVERY_S = 1.0
"""How long it can take until a promotion is noticed."""
DISTRUST_S = 3600.0
"""So long one whose forecasts fail is left out."""
RETRY_EVERY_S = 60.0
"""After so long one that could not be loaded is tried again."""


@dataclass(frozen=True, slots=True)
class Champion:
    """A version of the model that is, or was, in force."""

    version: str
    training: Training
    trained: Trained


class Throne:
    """Who is in force at an event time.

    In place of one that cannot be loaded there is nobody, and the board says why.
    """

    def __init__(
        self, registry: Registry, horizons: int, interval_s: int, board: Board, added: Sequence[Added] = ()
    ) -> None:
        self._registry = registry
        self._horizons = horizons
        self._interval_s = interval_s
        self._board = board
        self._added = added
        self._history: Sequence[Change] = ()
        self._read_s = self._retry_s = -inf
        self._version: str | None = None
        self._champion: Champion | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How often somebody came to be in force and was taken back, ever and by whomever, as last read."""
        taken_back = sum(change.action is Action.ROLLED_BACK for change in self._history)
        return {"promotions": len(self._history) - taken_back, "rollbacks": taken_back}

    async def at(self, at: datetime) -> Champion | None:
        """The version in force, None where there is none, or none that can be loaded."""
        now_s = time.monotonic()
        try:
            if now_s >= self._read_s + READ_EVERY_S:
                self._history, self._read_s = await asyncio.to_thread(self._registry.history, MODEL), now_s
            version = named_at(self._history, at)
            if version != self._version or now_s >= self._retry_s:
                self._version, self._champion, self._retry_s = version, None, inf
                if version is not None:
                    self._champion = await asyncio.to_thread(self._load, version)
                self._board.report("model", Status.OK, f"{version} is in force" if version else "none is promoted")
        except RoadcastError as error:
            self._retry_s = now_s + RETRY_EVERY_S
            who = f"{self._version} stays in force." if self._champion else "The quick forecasters serve."
            self._board.report("model", Status.DEGRADED, f"{error.message} {who}", error.remedy or TRAIN_ANEW)
        return self._champion

    def distrust(self) -> None:
        """Leave out the version in force for a while: its forecasts fail."""
        self._champion, self._retry_s = None, time.monotonic() + DISTRUST_S
        self._board.report(
            "model", Status.DEGRADED, f"The forecasts of {self._version} fail. The quick forecasters serve.",
            "roadcast models rollback, or train anew.",
        )  # fmt: skip

    def _load(self, version: str) -> Champion:
        return load_version(self._registry, version, self._horizons, self._interval_s, self._added)


def load_version(
    registry: Registry, version: str, horizons: int, interval_s: int, added: Sequence[Added] = ()
) -> Champion:
    """One version of the model.

    Raises:
        NotFound: its files are gone.
        ModelRefused: it is damaged, or was made for other code, horizons or intervals.
    """
    model = registry.load(MODEL, version, feature_names(horizons))
    training, file = model.training, f"{MODEL}/{version}"
    if training.interval_s != interval_s:
        raise ModelRefused(file, f"intervals of {training.interval_s} s", f"{interval_s} s")
    try:
        forecaster = _forecaster(training.forecaster, file, added)
        return Champion(version, training, restore(forecaster, dict(model.parts)))
    except ModelRefused:
        raise
    except Exception as error:
        found = f"what {training.forecaster} cannot read ({type(error).__name__}: {error})"
        raise ModelRefused(file, found, "its parts") from error


def _forecaster(name: str, file: str, added: Sequence[Added]) -> Forecaster:
    known = {forecaster.name: forecaster for forecaster in every_forecaster(added=added)}
    if name not in known:
        raise ModelRefused(file, f"the forecaster {name}", f"one of {', '.join(known)}")
    return known[name]
