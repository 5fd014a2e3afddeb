#!/usr/bin/env python3
"""Compute the numbers of `/api/predictions/accuracy` again, from the rows of `/api/predictions/export`.

Needs nothing but Python. Prints both side by side, and exits with 1 where they differ by more than rounding:

    python3 examples/recompute_accuracy.py http://localhost:8000 --days 7 --sensor-id SENSOR_001 --hour 8
"""

import argparse
import csv
import io
import json
import math
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

NAIVE = ("last_value", "profile")
KM_PER_MILE = 1.609344
MOST_MINUTES = 120  # the longest horizon
ROWS = 2e-5  # what is lost by the rounding of rows in km/h
INTERVALS = {"80": ("p10", "p90", 0.2), "90": ("p05", "p95", 0.1)}  # their edges, and the share that they may miss
ATTEMPTS = 5  # of which one must fall between two windows that are scored
ROUNDING = {"count": 0, "skill": 1e-4, "ece": 1e-4, "mape": 1e-2, "width_80": 1e-2, "width_90": 1e-2,
            "winkler_80": 1e-2, "winkler_90": 1e-2, "mae": 1e-3, "rmse": 1e-3, "bias": 1e-3}  # fmt: skip


class Errors:
    """Sums of the errors of one forecaster at one horizon."""

    def __init__(self):
        self.count = self.moving = 0
        self.absolute = self.square = self.error = self.relative = 0.0

    def add(self, forecast, actual, moving_from):
        """Count one forecast; truths that hardly move are left out of percentages."""
        error = forecast - actual
        self.count += 1
        self.absolute += abs(error)
        self.square += error * error
        self.error += error
        if actual >= moving_from:
            self.moving += 1
            self.relative += abs(error) / actual

    def measures(self, naive):
        """What the API calls them; naive: the errors of naive forecasters."""
        maes = [other.absolute / other.count for other in naive if other.count and alike(other.count, self.count)]
        mae, square, mape = (
            share(self.absolute, self.count),
            share(self.square, self.count),
            share(self.relative, self.moving),
        )
        return {
            "count": self.count,
            "mae": mae,
            "rmse": None if square is None else math.sqrt(square),
            "mape": None if mape is None else 100 * mape,
            "bias": share(self.error, self.count),
            "skill": 1 - mae / min(maes) if mae is not None and maes and min(maes) else None,
        }


class Promises:
    """Sums of what was published beside a speed at one horizon: intervals and confidence."""

    def __init__(self):
        self.intervals = 0
        self.sums = defaultdict(float)
        self.tenths = [[0, 0.0, 0] for _ in range(10)]

    def add(self, row, actual):
        """Count one forecast."""
        if all(row[edge] for edge in ("p05", "p10", "p90", "p95")):
            self.intervals += 1
            for name, (below, above, outside) in INTERVALS.items():
                low, high = float(row[below]), float(row[above])
                self.sums[f"coverage_{name}"] += low <= actual <= high
                self.sums[f"width_{name}"] += high - low
                missed = max(low - actual, 0) + max(actual - high, 0)
                self.sums[f"winkler_{name}"] += high - low + 2 / outside * missed
        if row["confidence"]:
            said = float(row["confidence"])
            speed, tolerance = number(row["predicted_speed"]), number(row["tolerance"])
            tenth = self.tenths[min(int(said * 10), 9)]
            tenth[0] += 1
            tenth[1] += said
            tenth[2] += speed is not None and tolerance is not None and abs(speed - actual) <= tolerance

    def interval(self):
        """Coverage, width and interval score of both intervals."""
        names = [f"{measure}_{name}" for measure in ("coverage", "width", "winkler") for name in INTERVALS]
        return {"count": self.intervals, **{name: share(self.sums[name], self.intervals) for name in names}}

    def reliability(self):
        """For each tenth of confidence: how many, what they said, and what came true."""
        return [
            {"count": n, "mean_confidence": share(said, n), "within_tolerance": share(came, n)}
            for n, said, came in self.tenths
        ]

    def calibration_error(self):
        """The gap between said and come true, by tenths."""
        return share(sum(abs(said - came) for _, said, came in self.tenths), sum(n for n, *_ in self.tenths))


class Scoreboard:
    """Sums over the exported rows."""

    def __init__(self, moving_from):
        self.moving_from = moving_from
        self.errors = {name: defaultdict(Errors) for name in ("all", "jam", "onset")}
        self.promises = defaultdict(Promises)

    def add(self, row):
        """Count one row."""
        actual, horizon = number(row["actual_speed"]), int(row["horizon_minutes"])
        if actual is None:
            return
        strata = ["all"] + ["jam"] * (row["state"] in ("high", "severe")) + ["onset"] * (row["near_onset"] == "true")
        own = {name.removeprefix("candidate_"): row[name] for name in row if name.startswith("candidate_")}
        for name, told in {"served": row["predicted_speed"], **own}.items():
            forecast = number(told)
            if forecast is not None:
                for stratum in strata:
                    self.errors[stratum][horizon, name].add(forecast, actual, self.moving_from)
        self.promises[horizon].add(row, actual)

    def measures(self, horizon, name, stratum):
        """Errors of a forecaster in a stratum."""
        errors = self.errors[stratum]
        return errors[horizon, name].measures([errors[horizon, other] for other in NAIVE])


def share(total, count):
    """None where there is nothing."""
    return total / count if count else None


def number(text):
    """None where a cell is empty."""
    return float(text) if text else None


def ask(base, path, **query):
    """The answer of a route, open."""
    given = urllib.parse.urlencode({name: value for name, value in query.items() if value is not None})
    try:
        return urllib.request.urlopen(f"{base}{path}?{given}", timeout=600)  # noqa: S310 - the address is the user's own
    except urllib.error.HTTPError as error:
        sys.exit(f"{base}{path}: {json.load(error).get('detail', error)}")
    except urllib.error.URLError as error:
        sys.exit(f"{base} does not answer: {error.reason}")


def accuracy(base, filters):
    """What the API says."""
    with ask(base, "/api/predictions/accuracy", **filters) as answer:
        return json.load(answer)


def recomputed(base, said, filters):
    """The same from the rows: those of the local days and hours that the API speaks of."""
    zone, first = ZoneInfo(said["timezone"]), date.fromisoformat(said["from_day"])
    board = Scoreboard(KM_PER_MILE if said["unit"] == "km/h" else 1.0)
    since = datetime.combine(first, time(), zone) - timedelta(minutes=MOST_MINUTES)
    query = {"from": since.isoformat(), **{name: filters[name] for name in ("sensor_id", "horizon_minutes")}}
    with ask(base, "/api/predictions/export", **query) as answer:
        for row in csv.DictReader(io.TextIOWrapper(answer, encoding="utf-8")):
            # A target is the interval that ends at its time.
            local = (datetime.fromisoformat(row["target_time"]) - timedelta(milliseconds=1)).astimezone(zone)
            of_hour = filters["hour"] in (None, local.hour)
            if local.date() >= first and of_hour and is_in(row, filters["state"]):
                board.add(row)
    return board


def is_in(row, state):
    """Whether a row belongs to a state of congestion, or to the onset of a jam."""
    return state in (None, row["state"]) or (state == "onset" and row["near_onset"] == "true")


def lines(said, board, by_state):
    """Every number of the API, by a name, beside ours and how far rounding may set them apart."""
    for one in said["models"]:
        horizon, name = one["horizon_minutes"], one["model"]
        label = f"{horizon:>3} min {name}"
        for stratum in ("all",) if by_state else ("all", "jam", "onset"):
            theirs = one if stratum == "all" else one[stratum]
            for measure, ours in board.measures(horizon, name, stratum).items():
                yield f"{label} {stratum} {measure}", theirs[measure], ours, ROUNDING[measure]
        yield f"{label} baseline_better", one["baseline_better"], is_worse(one, said["models"]), 0
        if one["interval"]:
            promises = board.promises[horizon]
            for measure, ours in promises.interval().items():
                yield f"{label} {measure}", one["interval"][measure], ours, ROUNDING.get(measure, 1e-4)
            yield f"{label} ece", one["ece"], promises.calibration_error(), ROUNDING["ece"]
            for theirs, ours in zip(one["reliability"], promises.reliability(), strict=True):
                for measure, value in ours.items():
                    where = f"{label} reliability {theirs['confidence_from']:.1f} {measure}"
                    yield where, theirs[measure], value, ROUNDING.get(measure, 1e-4)


def alike(count, own):
    """Whether two were judged by about the same targets."""
    return abs(count - own) <= 0.05 * own


def is_worse(one, models):
    """Whether a naive forecaster has the lower mae or rmse, by the numbers that are shown."""
    rivals = [
        m
        for m in models
        if m["model"] in NAIVE
        and m["horizon_minutes"] == one["horizon_minutes"]
        and m["count"]
        and alike(m["count"], one["count"])
    ]
    if one["model"] in NAIVE or not one["count"] or not rivals:
        return None
    return any(rival["mae"] < one["mae"] or rival["rmse"] < one["rmse"] for rival in rivals)


def agree(theirs, ours, rounding):
    """Whether two numbers are the same but for rounding: theirs by what they show, ours by what the rows show."""
    if theirs is None or ours is None or not rounding:
        return theirs == ours
    return abs(theirs - ours) <= rounding / 2 + ROWS


def main():
    """Exit code 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="address of the API, such as http://localhost:8000")
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--sensor-id")
    parser.add_argument("--horizon-minutes", type=int)
    parser.add_argument("--hour", type=int)
    parser.add_argument("--state")
    parser.add_argument("--quiet", action="store_true", help="print what differs, and no more")
    options = vars(parser.parse_args())
    base, quiet = options.pop("base").rstrip("/"), options.pop("quiet")
    for _ in range(ATTEMPTS):
        said = accuracy(base, options)
        board = recomputed(base, said, options)
        if accuracy(base, options) == said:  # nothing was scored in between
            break
    compared = [(*line, agree(*line[1:])) for line in lines(said, board, options["state"] is not None)]
    for name, theirs, ours, _, same in compared:
        if not (quiet and same):
            told = ours if ours is None else format(ours, ".6g")
            print(f"{'  ' if same else '≠ '}{name:<64}{theirs!s:>14}{told!s:>14}")
    wrong = sum(not same for *_, same in compared)
    print(f"{len(compared)} numbers, {wrong} differ")
    return 1 if wrong or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
