"""Formats of text: one reading a row, tables by sensors, PeMS stations, and the files that describe sensors."""

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roadcast.domain.reading import Rejection
from roadcast.domain.sensor import EXPECTED_CODE, Link, Sensor
from roadcast.domain.units import Units
from roadcast.errors import SourceError
from roadcast.sources.formats import Chunk, FormatOptions, SourceFile, open_source

PLAIN = FormatOptions()
LOS_ANGELES = FormatOptions(timezone="America/Los_Angeles")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 4 rows, so that small files have several chunks."""
    monkeypatch.setattr("roadcast.sources.formats.records.CHUNK_CELLS", 4)
    monkeypatch.setattr("roadcast.sources.formats.tables.CHUNK_CELLS", 4)


def written(folder: Path, text: str, name: str = "readings.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def readings(chunks: list[Chunk]) -> list[tuple[str, str, list[float | None]]]:
    """Each reading as code, UTC time and values, None where missing."""
    return [
        (batch.codes[sensor], at(at_ms), [None if np.isnan(value) else round(float(value), 3) for value in values])
        for batch in (chunk.batch for chunk in chunks)
        for sensor, at_ms, values in zip(batch.sensor, batch.at_ms, batch.values, strict=True)
    ]


def at(at_ms: int) -> str:
    return datetime.fromtimestamp(int(at_ms) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def read(path: Path, options: FormatOptions = PLAIN) -> tuple[SourceFile, list[Chunk]]:
    source = open_source(path, options)
    chunks = list(source.chunks())
    for chunk in chunks:
        assert len(chunk.batch) + chunk.rejected + chunk.missing == chunk.rows
    return source, chunks


def rejections(chunks: list[Chunk]) -> list[Rejection]:
    return [rejection for chunk in chunks for rejection in chunk.rejections]


LONG = """Speed, Sensor_ID ,note,timestamp,volume,occupancy
60.5,A,x,2024-05-01T08:00:00Z,120,0.1
,B,,2024-05-01 10:05+02:00,0,
NA,A,,2024-05-01 01:10,,

0,B,,2024-05-01 01:10,0,0
"""


def test_rows_become_readings_whatever_the_order_and_case_of_columns(tmp_path: Path) -> None:
    source, chunks = read(written(tmp_path, LONG), LOS_ANGELES)
    assert (source.format, source.interval_s) == ("csv_long", None)
    assert readings(chunks) == [
        ("A", "2024-05-01 08:00:00", [60.5, 120, None, 0.1]),
        ("B", "2024-05-01 08:05:00", [None, 0, None, None]),
        ("B", "2024-05-01 08:10:00", [0, 0, None, 0]),
    ]
    assert sum(chunk.missing for chunk in chunks) == 1
    assert source.conversions == ["columns ignored (note): 1"]


def test_gzip_semicolons_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv.gz"
    path.write_bytes(gzip.compress(("\ufeff" + LONG.replace(",", ";")).encode()))
    assert readings(read(path, LOS_ANGELES)[1]) == readings(read(written(tmp_path, LONG), LOS_ANGELES)[1])


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_where_no_comma_separates_values_it_may_separate_decimals(tmp_path: Path, delimiter: str) -> None:
    decimals = LONG.replace(",", delimiter).replace(".", ",")
    assert readings(read(written(tmp_path, decimals), LOS_ANGELES)[1]) == readings(
        read(written(tmp_path, LONG), LOS_ANGELES)[1]
    )


BAD = """sensor_id,timestamp,speed,volume,occupancy
A,2024-05-01T08:00Z,-1,abc,0
A,2024-05-01T08:05Z,60,abc,2
,2024-05-01T08:10Z,60,1,0
A,yesterday,60,1,0
A,2024-05-01T08:20Z,60
A,2024-05-01T08:25Z,201,1,0
A,2024-05-01T08:30Z,inf,1,0
A,1969-05-01T08:30Z,60,1,0
A,2024-05-01T08:40Z,60,1,1.01
A,2024-05-01T08:45Z,200,1,1
"""


def test_each_bad_row_is_one_rejection_and_the_others_go_on(tmp_path: Path) -> None:
    _, chunks = read(written(tmp_path, BAD))
    assert [(r.index, r.field, r.value, r.reason) for r in rejections(chunks)] == [
        (1, "speed", -1.0, "expected 0 to 200 mph (sensor A)"),
        (2, "volume", "abc", "expected a number (sensor A)"),
        (3, "sensor_id", "", EXPECTED_CODE),
        (4, "timestamp", "yesterday", "expected a time such as 2012-03-01T08:05:00Z"),
        (5, "row", "3 columns", "expected 5 columns"),
        (6, "speed", 201.0, "expected 0 to 200 mph (sensor A)"),
        (7, "speed", "inf", "expected a number (sensor A)"),
        (8, "timestamp", "1969-05-01T08:30Z", "expected a time from 1990 on"),
        (9, "occupancy", 1.01, "expected 0 to 1 fraction (sensor A)"),
    ]
    assert readings(chunks) == [("A", "2024-05-01 08:45:00", [200, 1, None, 1])]
    assert list(chunks[0].batch.codes) == ["A"]


@pytest.mark.parametrize("code", ["S\0", "B\x01", "x" * 65, "a\u200b"])
def test_a_row_of_a_sensor_that_cannot_be_named_is_refused(tmp_path: Path, code: str) -> None:
    _, chunks = read(
        written(tmp_path, f"sensor_id,timestamp,speed\n{code},2024-05-01T08:00Z,1\nA,2024-05-01T08:00Z,1\n")
    )
    assert [(r.index, r.field, r.value, r.reason) for r in rejections(chunks)] == [
        (1, "sensor_id", code, EXPECTED_CODE)
    ]
    with pytest.raises(SourceError, match="expected a string of 1 to 64 printable characters"):
        open_source(written(tmp_path, f"timestamp,A,{code}\n2024-05-01T08:00Z,1,2\n"), FormatOptions())


@pytest.mark.parametrize("number", ["1_0", "\u0663\u0664", "0x1A", "1e", "."])
def test_what_python_alone_takes_for_a_number_is_none(tmp_path: Path, number: str) -> None:
    _, chunks = read(written(tmp_path, f"sensor_id,timestamp,speed\nA,2024-05-01T08:00Z,{number}\n"))
    assert [(r.field, r.value) for r in rejections(chunks)] == [("speed", number)]


@pytest.mark.parametrize(("text", "speed"), [(" 5e1", 50), ("+50.", 50), ("-0", 0), (".5", 0.5)])
def test_numbers_are_read_however_they_are_written(tmp_path: Path, text: str, speed: float) -> None:
    _, chunks = read(written(tmp_path, f"sensor_id,timestamp,speed\nA,2024-05-01T08:00Z,{text}\n"))
    assert [values[0] for *_, values in readings(chunks)] == [speed]


@pytest.mark.parametrize("stamp", ["2024-05-01", "2024-W05-4", "20240501T080000"])
def test_a_stamp_names_a_time_of_day(tmp_path: Path, stamp: str) -> None:
    _, chunks = read(written(tmp_path, f"sensor_id,timestamp,speed\nA,{stamp},50\n"))
    assert [(r.field, r.value) for r in rejections(chunks)] == [("timestamp", stamp)]


def test_a_quote_that_is_not_closed_does_not_swallow_the_rest(tmp_path: Path) -> None:
    path = written(tmp_path, 'sensor_id,timestamp,speed\nA,2024-05-01T08:00Z,5\nA,"2024-05-01T08:05Z,5\nA,x,5\n')
    with pytest.raises(SourceError, match=r"line 4: unexpected end of data"):
        read(path)


def test_units_are_converted_counted_and_judged_after_conversion(tmp_path: Path) -> None:
    text = "sensor_id,timestamp,speed,density,occupancy\nA,2024-05-01T08:00Z,160.9344,10,50\n"
    path = written(tmp_path, text + "A,2024-05-01T08:05Z,330,1,101\n")
    source, chunks = read(path, FormatOptions(speed_unit="km/h", density_unit="veh/km", occupancy_unit="percent"))
    assert readings(chunks) == [("A", "2024-05-01 08:00:00", [100, None, 16.093, 0.5])]
    assert [r.reason for r in rejections(chunks)] == ["expected 0 to 321.869 km/h (sensor A)"]
    assert source.conversions == [
        "speed km/h → mph: 1",
        "density veh/km → veh/mi: 1",
        "occupancy percent → fraction: 1",
    ]


def test_a_csv_speaks_the_units_of_the_settings_unless_told_otherwise(tmp_path: Path) -> None:
    path = written(tmp_path, "sensor_id,timestamp,speed,density\nA,2024-05-01T08:00Z,160.9344,10\n")
    for options, speed in ((FormatOptions(), 160.934), (FormatOptions(units=Units.METRIC), 100)):
        assert readings(read(path, options)[1])[0][2][0] == speed
    mph = FormatOptions(units=Units.METRIC, speed_unit="mph", density_unit="veh/mi")
    assert readings(read(path, mph)[1])[0][2][::2] == [160.934, 10]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"speed_unit": "knots"}, "speed unit 'knots': expected mph or km/h"),
        ({"occupancy_unit": "%"}, "occupancy unit '%': expected fraction or percent"),
        ({"variable": "flow"}, "variable 'flow': expected speed, volume, density, occupancy"),
        ({"timezone": "Mars/Olympus"}, "timezone 'Mars/Olympus': expected a name"),
        ({"timezone": ""}, "timezone '': expected a name"),
    ],
)
def test_options_that_mean_nothing_are_refused(given: dict[str, str], names: str) -> None:
    with pytest.raises(SourceError, match=f"^{names}"):
        FormatOptions(**given)


def test_zero_is_measured_unless_it_is_said_to_be_missing(tmp_path: Path) -> None:
    path = written(tmp_path, "sensor_id,timestamp,speed\nA,2024-05-01T08:00Z,0\n")
    assert readings(read(path)[1]) == [("A", "2024-05-01 08:00:00", [0, None, None, None])]
    source, chunks = read(path, FormatOptions(zero_is_missing=True))
    assert (chunks[0].missing, source.conversions) == (1, ["zeros read as missing: 1"])


@pytest.mark.usefixtures("small_chunks")
def test_chunks_do_not_split_a_time_stamp(tmp_path: Path) -> None:
    sizes = [3, 1, 9, 2, 4]
    rows = [f"S{i},2024-05-01T08:{5 * tick:02}Z,{i}" for tick, size in enumerate(sizes) for i in range(size)]
    _, chunks = read(written(tmp_path, "\n".join(["sensor_id,timestamp,speed", *rows])))
    ticks_of = [set(chunk.batch.at_ms.tolist()) for chunk in chunks]
    assert len(chunks) > 2
    assert sum(len(ticks) for ticks in ticks_of) == len(sizes)
    assert sum(chunk.rows for chunk in chunks) == sum(sizes)


@pytest.mark.usefixtures("small_chunks")
def test_row_numbers_go_on_from_chunk_to_chunk(tmp_path: Path) -> None:
    rows = [f"A,2024-05-01T08:{i:02}Z,{-1 if i in {2, 11} else 50}" for i in range(15)]
    _, chunks = read(written(tmp_path, "\n".join(["sensor_id,timestamp,speed", *rows])))
    assert [r.index for r in rejections(chunks)] == [3, 12]


def test_reading_twice_gives_the_same_and_counts_once(tmp_path: Path) -> None:
    source = open_source(written(tmp_path, LONG), FormatOptions(zero_is_missing=True))
    first, noted = readings(list(source.chunks())), list(source.conversions)
    assert (readings(list(source.chunks())), source.conversions) == (first, noted)


AUTUMN = ["00:55", "01:00", "01:30", "01:00", "01:30", "02:00"]


def autumn(sensor: str, stamps: list[str]) -> str:
    return "".join(f"{sensor},2012-11-04 {stamp},50\n" for stamp in stamps)


def test_the_order_of_rows_tells_the_passes_of_a_repeated_hour(tmp_path: Path) -> None:
    path = written(tmp_path, "sensor_id,timestamp,speed\n" + autumn("A", AUTUMN) + autumn("B", ["01:30", "02:00"]))
    source, chunks = read(path, LOS_ANGELES)
    assert [when[11:16] for _, when, _ in readings(chunks)] == [
        *("07:55", "08:00", "08:30", "09:00", "09:30", "10:00"),
        *("08:30", "10:00"),
    ]
    assert source.conversions == [
        "times in an hour that a clock change repeats, read as its first: 3",
        "times in an hour that a clock change repeats, read as its second: 2",
    ]


@pytest.mark.usefixtures("small_chunks")
def test_the_second_pass_is_told_across_chunks_and_sensors(tmp_path: Path) -> None:
    rows = [f"{sensor},2012-11-04 {stamp},50" for stamp in AUTUMN for sensor in "ABC"]
    _, chunks = read(written(tmp_path, "\n".join(["sensor_id,timestamp,speed", *rows])), LOS_ANGELES)
    times = [when[11:16] for code, when, _ in readings(chunks) if code == "B"]
    assert times == ["07:55", "08:00", "08:30", "09:00", "09:30", "10:00"]


def test_hourly_rows_of_a_repeated_hour_are_its_two_passes(tmp_path: Path) -> None:
    rows = "".join(autumn(sensor, ["00:00", "01:00", "01:00", "02:00"]) for sensor in "AB")
    _, chunks = read(written(tmp_path, "sensor_id,timestamp,speed\n" + rows), LOS_ANGELES)
    assert [when[11:16] for _, when, _ in readings(chunks)] == ["07:00", "08:00", "09:00", "10:00"] * 2


def test_a_row_that_stands_twice_in_a_repeated_hour_is_no_second_pass(tmp_path: Path) -> None:
    rows = autumn("A", ["00:55", "01:00", "01:00", "01:05"])
    _, chunks = read(written(tmp_path, "sensor_id,timestamp,speed\n" + rows), LOS_ANGELES)
    assert [when[11:16] for _, when, _ in readings(chunks)] == ["07:55", "08:00", "08:00", "08:05"]


def test_a_stamp_that_states_its_offset_needs_no_guess(tmp_path: Path) -> None:
    text = "sensor_id,timestamp,speed\nA,2012-11-04 01:30-08:00,50\nA,2012-11-04 01:30-07:00,50\n"
    source, chunks = read(written(tmp_path, text), LOS_ANGELES)
    assert [when[11:16] for _, when, _ in readings(chunks)] == ["09:30", "08:30"]
    assert source.conversions == []


def test_a_skipped_hour_is_refused_by_name(tmp_path: Path) -> None:
    text = "sensor_id,timestamp,speed\n" + "".join(
        f"A,2012-03-11 {h},50\n" for h in ("01:55", "02:00", "02:55", "03:00")
    )
    source, chunks = read(written(tmp_path, text), LOS_ANGELES)
    assert [when[11:16] for _, when, _ in readings(chunks)] == ["09:55", "10:00"]
    assert [(r.index, r.field, r.value) for r in rejections(chunks)] == [
        (2, "timestamp", "2012-03-11 02:00"),
        (3, "timestamp", "2012-03-11 02:55"),
    ]
    assert "clock change of 2012-03-11 in America/Los_Angeles" in rejections(chunks)[0].reason
    assert source.conversions == ["times that a clock change skips, refused: 2"]


WIDE = """time,773869,767541
2012-03-11 01:55,64.5,
2012-03-11 02:00,60,61
2012-03-11 03:00,x,0
2012-03-11 03:05,1
"""


def test_a_table_by_sensors_is_read_cell_by_cell(tmp_path: Path) -> None:
    source, chunks = read(written(tmp_path, WIDE), LOS_ANGELES)
    assert (source.format, source.rows) == ("csv_wide", 8)
    assert [sensor.sensor_id for sensor in source.sensors] == ["773869", "767541"]
    assert readings(chunks) == [
        ("773869", "2012-03-11 09:55:00", [64.5, None, None, None]),
        ("767541", "2012-03-11 10:00:00", [0, None, None, None]),
    ]
    assert [(r.index, r.field, r.value) for r in rejections(chunks)] == [
        (2, "timestamp", "2012-03-11 02:00"),
        (3, "speed", "x"),
        (4, "row", "2 columns"),
    ]
    assert (chunks[0].rejected, chunks[0].missing) == (5, 1)


def test_a_table_holds_the_variable_that_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, ",A\n2024-05-01T08:00Z,12\n")
    assert readings(read(path, FormatOptions(variable="volume"))[1])[0][2] == [None, 12, None, None]


@pytest.mark.parametrize("header", ["time,A,,B", "time,A,B,A"])
def test_a_table_whose_columns_cannot_be_told_apart_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(SourceError, match=r"column 3 has no name|'A' heads two columns"):
        read(written(tmp_path, header + "\n2024-05-01T08:00Z,1,2,3\n"))


def test_locations_and_distances_beside_the_file_describe_it(tmp_path: Path) -> None:
    path = written(tmp_path, WIDE)
    written(tmp_path, "index,sensor_id,latitude,longitude\n0,773869,34.15,-118.31\n", "graph_sensor_locations.csv")
    written(tmp_path, "from,to,cost\n773869,767541,1609.344\n773869,773869,0\n773869,9,5\n", "distances_la_2012.csv")
    source, _ = read(path, LOS_ANGELES)
    assert source.sensors == [Sensor("773869", latitude=34.15, longitude=-118.31), Sensor("767541")]
    assert source.links == [Link("773869", "767541", distance_mi=1.0)]
    assert "sensors without a location: 1" in source.conversions


def test_locations_without_a_header_are_given_by_option(tmp_path: Path) -> None:
    places = written(tmp_path, "A,37.3,-121.9\nB,37.4,-121.8\n", "bay.txt")
    path = written(tmp_path, "sensor_id,timestamp,speed\nA,2024-05-01T08:00Z,1\n")
    source, _ = read(path, FormatOptions(locations=places))
    assert source.sensors == [
        Sensor("A", latitude=37.3, longitude=-121.9),
        Sensor("B", latitude=37.4, longitude=-121.8),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A,37\n", "three columns"),
        ("A,1,2\nB,x,2\n", "'x': expected a number"),
        ("A,-121.9,37.3\n", "expected latitude"),
    ],
)
def test_locations_that_make_no_sense_are_refused(tmp_path: Path, text: str, found: str) -> None:
    places = written(tmp_path, text, "places.csv")
    with pytest.raises(SourceError, match=rf"places\.csv: .*{found}"):
        read(written(tmp_path, WIDE), FormatOptions(locations=places))


LANES = ",10,41,.0394,67.7,1,,,,,"
PEMS = f"""03/01/2012 00:00:00,715898,7,5,S,ML,.43,119,100,271,.0284,65.1{LANES}
03/01/2012 00:00:00,715900,7,5,N,FR,,10,75,12,,{LANES}
03/01/2012 00:00:00,715901,7,10,W,ML,.3,0,0,150,.04,66{LANES}
03/01/2012 00:05:00,715898,7,5,S,ML,.43,119,100,-3,.0284,65.1{LANES}
03/01/2012 00:05:00,715900,7,5,N,FR,,0,0,,,{LANES}
"""
PEMS_META = (
    "ID\tFwy\tDir\tDistrict\tCounty\tCity\tState_PM\tAbs_PM\tLatitude\tLongitude\tLength\tType\tLanes\tName\n"
    "715898\t5\tS\t7\t37\t\t.71\t117.28\t33.880183\t-118.021787\t.43\tML\t4\tPHOEBE\n"
)


def test_a_pems_station_is_stamped_with_the_end_of_its_interval(tmp_path: Path) -> None:
    path = tmp_path / "d07_text_station_5min_2012_03_01.txt.gz"
    path.write_bytes(gzip.compress(PEMS.encode()))
    source, chunks = read(path, LOS_ANGELES)
    assert (source.format, source.interval_s, source.rows) == ("pems_station", 300, 5)
    assert readings(chunks) == [
        ("715898", "2012-03-01 08:05:00", [65.1, 271, None, 0.028]),
        ("715900", "2012-03-01 08:05:00", [None, 12, None, None]),
    ]
    assert [(r.index, r.field, r.value) for r in rejections(chunks)] == [(4, "volume", -3.0)]
    assert "rows that PeMS has filled in (0 % observed), read as missing: 1" in source.conversions
    assert source.sensors[1] == Sensor("715900", road="Fwy 5", direction="N")


@pytest.mark.parametrize("share", ["abc", "-1", "101", "1e3"])
def test_a_share_of_observed_values_that_cannot_be_refuses_its_row(tmp_path: Path, share: str) -> None:
    source, chunks = read(written(tmp_path, PEMS.replace("ML,.43,119,100,271", f"ML,.43,119,{share},271")), LOS_ANGELES)
    assert [sensor for sensor, _, _ in readings(chunks)] == ["715900"]
    assert [(r.index, r.field, r.value) for r in rejections(chunks)] == [(1, "observed", share), (4, "volume", -3.0)]
    assert rejections(chunks)[0].reason == "expected a number from 0 to 100 %"
    assert source.rows == 5


def test_pems_metadata_beside_the_file_describes_its_stations(tmp_path: Path) -> None:
    written(tmp_path, PEMS_META, "d07_text_meta_2012_02_23.txt")
    source, _ = read(written(tmp_path, PEMS, "d07_text_station_5min_2012_03_01.txt"), LOS_ANGELES)
    assert source.sensors[0] == Sensor(
        "715898", "PHOEBE", "Fwy 5", "S", 4, 117.28, latitude=33.880183, longitude=-118.021787
    )
    assert len(source.sensors) == 3


def test_metadata_of_another_kind_is_refused(tmp_path: Path) -> None:
    meta = written(tmp_path, "a,b\n", "meta.csv")
    with pytest.raises(SourceError, match=r"meta\.csv: first line lacks ID, Fwy, Dir"):
        read(written(tmp_path, PEMS), FormatOptions(locations=meta))


CELL = st.sampled_from(["", "0", "12.5", "-1", "1e300", "nan", "x", "0.5"])
STAMP = st.sampled_from(["2012-03-11 01:55", "2012-03-11 02:30", "2012-11-04 01:30", "2024-01-01T00:00Z", "never", ""])
ROW = st.tuples(st.sampled_from(["A", "B", ""]), STAMP, CELL, CELL, CELL).map(list) | st.lists(
    CELL, min_size=1, max_size=7
)


@given(rows=st.lists(ROW, min_size=1, max_size=30), zero=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@pytest.mark.usefixtures("small_chunks")
def test_every_row_is_a_reading_a_rejection_or_missing(tmp_path: Path, rows: list[list[str]], *, zero: bool) -> None:
    lines = [",".join(row) for row in rows]
    path = written(tmp_path, "\n".join(["sensor_id,timestamp,speed,volume,occupancy", *lines]))
    source, chunks = read(path, FormatOptions("America/Los_Angeles", zero_is_missing=zero))
    assert sum(chunk.rows for chunk in chunks) == source.rows == sum(bool(line) for line in lines)
    for chunk in chunks:
        assert len(chunk.rejections) == chunk.rejected
        assert len({rejection.index for rejection in chunk.rejections}) == chunk.rejected
        assert set(chunk.batch.sensor.tolist()) == set(range(len(chunk.batch.codes)))


def test_a_consumers_own_error_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    def consume(chunks: Iterator[Chunk]) -> None:
        for _ in chunks:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        consume(open_source(written(tmp_path, LONG), FormatOptions()).chunks())
