"""A trained model: one forecaster with what it has learnt of each target, and of its errors."""

from collections.abc import Mapping
from dataclasses import dataclass

from roadcast.forecasting.calibration import Calibration
from roadcast.forecasting.forecaster import Fitted, Forecaster
from roadcast.forecasting.history import SPEED, TARGETS
from roadcast.forecasting.parts import Parts, from_parts, to_parts

_CALIBRATION = f"{SPEED}/calibration"


@dataclass(frozen=True, slots=True)
class Trained:
    """fitted: by target, the speed's always and the volume's where it was measured; calibration: the speed's."""

    forecaster: str
    fitted: Mapping[str, Fitted]
    calibration: Calibration

    def parts(self) -> Parts:
        """Below the name of each target, and the calibration below that of the speed."""
        parts = {_CALIBRATION: to_parts(self.calibration)}
        parts |= {target: fitted.parts() for target, fitted in self.fitted.items()}
        return {f"{folder}/{name}": part for folder, inside in parts.items() for name, part in inside.items()}


def restore(forecaster: Forecaster, parts: Parts) -> Trained:
    """What gave these parts, so that it forecasts the same bytes.

    Raises:
        ValueError: a part is missing.
    """
    inside = {target: _under(target, parts) for target in TARGETS}
    fitted = {target: forecaster.restore(found) for target, found in inside.items() if found or target == SPEED}
    return Trained(forecaster.name, fitted, from_parts(Calibration, _under(_CALIBRATION, parts)))


def _under(folder: str, parts: Parts) -> Parts:
    start = f"{folder}/"
    return {name.removeprefix(start): part for name, part in parts.items() if name.startswith(start)}
