"""What answers look like, for the API's description. A test holds each to the document that it is an example of."""

from collections.abc import Mapping
from types import MappingProxyType

from roadcast.api.problems import Responses


def example(value: object, status: int = 200) -> Responses:
    """A route's answer by example."""
    return {status: {"content": {"application/json": {"example": value}}}}


READING: Mapping[str, object] = MappingProxyType(
    {
        "id": "018d0cab-c440-8000-8000-000000000001",
        "sensor_id": "SENSOR_001",
        "speed": 45.5,
        "volume": 120,
        "density": 15.2,
        "occupancy": 0.06,
        "timestamp": "2024-01-15T10:30:00Z",
        "age_s": 42.0,
        "stale": False,
    }
)
STATISTICS: Mapping[str, object] = MappingProxyType(
    {
        "avg_speed": 52.3,
        "min_speed": 15.0,
        "max_speed": 75.0,
        "avg_volume": 145,
        "total_readings": 1440,
        "time_window_hours": 24,
        "weighting": "volume",
        "unit": "mph",
        "as_of": "2024-01-15T10:30:42Z",
    }
)
FORECAST: Mapping[str, object] = MappingProxyType(
    {
        "id": "018d0cab-c440-801e-8000-000000000001",
        "sensor_id": "SENSOR_001",
        "issued_at": "2024-01-15T10:30:00Z",
        "target_time": "2024-01-15T11:00:00Z",
        "horizon_minutes": 30,
        "predicted_speed": 41.8,
        "predicted_volume": 131,
        "confidence": 0.81,
        "tolerance": 5.0,
        "quantiles": {"p05": 31.2, "p10": 34.0, "p25": 38.1, "p50": 41.8, "p75": 45.0, "p90": 48.3, "p95": 50.9},
        "model_name": "graph_autoregression",
        "model_version": "1",
        "unit": "mph",
        "data_age_s": 0.0,
    }
)
GENERATED: Mapping[str, object] = MappingProxyType(
    {
        "message": "Prediction generation initiated",
        "prediction_id": FORECAST["id"],
        "estimated_completion": "2024-01-15T10:35:00Z",
    }
)
PREDICTION: Mapping[str, object] = MappingProxyType(
    {"prediction_id": FORECAST["id"], "status": "completed", "prediction": dict(FORECAST)}
)
CONGESTION: Mapping[str, object] = MappingProxyType(
    {
        "metric_name": "traffic_congestion",
        "time_period": "last_24_hours",
        "data_points": [
            {
                "timestamp": "2024-01-15T10:00:00Z",
                "avg_speed": 35.5,
                "avg_volume": 180,
                "congestion_level": "high",
                "speed_ratio": 0.47,
                "reading_count": 60,
            }
        ],
        "summary": {
            "congestion_percentage": 35.2,
            "avg_speed_overall": 45.8,
            "congested_hours": 8,
            "unit": "mph",
            "scheme": {
                "name": "speed ratio, four levels",
                "cut_offs": {"low": 0.75, "medium": 0.5, "high": 0.25, "severe": 0.0},
                "method": "speed / reference speed",
            },
        },
        "generated_at": "2024-01-15T10:30:00Z",
    }
)
ACCOUNT: Mapping[str, object] = MappingProxyType(
    {
        "received": 3,
        "accepted": 1,
        "duplicate": 1,
        "rejected": 1,
        "late": 0,
        "rejections": [{"index": 2, "field": "speed", "value": -3, "reason": "expected a number from 0 to 200 mph"}],
    }
)
