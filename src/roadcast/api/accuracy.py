"""How good the forecasts were, from the sums of their errors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from roadcast.domain.units import Units
from roadcast.forecasting.forecaster import NAIVE
from roadcast.forecasting.metrics import MAPE_FLOOR_MPH
from roadcast.live.documents import SPEED_DECIMALS, SpeedUnit, rounded_number, speed_unit
from roadcast.storage.scores import SERVED, TENTHS, Score

SHARE_DECIMALS = 4


class ErrorsDocument(TypedDict):
    """Errors of forecasts. `bias` is the mean of forecast − truth.

    `skill` is 1 − mae / mae of the best naive forecast: 0 is no better than it, 1 is perfect.
    """

    count: int
    mae: float | None
    rmse: float | None
    mape: Annotated[
        float | None,
        Field(description=f"In per cent of the truth; truths under {MAPE_FLOOR_MPH:g} mph are left out of it."),
    ]
    bias: float | None
    skill: float | None


class IntervalDocument(TypedDict):
    """How often the truth lay between p10 and p90, which should be 80 %, and their mean distance."""

    count: int
    coverage_80: float | None
    width_80: float | None


class ReliabilityDocument(TypedDict):
    """Forecasts whose confidence lay in [from, to): what they promised on average, and what came true."""

    confidence_from: float
    confidence_to: float
    count: int
    mean_confidence: float | None
    within_tolerance: float | None


class ModelDocument(ErrorsDocument):
    """One forecaster at one horizon. `served` is what was published; only it has intervals and confidence.

    `jam` holds the errors at places that were congested (under half of the reference speed).
    """

    model: str
    horizon_minutes: int
    jam: ErrorsDocument
    interval: IntervalDocument | None
    reliability: list[ReliabilityDocument] | None


@dataclass(frozen=True, slots=True)
class Errors:
    """Sums over several scores."""

    scores: Sequence[Score]

    def total(self, name: str) -> float:
        """The sum of one field."""
        return float(sum(getattr(score, name) for score in self.scores))

    def ratio(self, name: str, count: str = "n") -> float | None:
        """One field per another; None where there is nothing to divide by."""
        n = self.total(count)
        return self.total(name) / n if n else None

    def bins(self, name: str) -> list[float]:
        """A field of tenths, summed tenth by tenth."""
        lists: list[list[float]] = [getattr(score, name) for score in self.scores]
        return [float(sum(tenth)) for tenth in zip(*lists, strict=True)] or [0.0] * TENTHS


def accuracy(scores: Iterable[Score], units: Units) -> list[ModelDocument]:
    """One document per horizon and forecaster, the served one first."""
    found: dict[tuple[int, str], list[Score]] = {}
    for score in scores:
        found.setdefault((score.horizon_minutes, score.model), []).append(score)
    order = sorted(found, key=lambda key: (key[0], key[1] != SERVED, key[1]))
    by_state = {key: _by_state(found[key]) for key in order}
    return [_model(key, by_state, units.speed_per_mph) for key in order]


@dataclass(frozen=True, slots=True)
class _ByState:
    everywhere: Errors
    jam: Errors


Key = tuple[int, str]


def _by_state(scores: Sequence[Score]) -> _ByState:
    return _ByState(Errors(scores), Errors([score for score in scores if score.jam]))


def _model(key: Key, found: Mapping[Key, _ByState], factor: float) -> ModelDocument:
    horizon, name = key
    naive = [found[horizon, other] for other in NAIVE if (horizon, other) in found]
    served = found[key].everywhere if name == SERVED else None
    return {
        "model": name,
        "horizon_minutes": horizon,
        **_errors(found[key].everywhere, [other.everywhere for other in naive], factor),
        "jam": _errors(found[key].jam, [other.jam for other in naive], factor),
        "interval": _interval(served, factor) if served else None,
        "reliability": _reliability(served) if served else None,
    }


def _errors(errors: Errors, naive: Iterable[Errors], factor: float) -> ErrorsDocument:
    mae, square, mape = errors.ratio("absolute"), errors.ratio("square"), errors.ratio("relative", "relative_n")
    naive_maes = [other.ratio("absolute") for other in naive]
    best = min((error for error in naive_maes if error is not None), default=None)
    return {
        "count": int(errors.total("n")),
        "mae": rounded_number(mae, SPEED_DECIMALS + 1, factor),
        "rmse": rounded_number(None if square is None else sqrt(square), SPEED_DECIMALS + 1, factor),
        "mape": rounded_number(mape, 2, 100),
        "bias": rounded_number(errors.ratio("error"), SPEED_DECIMALS + 1, factor),
        "skill": rounded_number(1 - mae / best, SHARE_DECIMALS) if mae is not None and best else None,
    }


def _interval(errors: Errors, factor: float) -> IntervalDocument:
    return {
        "count": int(errors.total("interval_n")),
        "coverage_80": rounded_number(errors.ratio("covered_80", "interval_n"), SHARE_DECIMALS),
        "width_80": rounded_number(errors.ratio("width_80", "interval_n"), SPEED_DECIMALS, factor),
    }


def _reliability(errors: Errors) -> list[ReliabilityDocument]:
    columns = zip(errors.bins("confidence_n"), errors.bins("confidence_sum"), errors.bins("within_n"), strict=True)
    return [
        {
            "confidence_from": tenth / TENTHS,
            "confidence_to": (tenth + 1) / TENTHS,
            "count": int(n),
            "mean_confidence": rounded_number(confidence / n, SHARE_DECIMALS) if n else None,
            "within_tolerance": rounded_number(within / n, SHARE_DECIMALS) if n else None,
        }
        for tenth, (n, confidence, within) in enumerate(columns)
    ]


class AccuracyDocument(TypedDict):
    """The scores of the last days, on the feed's clock; speeds in `unit`."""

    days: int
    unit: SpeedUnit
    models: list[ModelDocument]


def accuracy_document(scores: Iterable[Score], days: int, units: Units) -> AccuracyDocument:
    """The answer of `predictions/accuracy`."""
    return {"days": days, "unit": speed_unit(units), "models": accuracy(scores, units)}
