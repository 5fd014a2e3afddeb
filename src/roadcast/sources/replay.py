"""Replay: send a file's readings to a running system in event time, over HTTP like any other client."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import httpx
import numpy as np
import orjson

from roadcast.domain.reading import VARIABLES, ReadingBatch, merge
from roadcast.domain.times import from_ms, rfc3339
from roadcast.domain.units import Units
from roadcast.errors import SourceError
from roadcast.sources.pacing import Pace

TICKS_AT_ONCE = 12
"""Ticks that go in one request when the replay is behind its pace."""
TIMEOUT_S = 120.0
BUSY = 503
BUSY_PAUSE_S = 1.0

AWAY_PATIENCE_S = 30.0
"""How long a system that answered before may be away: its worker is started again within seconds."""

Tick = tuple[int, ReadingBatch]
Document = dict[str, object]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request's readings, a line for each that was rejected, and the newest time that was not."""

    received: int
    accepted: int
    duplicate: int
    rejected: int
    rejections: list[str]
    taken_ms: int


def replay(
    ticks: Iterator[Tick],
    client: httpx.Client,
    *,
    name: str,
    speed: float,
    units: Units,
    report: Callable[[int, Answer], None],
) -> None:
    """Send ticks at `speed` times their own pace (0: as fast as the system takes them).

    `report` hears of each answer: the time reached, and the account.

    Raises:
        SourceError: the system does not answer, or refuses the feed.
    """
    first = next(ticks, None)
    if first is None:
        return
    pace = Pace(speed, first[0], time.monotonic())
    for group in _groups(chain([first], ticks), pace):
        last_ms = group[-1][0]
        time.sleep(pace.wait_s(last_ms, time.monotonic()))
        batch = merge([batch for _, batch in group])
        documents = _documents(batch, units)
        report(last_ms, _answer(_post(client, orjson.dumps(documents), name, _through(batch)), batch, documents))


def _groups(ticks: Iterator[Tick], pace: Pace) -> Iterator[list[Tick]]:
    """One tick at a time while the replay keeps its pace, several where they are due already."""
    group: list[Tick] = []
    for tick in ticks:
        if group and (len(group) == TICKS_AT_ONCE or pace.wait_s(tick[0], time.monotonic()) > 0):
            yield group
            group = []
        group.append(tick)
    if group:
        yield group


def _documents(batch: ReadingBatch, units: Units) -> list[Document]:
    factors = np.array([units.speed_per_mph, 1, units.density_per_mile, 1])
    values = (batch.values.astype(np.float64) * factors).tolist()  # not rounded: sent again it must be the same
    stamps = [rfc3339(from_ms(at)) for at in batch.at_ms.tolist()]
    return [
        {"sensor_id": batch.codes[sensor], "timestamp": at, **dict(zip(VARIABLES, row, strict=True))}  # NaN is null
        for sensor, at, row in zip(batch.sensor.tolist(), stamps, values, strict=True)
    ]


def _answer(account: dict[str, Any], batch: ReadingBatch, documents: Sequence[Document]) -> Answer:
    taken = np.ones(len(batch), np.bool_)
    taken[[r["index"] for r in account["rejections"]]] = False
    lines = [
        f"{documents[r['index']]['sensor_id']} {documents[r['index']]['timestamp']}: "
        f"{r['field']}={r['value']!r}: {r['reason']}"
        for r in account["rejections"]
    ]
    return Answer(
        account["received"],
        account["accepted"],
        account["duplicate"],
        account["rejected"],
        lines,
        int(batch.at_ms[taken].max(initial=0)),
    )


def _through(batch: ReadingBatch) -> int:
    """Up to when the replay has sent all that it has: a time still to come is a bad row, and will be refused."""
    return int(batch.at_ms[batch.at_ms <= time.time() * 1000].max(initial=0))


def _post(client: httpx.Client, body: bytes, name: str, through_ms: int) -> dict[str, Any]:
    """Send a batch; while the system is busy or being started again, once more: what it knows is a duplicate."""
    parameters = {"source": name, "replayed": "true"}
    if through_ms:
        parameters["through"] = rfc3339(from_ms(through_ms))
    away_since: float | None = None
    while True:
        try:
            answer = client.post("/api/traffic/readings", content=body, params=parameters)
        except httpx.HTTPError as error:
            away_since = time.monotonic() if away_since is None else away_since
            if time.monotonic() - away_since > AWAY_PATIENCE_S:
                raise SourceError(
                    f"{client.base_url} does not answer ({error!r}).", remedy="Start the system, or name it with --url."
                ) from error
        else:
            away_since = None
            if answer.is_success:
                return orjson.loads(answer.content)
            if answer.status_code != BUSY:
                raise SourceError(f"{client.base_url} refused the replay: {_reason(answer)}")
        time.sleep(BUSY_PAUSE_S)


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("detail") or answer.json().get("title"))
    except ValueError:
        return f"status {answer.status_code}"
