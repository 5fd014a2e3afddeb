"""What a forecast is made of, as a document."""

from datetime import date
from typing import cast

from typing_extensions import TypedDict

from roadcast.domain.units import Units
from roadcast.forecasting.explanation import Explanation, Terms, add_up
from roadcast.live.documents import SPEED_DECIMALS, ForecastDocument, rounded_number


class PartsDocument(TypedDict):
    """What adds up to `predicted_speed`, each in its unit; null is unknown, and adds nothing.

    `typical_day` is what is typical of the sensor at the target time. `deviation_now` is what will be left by then of
    its present deviation from that. `last_value` stands in for both where nothing is typical yet. `neighbours` is what
    the readings of all other sensors add: the model's forecast, less the one that it makes when they are as is typical
    of them. `rest` is what the model adds to all that, and the correction by its past errors.
    """

    typical_day: float | None
    deviation_now: float | None
    last_value: float | None
    neighbours: float | None
    rest: float


class SimilarDayDocument(TypedDict):
    """A past day that went like this one in the two hours up to the same time of day.

    `distance` is the mean absolute difference of speed, `speed_then` what was measured at the horizon.
    """

    date: date
    distance: float
    speed_then: float | None


class ExplanationDocument(TypedDict):
    """A forecast, and what it is made of.

    `exact` says that the model that made it gives the same again from the same readings. Where it is false, `doubt`
    says why: the parts are then what the present model makes of what is known of that time, and the difference is in
    `rest`. `similar_days` are the nearest first.
    """

    prediction: ForecastDocument
    parts: PartsDocument
    exact: bool
    doubt: str | None
    model_name: str
    model_version: str
    similar_days: list[SimilarDayDocument]


def explanation_document(
    prediction: ForecastDocument, speed: float, explanation: Explanation, units: Units
) -> ExplanationDocument:
    """speed: the prediction's, in its unit."""
    factor = units.speed_per_mph
    terms = Terms(*(term * factor for term in explanation.terms))
    return {
        "prediction": prediction,
        "parts": cast("PartsDocument", add_up(terms, speed, SPEED_DECIMALS)),
        "exact": not explanation.doubt,
        "doubt": explanation.doubt or None,
        "model_name": explanation.model,
        "model_version": explanation.version,
        "similar_days": [
            {
                "date": each.day,
                "distance": round(each.distance * factor, SPEED_DECIMALS),
                "speed_then": rounded_number(each.followed, SPEED_DECIMALS, factor),
            }
            for each in explanation.days
        ],
    }
