"""What answers look like, for the API's description. A test holds each to the document that it is an example of."""

from collections.abc import Mapping, Sequence

READING: Mapping[str, object] = {
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
STATISTICS: Mapping[str, object] = {
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
MODELS: Mapping[str, object] = {
    "model": "traffic",
    "champion": "20240114-090412.518-3f2a9c1b7d4e",
    "versions": [
        {
            "version": "20240114-090412.518-3f2a9c1b7d4e",
            "champion": True,
            "refused": None,
            "forecaster": "blend",
            "created_at": "2024-01-14T09:04:12.518000Z",
            "learnt_from": "2023-11-19T09:05:00Z",
            "learnt_until": "2024-01-14T09:00:00Z",
            "targets": ["speed", "volume"],
            "sensors": 207,
            "metrics": {"targets": 2414880.0, "rmse": 6.016, "mae": 3.182, "skill": 0.086, "profile_rmse": 6.582},
        }
    ],
    "changes": [
        {
            "action": "promoted",
            "version": "20240114-090412.518-3f2a9c1b7d4e",
            "effective_at": "2024-01-14T09:00:00Z",
            "recorded_at": "2024-01-14T09:04:12.620000Z",
            "evidence": {"reason": "RMSE 6.016 mph, 8.6% below profile's 6.582.", "rmse": 6.016, "profile_rmse": 6.582},
        }
    ],
}
FORECAST: Mapping[str, object] = {
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
GENERATED: Mapping[str, object] = {
    "message": "Prediction generation initiated",
    "prediction_id": FORECAST["id"],
    "estimated_completion": "2024-01-15T10:35:00Z",
}
PREDICTION: Mapping[str, object] = {
    "prediction_id": FORECAST["id"],
    "status": "completed",
    "detail": None,
    "prediction": FORECAST,
}
EXPLANATION: Mapping[str, object] = {
    "prediction": FORECAST,
    "parts": {"typical_day": 52.3, "deviation_now": -6.4, "last_value": None, "neighbours": -3.2, "rest": -0.9},
    "exact": True,
    "doubt": None,
    "model_name": FORECAST["model_name"],
    "model_version": FORECAST["model_version"],
    "similar_days": [
        {"date": "2024-01-08", "distance": 2.31, "speed_then": 40.2},
        {"date": "2023-12-18", "distance": 2.94, "speed_then": 43.75},
        {"date": "2024-01-09", "distance": 3.6, "speed_then": None},
    ],
}
CONGESTION: Mapping[str, object] = {
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
        "weighting": "volume",
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
PATTERNS: Mapping[str, object] = {
    "metric_name": "traffic_patterns",
    "time_period": "last_7_days",
    "data_points": [
        {"type": "hourly", "hour": 8, "avg_speed": 38.4, "avg_volume": 171, "reading_count": 420},
        {"type": "daily", "day_of_week": 1, "avg_speed": 51.7, "avg_volume": 140, "reading_count": 1440},
    ],
    "summary": {
        "slowest_hour": 8,
        "slowest_day_of_week": 1,
        "avg_speed_overall": 52.3,
        "weighting": "volume",
        "timezone": "America/Los_Angeles",
        "unit": "mph",
    },
    "generated_at": "2024-01-15T10:30:00Z",
}
TRENDS: Mapping[str, object] = {
    "metric_name": "traffic_trends",
    "time_period": "last_30_days",
    "data_points": [
        {"date": "2024-01-14", "avg_speed": 55.2, "avg_volume": 118, "reading_count": 1440, "complete": True},
        {"date": "2024-01-15", "avg_speed": 51.7, "avg_volume": 140, "reading_count": 150, "complete": False},
    ],
    "summary": {
        "slope_per_day": -0.02,
        "slope_low": -0.09,
        "slope_high": 0.05,
        "confidence_level": 0.95,
        "avg_speed_overall": 53.1,
        "weighting": "volume",
        "timezone": "America/Los_Angeles",
        "unit": "mph",
    },
    "generated_at": "2024-01-15T10:30:00Z",
}
ERRORS: Mapping[str, object] = {
    "count": 17_280,
    "mae": 2.911,
    "rmse": 4.706,
    "mape": 6.84,
    "bias": -0.113,
    "skill": 0.1162,
}
ACCURACY: Mapping[str, object] = {
    "days": 7,
    "from_day": "2024-01-08",
    "timezone": "America/Los_Angeles",
    "unit": "mph",
    "models": [
        {
            "model": "served",
            "horizon_minutes": 30,
            **ERRORS,
            "baseline_better": False,
            "jam": {"count": 1_310, "mae": 6.02, "rmse": 8.34, "mape": 24.11, "bias": 0.942, "skill": 0.2047},
            "onset": {"count": 312, "mae": 14.87, "rmse": 19.2, "mape": 61.5, "bias": 8.114, "skill": 0.1133},
            "interval": {
                "count": 17_280,
                "coverage_80": 0.8012,
                "coverage_90": 0.9006,
                "width_80": 8.42,
                "width_90": 12.31,
                "winkler_80": 15.81,
                "winkler_90": 20.21,
            },
            "ece": 0.0041,
            "reliability": [
                {
                    "confidence_from": 0.8,
                    "confidence_to": 0.9,
                    "count": 9_120,
                    "mean_confidence": 0.8533,
                    "within_tolerance": 0.8571,
                }
            ],
        }
    ],
}
EXPORTED = {
    "issued_at": "2024-01-15T10:30:00Z",
    "target_time": "2024-01-15T11:00:00Z",
    "sensor_id": "SENSOR_001",
    "horizon_minutes": 30,
    "model_name": "graph_autoregression",
    "model_version": "2024-01-15T05:00Z",
    "unit": "mph",
    "predicted_speed": 44.9,
    "p05": 38.1,
    "p10": 39.9,
    "p25": 42.6,
    "p50": 44.9,
    "p75": 46.8,
    "p90": 49.2,
    "p95": 51.0,
    "confidence": 0.8125,
    "tolerance": 5.0,
    "actual_speed": 43.25,
    "reference_speed": 65.0,
    "state": "medium",
    "near_onset": "false",
    "candidate_last_value": 45.5,
    "candidate_profile": 46.125,
}
EXPORT = "\n".join([",".join(EXPORTED), ",".join(map(str, EXPORTED.values())), ""])
ACCOUNT: Mapping[str, object] = {
    "received": 3,
    "accepted": 1,
    "duplicate": 1,
    "rejected": 1,
    "late": 0,
    "rejections": [{"index": 2, "field": "speed", "value": -3, "reason": "expected a number from 0 to 200 mph"}],
}
READING_IN: Mapping[str, object] = {
    "sensor_id": "SENSOR_001",
    "timestamp": "2024-01-15T10:30:00Z",
    "speed": 45.5,
    "volume": 120,
    "density": 15.2,
    "occupancy": 0.06,
}
SENSOR: Mapping[str, object] = {
    "sensor_id": "SENSOR_001",
    "name": "Main Street",
    "road": "I 24",
    "direction": "E",
    "lanes": 4,
    "milepost": 53.3,
    "latitude": 36.0521,
    "longitude": -86.6893,
    "speed_limit": 65.0,
    "reference_speed": 67.4,
    "status": "active",
    "unit": "mph",
}
INCIDENT: Mapping[str, object] = {
    "incident_id": "7a3d1c52-6f0e-4c1b-9a52-0d9f4c2b8e11",
    "type": "accident",
    "severity": "high",
    "description": "Two cars on the shoulder.",
    "sensor_id": "SENSOR_001",
    "road": "I 24",
    "direction": "E",
    "latitude": 36.0521,
    "longitude": -86.6893,
    "lanes": 1,
    "started_at": "2024-01-15T10:12:00Z",
    "ended_at": None,
    "status": "open",
    "source": "api",
}
INCIDENT_IN: Mapping[str, object] = {
    "type": "accident",
    "severity": "high",
    "description": "Two cars on the shoulder.",
    "sensor_id": "SENSOR_001",
    "lanes": 1,
}
HISTORY: Sequence[Mapping[str, object]] = [
    {"at": "2024-01-15T10:13:05Z", "action": "created", "changes": {"status": "open"}},
    {"at": "2024-01-15T10:20:40Z", "action": "acknowledged", "changes": {"status": "acknowledged"}},
]
POINT: Mapping[str, object] = {
    "type": "Feature",
    "id": "SENSOR_001",
    "geometry": {"type": "Point", "coordinates": [-86.6893, 36.0521]},
    "properties": {"kind": "sensor", **SENSOR},
}
LINE: Mapping[str, object] = {
    "type": "Feature",
    "id": "SENSOR_001->SENSOR_002",
    "geometry": {"type": "LineString", "coordinates": [[-86.6893, 36.0521], [-86.6902, 36.0577]]},
    "properties": {
        "kind": "link",
        "from_sensor": "SENSOR_001",
        "to_sensor": "SENSOR_002",
        "distance": 0.4,
        "distance_unit": "mi",
        "weight": None,
    },
}
STATE: Mapping[str, object] = {
    "as_of": "2024-01-15T10:30:42Z",
    "unit": "mph",
    "sensor_ids": ["SENSOR_001", "SENSOR_002"],
    "timestamp": ["2024-01-15T10:30:00Z", None],
    "speed": [45.5, None],
    "volume": [120, None],
    "ratio": [0.675, None],
    "level": ["medium", None],
    "age_s": [42.0, None],
    "stale": [False, True],
    "forecast": {
        "issued_at": "2024-01-15T10:30:00Z",
        "horizon_minutes": [5, 10],
        "speed": [[44.9, None], [44.1, None]],
        "level": [["medium", None], ["medium", None]],
    },
}
FEED: Mapping[str, object] = {"name": "demo", "mode": "replayed", "simulated": True}
PART: Mapping[str, object] = {
    "name": "predict",
    "status": "degraded",
    "since": "2024-01-15T10:29:00Z",
    "detail": "No issue for 2 windows.",
    "remedy": "The log says why.",
}
STATUS: Mapping[str, object] = {
    "status": "degraded",
    "since": "2024-01-15T10:29:00Z",
    "clock": "2024-01-15T10:30:42Z",
    "uptime": 86_400.0,
    "connections": 3,
    "feed": FEED,
    "parts": [PART],
}
FRESHNESS: Mapping[str, object] = {
    "as_of": "2024-01-15T10:30:42Z",
    "data": {"sensors": 60, "reporting": 59, "stale": 1, "newest_age_s": 42.0},
    "database": {"status": "ok", "latency_ms": 0.41, "detail": ""},
}
HEALTH: Mapping[str, object] = {"status": "degraded", "feed": FEED, "parts": [PART], **FRESHNESS}
METRICS = """# HELP roadcast_part_up 1 while a part serves.
# TYPE roadcast_part_up gauge
roadcast_part_up{part="ingest"} 1.0
"""

ANSWERS: Mapping[str, object] = {
    "get_current_traffic": [READING],
    "get_historical_traffic": [READING],
    "get_traffic_statistics": STATISTICS,
    "get_sensor_traffic": {**READING, "sensor": SENSOR, "forecasts": [FORECAST]},
    "post_readings": ACCOUNT,
    "get_latest_predictions": [FORECAST],
    "get_prediction_accuracy": ACCURACY,
    "export_predictions": EXPORT,
    "generate_prediction": GENERATED,
    "get_prediction": PREDICTION,
    "explain_prediction": EXPLANATION,
    "get_congestion": CONGESTION,
    "get_patterns": PATTERNS,
    "get_trends": TRENDS,
    "list_sensors": [SENSOR],
    "get_sensor": SENSOR,
    "list_incidents": [INCIDENT],
    "create_incident": INCIDENT,
    "get_incident": {**INCIDENT, "status": "acknowledged", "history": HISTORY},
    "acknowledge_incident": {**INCIDENT, "status": "acknowledged"},
    "edit_incident": {**INCIDENT, "lanes": 2},
    "close_incident": {**INCIDENT, "status": "closed", "ended_at": "2024-01-15T10:55:30Z"},
    "get_network": {"type": "FeatureCollection", "features": [POINT, LINE]},
    "get_models": MODELS,
    "get_network_state": STATE,
    "get_system_status": STATUS,
    "get_health": HEALTH,
    "get_detailed_health": {**STATUS, **FRESHNESS},
    "get_metrics": METRICS,
}
"""What each operation answers when all went well."""
BODIES: Mapping[str, object] = {
    "post_readings": [READING_IN],
    "generate_prediction": {"sensor_id": "SENSOR_001", "horizon_minutes": 30},
    "create_incident": INCIDENT_IN,
    "edit_incident": {"lanes": 2},
}
"""What each operation that takes a body can be sent."""
