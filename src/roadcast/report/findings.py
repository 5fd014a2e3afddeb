"""What a backtest found, as both the terminal and the report tell it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isnan

from roadcast.domain.times import from_ms
from roadcast.forecasting.evaluation import Measures, Outcome, Task, measures
from roadcast.forecasting.history import VOLUME

UNITS = {"speed": "mph", "volume": "vehicles per interval", "density": "veh/mi", "occupancy": "percent"}
BEFORE = ("forecaster", "ahead")
HEADINGS = ("count", "MAE", "RMSE", "MAPE", "bias", "80 %", "90 %", "Winkler", "ECE")
"""Of `cells`."""
AFTER = ("CPU-s", "MB")
"""What training took."""


@dataclass(frozen=True, slots=True)
class Findings:
    """steps: the horizons, in ticks, that are told; pooled: each stands for all steps up to it."""

    name: str
    task: Task
    codes: Sequence[str]
    steps: Sequence[int]
    pooled: bool
    outcomes: Sequence[Outcome]
    served: str

    @property
    def serving(self) -> Outcome:
        """What became of the forecaster that would serve."""
        return next(outcome for outcome in self.outcomes if outcome.forecaster == self.served)

    @property
    def unit(self) -> str:
        """Of the target."""
        return UNITS[self.task.target]

    @property
    def burden(self) -> str:
        """What its example days have most and least of."""
        return "traffic" if self.task.target == VOLUME else "jam"

    @property
    def title(self) -> str:
        """What was judged on what."""
        ticks = len(self.task.history) - self.task.test_from
        return f"{self.name}: {self.task.target}, {ticks} ticks of test from {self.test_begins:%Y-%m-%d %H:%M} UTC on"

    @property
    def test_begins(self) -> datetime:
        """The end of the test's first window."""
        return from_ms(self.task.history.until(self.task.test_from + 1).end_ms)

    @property
    def caption(self) -> str:
        """How to read the table."""
        how = "all steps up to" if self.pooled else "at"
        return (
            f"errors {how} each horizon; {self.served} would serve, by what came before the test; confidence is that "
            f"of errors up to {self.tolerance}"
        )

    @property
    def tolerance(self) -> str:
        """Up to which error a forecast is right."""
        absolute, share = self.task.tolerance
        return f"the larger of {absolute:g} {self.unit} and {share:.0%} of the forecast"

    def minutes(self, step: int) -> float:
        """A horizon in minutes; a tick may be shorter than one."""
        return step * self.task.history.interval_ms / 60_000

    def ahead(self, step: int) -> str:
        """A horizon in minutes, as text."""
        return f"{self.minutes(step):g} min"

    def measures(self, outcome: Outcome, step: int) -> Measures:
        """What an outcome's forecasts were worth at a step."""
        return measures(outcome.tally, slice(0 if self.pooled else step - 1, step))


def cells(found: Measures) -> tuple[str, ...]:
    """Measures under HEADINGS."""
    return (
        f"{found.count:,}",
        told(found.mae, ".3f"),
        told(found.rmse, ".3f"),
        told(found.mape, ".1%"),
        told(found.bias, "+.2f"),
        told(found.coverage_80, ".1%"),
        told(found.coverage_90, ".1%"),
        f"{told(found.winkler_80, '.2f')}/{told(found.winkler_90, '.2f')}",
        told(found.ece, ".3f"),
    )


def told(value: float, form: str) -> str:
    """A number as text; a dash where nothing was counted."""
    return "–" if isnan(value) else format(value, form)
