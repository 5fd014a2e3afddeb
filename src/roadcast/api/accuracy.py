"""How good the forecasts were, from the sums of their errors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import sqrt
from typing import Annotated, Literal, NotRequired, TypeAlias

from pydantic import Field
from typing_extensions import TypedDict

from roadcast.domain.units import Units
from roadcast.flow.congestion import JAM_STATES
from roadcast.flow.onsets import ONSET
from roadcast.forecasting.forecaster import NAIVE
from roadcast.forecasting.metrics import MAPE_FLOOR_MPH
from roadcast.forecasting.scoring import SERVED, TENTHS
from roadcast.live.documents import SPEED_DECIMALS, SpeedUnit, rounded_number, speed_unit
from roadcast.scoreboard import Score

ALIKE = 0.05
"""Numbers of targets that differ by no more than this share are taken to be the same targets."""
SHARE_DECIMALS = 4
ERROR_DECIMALS = SPEED_DECIMALS + 1

StateName = Literal["low", "medium", "high", "severe", "unknown", "onset"]
By = Literal["sensor", "hour", "state"]
Label: TypeAlias = int | str | None
"""What a group of scores has in common: an hour, a state, or a sensor's code."""


class ErrorsDocument(TypedDict):
    """Errors of forecasts. `bias` is the mean of forecast − truth.

    `skill` is 1 − mae / mae of the best naive forecast: 0 is no better than it, 1 is perfect; null where that was
    judged by other targets, more than 5 % more or fewer.
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
    """How often the truth lay between p10 and p90, or p05 and p95, and their mean distance.

    That should be 80 % and 90 %. `winkler` is the mean interval score: the width, and of each miss 2 / (share to be
    missed) times how far it lay outside.
    """

    count: int
    coverage_80: float | None
    coverage_90: float | None
    width_80: float | None
    width_90: float | None
    winkler_80: float | None
    winkler_90: float | None


class ReliabilityDocument(TypedDict):
    """Forecasts whose confidence lay in [from, to): what they promised on average, and what came true."""

    confidence_from: float
    confidence_to: float
    count: int
    mean_confidence: float | None
    within_tolerance: float | None


class ModelDocument(ErrorsDocument):
    """One forecaster at one horizon. `served` is what was published; only it has intervals and confidence.

    `sensor_id`, `hour` or `state` says of which group, where `by` tells them apart. `baseline_better` is true where a
    naive forecaster has the lower mae or the lower rmse, and null for the naive ones. `jam` holds the errors at places
    that were congested (under half of the reference speed), `onset` those within 30 minutes of the onset of a jam,
    which are known as late as that; both are null where errors are of one state, or by sensor. `ece` is the expected
    calibration error of confidence, over its tenths.
    """

    model: str
    horizon_minutes: int
    sensor_id: NotRequired[str]
    hour: NotRequired[int]
    state: NotRequired[StateName]
    baseline_better: bool | None
    jam: ErrorsDocument | None
    onset: ErrorsDocument | None
    interval: IntervalDocument | None
    ece: float | None
    reliability: list[ReliabilityDocument] | None


@dataclass(frozen=True, slots=True)
class Errors:
    """Sums over several scores."""

    scores: Sequence[Score]

    def total(self, name: str) -> float:
        """The sum of one measure."""
        return float(sum(score.measures.get(name, 0) for score in self.scores))

    def ratio(self, name: str, count: str = "n") -> float | None:
        """One measure per another; None where there is nothing to divide by."""
        n = self.total(count)
        return self.total(name) / n if n else None

    @property
    def mae(self) -> float | None:
        """Mean absolute error."""
        return self.ratio("absolute")

    @property
    def rmse(self) -> float | None:
        """Root of the mean square error."""
        square = self.ratio("square")
        return None if square is None else sqrt(square)

    def tenths(self, name: str) -> list[float]:
        """A measure of the reliability, summed tenth by tenth."""
        lists = [score.tenths[name] for score in self.scores if score.tenths]
        return [float(sum(tenth)) for tenth in zip(*lists, strict=True)] or [0.0] * TENTHS

    def of(self, *states: str) -> "Errors":
        """Those of these states alone."""
        return Errors([score for score in self.scores if score.state in states])


Key = tuple[int, str]
"""Horizon and forecaster."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What the answer is told apart by, and whether it is of one state of congestion."""

    by: By | None = None
    state: StateName | None = None
    model: str | None = None

    @property
    def has_strata(self) -> bool:
        """Whether jams and their onset stand beside all errors."""
        return self.state is None and self.by in (None, "hour")


def accuracy(scores: Iterable[Score], units: Units, filters: Filters = Filters()) -> list[ModelDocument]:
    """One document per group, horizon and forecaster, the served one first."""
    groups: dict[Label, dict[Key, list[Score]]] = {}
    for score in scores:
        group = groups.setdefault(_label(score, filters.by), {})
        group.setdefault((score.horizon_minutes, score.model), []).append(score)
    return [
        document
        for label, group in sorted(groups.items(), key=lambda item: str(item[0]).zfill(2))
        for document in _group(label, group, units, filters)
    ]


def _label(score: Score, by: By | None) -> Label:
    match by:
        case "hour":
            return score.hour
        case "state":
            return score.state
        case _:
            return None


def _group(
    label: Label, found: Mapping[Key, Sequence[Score]], units: Units, filters: Filters
) -> Iterable[ModelDocument]:
    errors = {key: Errors(scores) for key, scores in found.items()}
    for key in sorted(errors, key=lambda key: (key[0], key[1] != SERVED, key[1])):
        if filters.model in (None, key[1]):
            yield document(key, errors, units.speed_per_mph, filters, label)


def document(
    key: Key, found: Mapping[Key, Errors], factor: float, filters: Filters, label: Label = None
) -> ModelDocument:
    """What one forecaster was worth at one horizon, beside the naive ones among those found."""
    horizon, name = key
    naive = [found[horizon, other] for other in NAIVE if (horizon, other) in found]
    whole = found[key] if not filters.has_strata else _without_onset(found[key])
    rivals = naive if not filters.has_strata else [_without_onset(other) for other in naive]
    served = whole if name == SERVED and whole.total("interval_n") + sum(whole.tenths("confidence_n")) else None
    labelled = {} if filters.by is None else {_FIELDS[filters.by]: label}
    return {  # pyright: ignore[reportReturnType] - of which by one of three names
        **labelled,
        "model": name,
        "horizon_minutes": horizon,
        **_errors(whole, rivals, factor),
        "baseline_better": None if name in NAIVE else _is_worse(whole, rivals, factor),
        "jam": _stratum(JAM_STATES, found[key], naive, factor) if filters.has_strata else None,
        "onset": _stratum((ONSET,), found[key], naive, factor) if filters.has_strata else None,
        "interval": _interval(served, factor) if served else None,
        "ece": _calibration_error(served) if served else None,
        "reliability": _reliability(served) if served else None,
    }


_FIELDS: Mapping[By, str] = {"sensor": "sensor_id", "hour": "hour", "state": "state"}


def _without_onset(errors: Errors) -> Errors:
    """The onset stands beside the states, not among them."""
    return Errors([score for score in errors.scores if score.state != ONSET])


def _stratum(states: Sequence[str], errors: Errors, naive: Iterable[Errors], factor: float) -> ErrorsDocument:
    return _errors(errors.of(*states), [other.of(*states) for other in naive], factor)


def _alike(errors: Errors, others: Iterable[Errors]) -> list[Errors]:
    """Those that were judged by about as many targets: who served a quiet night is not compared with a whole day."""
    own = errors.total("n")
    return [other for other in others if abs(other.total("n") - own) <= ALIKE * own]


def _errors(errors: Errors, naive: Iterable[Errors], factor: float) -> ErrorsDocument:
    mae = errors.mae
    best = min((other.mae for other in _alike(errors, naive) if other.mae is not None), default=None)
    return {
        "count": int(errors.total("n")),
        "mae": rounded_number(mae, ERROR_DECIMALS, factor),
        "rmse": rounded_number(errors.rmse, ERROR_DECIMALS, factor),
        "mape": rounded_number(errors.ratio("relative", "relative_n"), 2, 100),
        "bias": rounded_number(errors.ratio("error"), ERROR_DECIMALS, factor),
        "skill": rounded_number(1 - mae / best, SHARE_DECIMALS) if mae is not None and best else None,
    }


def _is_worse(errors: Errors, naive: Iterable[Errors], factor: float) -> bool | None:
    """Whether one of the naive forecasters has the lower mae or rmse; None where there is nothing to compare.

    As they are shown: forecasters that say the same differ by the order in which their errors were added up.
    """
    own = _shown(errors, factor)
    known = [shown for other in _alike(errors, naive) if (shown := _shown(other, factor))]
    return any(one < mine for other in known for one, mine in zip(other, own, strict=True)) if own and known else None


def _shown(errors: Errors, factor: float) -> tuple[float, float] | None:
    mae, rmse = (rounded_number(value, ERROR_DECIMALS, factor) for value in (errors.mae, errors.rmse))
    return None if mae is None or rmse is None else (mae, rmse)


def _interval(errors: Errors, factor: float) -> IntervalDocument:
    def mean(name: str, decimals: int, times: float = 1.0) -> float | None:
        return rounded_number(errors.ratio(name, "interval_n"), decimals, times)

    return {
        "count": int(errors.total("interval_n")),
        "coverage_80": mean("covered_80", SHARE_DECIMALS),
        "coverage_90": mean("covered_90", SHARE_DECIMALS),
        "width_80": mean("width_80", SPEED_DECIMALS, factor),
        "width_90": mean("width_90", SPEED_DECIMALS, factor),
        "winkler_80": mean("winkler_80", SPEED_DECIMALS, factor),
        "winkler_90": mean("winkler_90", SPEED_DECIMALS, factor),
    }


def _calibration_error(errors: Errors) -> float | None:
    gaps = zip(errors.tenths("confidence_sum"), errors.tenths("within_n"), strict=True)
    n = sum(errors.tenths("confidence_n"))
    return rounded_number(sum(abs(said - came) for said, came in gaps) / n, SHARE_DECIMALS) if n else None


def _reliability(errors: Errors) -> list[ReliabilityDocument]:
    names = ("confidence_n", "confidence_sum", "within_n")
    columns = zip(*(errors.tenths(name) for name in names), strict=True)
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
    """The scores of the local days from `from_day` on, by the feed's clock; speeds in `unit`.

    A target belongs to the local day and hour, in `timezone`, in which its interval lies.
    """

    days: int
    from_day: date
    timezone: str
    unit: SpeedUnit
    models: list[ModelDocument]


@dataclass(frozen=True, slots=True)
class Span:
    """The days of an answer."""

    days: int
    first: date
    last: date
    timezone: str


def accuracy_document(models: list[ModelDocument], span: Span, units: Units) -> AccuracyDocument:
    """The answer of `predictions/accuracy`."""
    return {
        "days": span.days,
        "from_day": span.first,
        "timezone": span.timezone,
        "unit": speed_unit(units),
        "models": models,
    }
