"""What is counted, for Prometheus: requests, sockets, frames and the feed's age."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from roadcast.api.context import ApiContext
from roadcast.domain.times import to_ms
from roadcast.live.hub import Channel
from roadcast.services import Status

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """The metrics of one app. Labels are bounded: route templates, known methods, status codes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._requests = Counter(
            "roadcast_http_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "roadcast_http_request_seconds", "Time to answer.", ("route",), buckets=BUCKETS_S, registry=registry
        )
        ProcessCollector(registry=registry)

    @contextmanager
    def watching(self, context: ApiContext) -> Generator[None]:
        """Report what the context holds, too."""
        live = _Live(context)
        self.registry.register(live)
        try:
            yield
        finally:
            self.registry.unregister(live)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(method if method in METHODS else "other", route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _Live(Collector):
    """Reads the hub, the live state and the board when it is asked."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        hub, state = self._context.hub, self._context.state
        yield GaugeMetricFamily("roadcast_websocket_connections", "Clients connected.", hub.connections)
        subscribers = GaugeMetricFamily("roadcast_websocket_subscribers", "Subscribers.", labels=["channel"])
        frames = CounterMetricFamily("roadcast_websocket_frames", "Frames published.", labels=["channel"])
        for channel in Channel:
            subscribers.add_metric([channel], hub.subscribers(channel))
            frames.add_metric([channel], hub.published[channel])
        yield subscribers
        yield frames
        yield CounterMetricFamily("roadcast_websocket_dropped_frames", "Dropped for slow clients.", hub.dropped)
        yield GaugeMetricFamily("roadcast_sensors", "Sensors known.", len(state.sensors))
        models = CounterMetricFamily("roadcast_models", "What was done to models.", labels=["done"])
        for done, count in self._context.model_counts().items():
            models.add_metric([done], count)
        yield models
        yield from self._age()
        yield from self._parts()

    def _age(self) -> Iterator[Metric]:
        """The age of the newest reading, on the feed's clock; nothing where there is none."""
        newest = self._context.state.latest().since_ms
        if len(newest):
            age_s = max(to_ms(self._context.clock.now()) - int(newest.max()), 0) / 1000
            yield GaugeMetricFamily("roadcast_newest_reading_age_seconds", "Age of the newest reading.", age_s)

    def _parts(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("roadcast_part_up", "1 while a part serves.", labels=["part"])
        degraded = GaugeMetricFamily("roadcast_part_degraded", "1 while a part is degraded.", labels=["part"])
        for part in self._context.board.parts:
            up.add_metric([part.name], part.status is not Status.DOWN)
            degraded.add_metric([part.name], part.status is Status.DEGRADED)
        yield from (up, degraded)
