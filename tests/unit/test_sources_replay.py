"""What is recognised, and how files are replayed: tick by tick, at a pace."""

import gzip
import itertools
import math
from pathlib import Path

import httpx
import numpy as np
import pytest

from roadcast.errors import InvalidInput, SourceError
from roadcast.sources import replay
from roadcast.sources.formats import Chunk, FormatOptions, open_source, ticks
from roadcast.sources.pacing import Pace
from roadcast.sources.replay import AWAY_PATIENCE_S, BUSY

HEADER = "sensor_id,timestamp,speed\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "readings.csv"
    path.write_text(text, encoding="utf-8")
    return path


def replayed(path: Path, heard: list[Chunk]) -> list[tuple[str, dict[str, float]]]:
    """Each tick's minute, and the speeds in it."""
    return [
        (
            f"{at_ms // 60_000 % 60:02}",
            {batch.codes[i]: float(v) for i, v in zip(batch.sensor, batch.values[:, 0], strict=True)},
        )
        for at_ms, batch in ticks(open_source(path, FormatOptions()), heard.append)
    ]


def test_a_file_in_time_order_is_replayed_tick_by_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roadcast.sources.formats.records.CHUNK_CELLS", 2)
    rows = ["A,2024-05-01T08:00Z,1", "B,2024-05-01T08:00Z,2", "C,2024-05-01T08:00Z,x", "A,2024-05-01T08:05Z,3"]
    heard: list[Chunk] = []
    path = written(tmp_path, HEADER + "\n".join([*rows, "A,2024-05-01T08:15Z,4"]))
    assert replayed(path, heard) == [("00", {"A": 1, "B": 2}), ("05", {"A": 3}), ("15", {"A": 4})]
    assert sum(chunk.rows for chunk in heard) == 5
    assert [rejection.index for chunk in heard for rejection in chunk.rejections] == [3]


def test_a_file_by_sensor_is_sorted_and_says_so(tmp_path: Path) -> None:
    rows = [f"{sensor},2024-05-01T08:{minute}Z,{minute}" for sensor in "AB" for minute in ("00", "05", "10")]
    source = open_source(written(tmp_path, HEADER + "\n".join(rows)), FormatOptions())
    replay = list(ticks(source))
    assert [(at_ms // 60_000 % 60, batch.values[:, 0].tolist()) for at_ms, batch in replay] == [
        (0, [0, 0]),
        (5, [5, 5]),
        (10, [10, 10]),
    ]
    assert source.conversions == ["readings sorted in memory, since the file is not in time order: 6"]


def test_every_reading_is_replayed_once_in_any_order(tmp_path: Path) -> None:
    minutes = np.random.default_rng(1).permutation(np.repeat(np.arange(60), 3)).tolist()
    rows = [f"S{i},2024-05-01T08:{minute:02}Z,{i % 70}" for i, minute in enumerate(minutes)]
    replay = replayed(written(tmp_path, HEADER + "\n".join(rows)), [])
    assert [minute for minute, _ in replay] == [f"{minute:02}" for minute in range(60)]
    assert sum(len(speeds) for _, speeds in replay) == 180


@pytest.mark.parametrize("text", [HEADER, HEADER + "A,never,1\n"])
def test_a_file_without_readings_has_no_ticks(tmp_path: Path, text: str) -> None:
    assert replayed(written(tmp_path, text), []) == []


def test_ticks_are_due_by_event_time_over_speed() -> None:
    pace = Pace(60, first_at_ms=1_000_000, started_s=50.0)
    assert [pace.due_s(1_000_000 + 300_000 * tick) for tick in (0, 1, 2, 10)] == [50, 55, 60, 100]
    assert (pace.wait_s(1_300_000, now_s=52.5), pace.wait_s(1_300_000, now_s=70)) == (2.5, 0)


@pytest.mark.parametrize("speed", [0, math.inf])
def test_as_fast_as_possible_never_waits(speed: float) -> None:
    assert Pace(speed, first_at_ms=0, started_s=50.0).wait_s(10**12, now_s=50.0) == 0


@pytest.mark.parametrize("speed", [-1, math.nan])
def test_a_speed_that_is_none_is_refused(speed: float) -> None:
    with pytest.raises(InvalidInput, match=r"^speed .*expected a factor above 0"):
        Pace(speed, first_at_ms=0, started_s=0)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "nothing in it"),
        (b"\n\n \n", "nothing in it"),
        (b"hello\n", "text that begins 'hello'"),
        (b"timestamp,speed\n2024-05-01T08:00Z,1\n", "text that begins 'timestamp,speed'"),
        (b"sensor_id,timestamp\n", "columns sensor_id, timestamp: expected one of speed"),
        (b"sensor_id,timestamp,speed,Speed\n", "column 'speed' stands there twice"),
        (b"\xff\xfe\x00\x01", "not UTF-8 text (byte 0)"),
        (b"PK\x03\x04nonsense", "damaged or not what it seems"),
        (b"\x89HDF\r\n\x1a\nnonsense", ""),
        (gzip.compress(HEADER.encode() * 1000)[:-20], "damaged or not what it seems"),
    ],
)
def test_what_is_not_accepted_is_refused_in_one_line(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "thing.npz"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_source(path, FormatOptions())
    assert str(caught.value).startswith(f"{path}: {found}")
    assert "\n" not in str(caught.value)


def test_an_npz_of_something_else_is_refused_by_its_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", allow_pickle=False, weights=np.zeros(3), bias=np.zeros(1))
    with pytest.raises(SourceError, match=r"other\.npz: npz with bias, weights: expected npz \(los_loop"):
        open_source(tmp_path / "other.npz", FormatOptions())


@pytest.mark.parametrize("name", ["absent.csv", "."])
def test_a_path_that_is_no_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=r"absent\.csv: No such file|: Is a directory"):
        open_source(tmp_path / name, FormatOptions())


def test_a_file_cut_short_says_so_when_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "A,2024-05-01T08:00Z,1\n")
    source = open_source(path, FormatOptions())
    path.unlink()
    with pytest.raises(SourceError, match=r"readings\.csv: No such file"):
        list(source.chunks())


def test_a_system_that_is_away_twice_is_waited_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two starts it answers that it is busy."""
    answers = iter([None, BUSY, BUSY, None, 200])
    clock = itertools.count(0, 0.7 * AWAY_PATIENCE_S)

    def answer(_: httpx.Request) -> httpx.Response:
        status = next(answers)
        if status is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(status, json={"received": 1})

    monkeypatch.setattr(replay, "BUSY_PAUSE_S", 0)
    monkeypatch.setattr(replay.time, "monotonic", lambda: next(clock))
    with httpx.Client(base_url="http://road", transport=httpx.MockTransport(answer)) as client:
        assert replay._post(client, b"[]", "file", 0) == {"received": 1}
