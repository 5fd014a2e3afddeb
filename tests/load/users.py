"""Who uses the system under load: people at a map, detectors that report, and screens that listen. Run by locust."""

import json
import random
import time
from datetime import datetime, timedelta

from locust import HttpUser, User, between, constant, events, task
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

SENSORS = [f"SENSOR_{number:03}" for number in range(1, 61)]
"""Of the demo."""
BATCH = 100
LISTEN_S = 5.0


class Viewer(HttpUser):
    """Looks at the map and at single sensors, and asks for analyses now and then."""

    weight = 6
    wait_time = between(0.2, 1.0)

    @task(6)
    def current(self) -> None:
        self.client.get("/api/traffic/current")

    @task(4)
    def latest_predictions(self) -> None:
        asked = random.choice([{}, {"sensor_id": random.choice(SENSORS)}, {"min_confidence": 0.8}, {"limit": 1000}])
        self.client.get("/api/predictions/latest", params=asked, name="/api/predictions/latest")

    @task(4)
    def history_of_one_sensor(self) -> None:
        asked = {"hours": 24, "sensor_id": random.choice(SENSORS)}
        self.client.get("/api/traffic/historical", params=asked, name="/api/traffic/historical")

    @task(2)
    def statistics(self) -> None:
        asked = {"hours": random.choice([1, 24, 168])}
        self.client.get("/api/traffic/statistics", params=asked, name="/api/traffic/statistics")

    @task(2)
    def congestion(self) -> None:
        self.client.get("/api/analytics/congestion", params={"hours": 24}, name="/api/analytics/congestion")

    @task(1)
    def patterns(self) -> None:
        self.client.get("/api/analytics/patterns")

    @task(1)
    def health(self) -> None:
        self.client.get("/health")


class Detectors(HttpUser):
    """Report a hundred readings at a time; now and then the same once more, as after a lost answer."""

    weight = 2
    wait_time = constant(1)

    def on_start(self) -> None:
        self.now = datetime.fromisoformat(self.client.get("/health").json()["as_of"])
        self.sent: list[dict[str, object]] = []

    @task
    def report(self) -> None:
        again = bool(self.sent) and random.random() < 0.2
        self.sent = self.sent if again else self.readings()
        with self.client.post("/api/traffic/readings", json=self.sent, catch_response=True) as answer:
            if answer.ok and answer.json()["duplicate" if again else "accepted"] != BATCH:
                answer.failure(f"unexpected account: {answer.text}")

    def readings(self) -> list[dict[str, object]]:
        at = (self.now - timedelta(milliseconds=random.randrange(86_400_000))).isoformat()
        return [
            {"sensor_id": f"LOAD_{number:03}", "timestamp": at, "speed": 50 + number % 20, "volume": number}
            for number in range(BATCH)
        ]


class Listener(User):
    """Subscribes to the live stream, listens for a while, and comes back later."""

    weight = 2
    wait_time = between(1, 3)

    @task
    def listen(self) -> None:
        began = time.perf_counter()
        confirmed_s, heard, error = 0.0, 0, None
        try:
            with connect(self.host.replace("http", "ws") + "/ws/real-time", max_size=None) as connection:
                connection.send(json.dumps({"type": "subscribe", "subscription": "traffic_data"}))
                while (left_s := LISTEN_S - (time.perf_counter() - began)) > 0:
                    try:
                        text = str(connection.recv(left_s))
                    except TimeoutError:
                        break
                    heard += len(text)
                    if not confirmed_s and '"subscription_confirmed"' in text:
                        confirmed_s = time.perf_counter() - began
            if not confirmed_s:
                raise TimeoutError(f"no confirmation within {LISTEN_S:g} s")
        except (OSError, WebSocketException) as reason:
            error = reason
        events.request.fire(
            request_type="WS", name="/ws/real-time", response_time=confirmed_s * 1000, response_length=heard,
            exception=error, context={},
        )  # fmt: skip
