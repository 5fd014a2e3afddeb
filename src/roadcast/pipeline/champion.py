"""The model that serves, out of the registry."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from roadcast.forecasting.features import feature_names
from roadcast.forecasting.forecaster import Forecaster
from roadcast.forecasting.forecasters import Added, every_forecaster
from roadcast.forecasting.trained import Trained, restore
from roadcast.registry.manifest import ModelRefused, Training
from roadcast.registry.registry import Registry

MODEL = "traffic"
"""The name of the model in the registry. Its versions may be of different forecasters."""


@dataclass(frozen=True, slots=True)
class Champion:
    """A version of the model that is, or was, in force."""

    version: str
    training: Training
    trained: Trained


def load_champion(
    registry: Registry, horizons: int, interval_s: int, at: datetime | None = None, added: Sequence[Added] = ()
) -> Champion | None:
    """The version in force at an event time, or the last one promoted; None where there is none.

    Raises:
        NotFound: its files are gone.
        ModelRefused: it is damaged, or was made for other code, horizons or intervals.
    """
    version = registry.named(MODEL, at=at)
    return None if version is None else load_version(registry, version, horizons, interval_s, added)


def load_version(
    registry: Registry, version: str, horizons: int, interval_s: int, added: Sequence[Added] = ()
) -> Champion:
    """One version of the model.

    Raises:
        NotFound, ModelRefused: as in `load_champion`.
    """
    model = registry.load(MODEL, version, feature_names(horizons))
    training, file = model.training, f"{MODEL}/{version}"
    if training.interval_s != interval_s:
        raise ModelRefused(file, f"intervals of {training.interval_s} s", f"{interval_s} s")
    try:
        forecaster = _forecaster(training.forecaster, file, added)
        return Champion(version, training, restore(forecaster, dict(model.parts)))
    except ValueError as error:
        raise ModelRefused(file, f"what {training.forecaster} cannot read ({error})", "its parts") from error


def _forecaster(name: str, file: str, added: Sequence[Added]) -> Forecaster:
    known = {forecaster.name: forecaster for forecaster in every_forecaster(added=added)}
    if name not in known:
        raise ModelRefused(file, f"the forecaster {name}", f"one of {', '.join(known)}")
    return known[name]
