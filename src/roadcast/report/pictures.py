"""The pictures of a report, as SVG that takes its ink from the page, so that it is read in light and dark."""
# matplotlib leaves its keyword arguments untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import re
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, DateFormatter, HourLocator
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from roadcast.domain.times import DAY_MS, from_ms, utc_offset_ms
from roadcast.forecasting.evaluation import ExampleDay, Outcome, measures
from roadcast.forecasting.forecaster import MEDIAN, NAIVE
from roadcast.forecasting.history import History
from roadcast.report.findings import Findings, told

INK = "#010203"
"""Stands for the page's own ink until the picture is in it."""
GREY = "#8a8a8a"
LEARNED = ("#3b8dd1", "#d55e00", "#009e73", "#cc79a7")
"""Told apart by the colour-blind, and strong enough on white and on black (after Okabe & Ito 2008)."""
MARKS = ("o", "s", "^", "D")
DASHES = ("--", ":")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "savefig.transparent": True,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"),
        INK,
    ),
}
NARROW, WIDE = (4.3, 3.0), (8.6, 3.0)
HOUR_MS = 3_600_000
HOURS_UP_TO_DAYS = 4
"""Coverage is shown by the hour in a test of at most so many days, else by the day."""
FEW = 30
"""What fewer forecasts say is left out of pictures."""
NONE = "too few forecasts to say"
MARKED = 60
"""So many points are marked."""
WORST, FEWEST_BARS = 10, 4
BANDS = ((0, 0.22, "90 %"), (1, 0.3, "80 %"), (2, 0.45, "50 %"))
"""Of fans: the outer quantile, how strong, and what lies within."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, and what it shows in words for whom does not see it."""

    title: str
    svg: str
    words: str
    wide: bool = False


def pictures(findings: Findings) -> list[Picture]:
    """All pictures of a report, with the settings of matplotlib as they were afterwards."""
    with rc_context(STYLE):
        return [
            _error_by_horizon(findings, "MAE"),
            _error_by_horizon(findings, "RMSE"),
            _reliability(findings),
            _worst_sensors(findings),
            _coverage_over_time(findings),
            *(_fan(findings, day, fan) for day, fan in _fans(findings.serving)),
        ]


def _error_by_horizon(findings: Findings, name: str) -> Picture:
    figure, axes = _canvas()
    minutes = _minutes(findings)
    said: list[str] = []
    for outcome, style in zip(findings.outcomes, _styles(findings), strict=True):
        each = [measures(outcome.tally, slice(step, step + 1)) for step in range(findings.task.horizons)]
        errors = [getattr(found, name.lower()) for found in each]
        axes.plot(minutes, errors, label=outcome.forecaster, **style)
        said.append(f"{outcome.forecaster} {told(errors[0], '.2f')} to {told(errors[-1], '.2f')}")
    axes.set(xlabel="ahead (min)", ylabel=f"{name} ({findings.unit})", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _legend(figure, 2)
    span = f"from {minutes[0]:g} to {minutes[-1]:g} minutes ahead"
    return Picture(f"{name} of each step", _svg(figure, name), f"{name} {span}, in {findings.unit}: {'; '.join(said)}.")


def _reliability(findings: Findings) -> Picture:
    figure, axes = _canvas()
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, label="kept exactly")
    said = ""
    for outcome, style in zip(findings.outcomes, _styles(findings), strict=True):
        count, promised, hits = outcome.tally.tenths.sum(axis=0)
        many = count >= FEW
        came = hits[many] / count[many]
        axes.plot(promised[many] / count[many], came, label=outcome.forecaster, **style)
        if outcome is findings.serving:
            pairs = zip((promised[many] / count[many]).tolist(), came.tolist(), strict=True)
            said = ", ".join(f"{said:.0%} said and {kept:.0%} kept" for said, kept in pairs)
    axes.set(xlabel="confidence said", ylabel="share within tolerance", xlim=(0, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    _legend(figure, 2)
    words = f"Of {findings.served}: {said or NONE}."
    return Picture("Whether confidence is kept", _svg(figure, "reliability"), words)


def _coverage_over_time(findings: Findings) -> Picture:
    history, over_time = findings.task.history, np.array(findings.serving.tally.over_time).reshape(-1, 3)
    hourly = len(over_time) * history.interval_ms <= HOURS_UP_TO_DAYS * DAY_MS
    length, name = (HOUR_MS, "hour") if hourly else (DAY_MS, "day")
    share, first = _coverage(_local_ms(history, over_time[:, 0] - 1) // length, *over_time[:, 1:].T)
    dates, told = _dates((first + np.arange(len(share))) * length), share[~np.isnan(share)]
    figure, axes = _canvas(WIDE)
    axes.axhline(0.8, color=INK, linewidth=0.8, label="promised")
    marker = "o" if len(share) <= MARKED else ""
    axes.plot(dates, share, color=LEARNED[0], label=findings.served, marker=marker, markersize=3)
    axes.set(ylabel="within the 80 % interval", ylim=(min(0.5, told.min(initial=1) - 0.02), 1))
    axes.set_xlabel(f"{name} of issue ({history.timezone})", loc="left")
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    _calendar_axis(axes)
    _legend(figure, 2)
    extremes = f"{told.min():.0%} to {told.max():.0%}" if len(told) else NONE
    words = f"Share of targets within the 80 % interval of {findings.served}, by {name}: {extremes}."
    return Picture(f"Coverage of the 80 % interval, by {name}", _svg(figure, "coverage"), words, wide=True)


def _coverage(
    when: NDArray[np.int64], covered: NDArray[np.int64], count: NDArray[np.int64]
) -> tuple[NDArray[np.float64], int]:
    """The share covered in each hour or day from the first on, which it tells too; NaN where few were forecast."""
    first = int(when[0])
    inside, of = (np.bincount(when - first, part) for part in (covered, count))
    return np.where(of >= FEW, inside / np.maximum(of, 1), np.nan), first


def _worst_sensors(findings: Findings) -> Picture:
    count, absolute = findings.serving.tally.by_sensor.sum(axis=1).T
    error = np.where(count >= FEW, absolute / np.maximum(count, 1), -1)
    worst = [place for place in np.argsort(-error, kind="stable")[:WORST].tolist() if error[place] >= 0]
    names = [str(findings.codes[place]) for place in worst]
    figure, axes = _canvas()
    axes.barh(range(len(worst)), error[worst], color=LEARNED[0], alpha=0.8)
    axes.set_yticks(range(len(worst)), [name if len(name) <= 16 else f"{name[:15]}…" for name in names])
    axes.set_ylim(max(len(worst), FEWEST_BARS) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel=f"MAE, all steps ({findings.unit})", ylabel="sensor")
    said = ", ".join(f"{name} {error[place]:.2f}" for name, place in zip(names, worst, strict=True)) or NONE
    title = "The sensors with the largest errors"
    return Picture(title, _svg(figure, "sensors"), f"MAE of {findings.served}, in {findings.unit}: {said}.")


def _fan(findings: Findings, day: ExampleDay, fan: NDArray[np.float32]) -> Picture:
    task = findings.task
    ticks = np.arange(day.first, day.stop)
    local_ms = _local_ms(task.history, ticks)
    dates, truth = _dates(local_ms), task.history.of(task.target)[ticks, day.sensor]
    figure, axes = _canvas(WIDE)
    keys, through = list[Artist](), 1.0
    for edge, strength, label in BANDS:
        axes.fill_between(dates, fan[:, edge], fan[:, -1 - edge], color=LEARNED[0], alpha=strength, linewidth=0)
        through *= 1 - strength
        keys.append(Patch(color=LEARNED[0], alpha=1 - through, linewidth=0, label=label))
    keys += axes.plot(dates, fan[:, MEDIAN], color=LEARNED[0], linewidth=1.2, label="median")
    keys += axes.plot(dates, truth, color=INK, linewidth=1, label="truth")
    axes.set(ylabel=f"{task.target} ({findings.unit})", ylim=(0, None))
    axes.margins(x=0)
    axes.set_xlabel(f"time of day ({task.history.timezone})", loc="left")
    axes.xaxis.set_major_locator(HourLocator(byhour=range(0, 24, 3)))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    _legend(figure, 5, keys)
    date, sensor = f"{from_ms(int(local_ms[0])):%A %-d %B %Y}", findings.codes[day.sensor]
    title = f"Day of {day.name} {findings.burden}: {date}, sensor {sensor}, {findings.ahead(task.horizons)} ahead"
    return Picture(title, _svg(figure, day.name), _fan_in_words(fan, truth, findings), wide=True)


def _fan_in_words(fan: NDArray[np.float32], truth: NDArray[np.float32], findings: Findings) -> str:
    known = ~np.isnan(truth) & ~np.isnan(fan[:, MEDIAN])
    if not known.any():
        return "Nothing was both forecast and measured."
    inside = (fan[known, 1] <= truth[known]) & (truth[known] <= fan[known, -2])
    return (
        f"Truth from {truth[known].min():.1f} to {truth[known].max():.1f} {findings.unit}; {inside.mean():.0%} of it "
        f"within the 80 % interval of {findings.served}, whose median errs by "
        f"{np.abs(truth[known] - fan[known, MEDIAN]).mean():.1f} on average."
    )


def _fans(outcome: Outcome) -> list[tuple[ExampleDay, NDArray[np.float32]]]:
    return list(zip(outcome.tally.days, outcome.tally.fans, strict=True))


def _styles(findings: Findings) -> list[dict[str, Any]]:
    """How each forecaster is drawn: naive ones grey, the one that would serve strongest."""
    styles: list[dict[str, Any]] = []
    naive = learned = 0
    for outcome in findings.outcomes:
        width = 2.2 if outcome.forecaster == findings.served else 1.2
        if outcome.forecaster in NAIVE:
            styles.append({"color": GREY, "linestyle": DASHES[naive % len(DASHES)], "linewidth": width})
            naive += 1
        else:
            colour, mark = LEARNED[learned % len(LEARNED)], MARKS[learned % len(MARKS)]
            styles.append({"color": colour, "linewidth": width, "marker": mark, "markersize": 3.5})
            learned += 1
    return styles


def _minutes(findings: Findings) -> NDArray[np.float64]:
    return np.array([findings.minutes(step) for step in range(1, findings.task.horizons + 1)])


def _local_ms(history: History, ticks: NDArray[np.int64]) -> NDArray[np.int64]:
    """When ticks end, on the local clock."""
    end_ms = history.end_ms + (ticks - len(history) + 1) * history.interval_ms
    return end_ms + utc_offset_ms(end_ms, history.timezone)


def _dates(local_ms: NDArray[np.int64]) -> NDArray[np.datetime64]:
    return local_ms.astype("datetime64[ms]")


def _calendar_axis(axes: Axes) -> None:
    locator = AutoDateLocator(maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _legend(figure: Figure, columns: int, keys: list[Artist] | None = None) -> None:
    """Above the axes, where it covers no curve."""
    keys = figure.axes[0].get_legend_handles_labels()[0] if keys is None else keys
    figure.legend(handles=keys, loc="outside upper left", ncols=columns, handlelength=2.4, columnspacing=1.2)


def _canvas(size: tuple[float, float] = NARROW) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure, name: str) -> str:
    """The picture as an element to be put into a page: without a head of its own, and without names that clash."""
    text = StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = re.sub(r'(?<=<g) id="[^"]*"', "", svg).replace(INK, "currentColor")
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg, count=1)
