"""Tables by sensors in arrays: HDF5 as pandas writes it, and the npz files of real data.

The frames in tests/data were written by pandas 3.1 with PyTables 3.11. Each holds `FRAME` by 5 minutes from
2012-03-01 00:00, except that the two with integer labels are in the zone of Los Angeles.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from roadcast.domain.reading import OCCUPANCY, SPEED, VOLUME
from roadcast.domain.times import from_ms, rfc3339
from roadcast.errors import SourceError
from roadcast.sources.formats import Chunk, FormatOptions, SourceFile, open_source

FRAMES = Path(__file__).parent.parent / "data"
REAL = Path(__file__).parents[3] / "shared" / "data"
LOS_ANGELES = FormatOptions(timezone="America/Los_Angeles")
FRAME = [[64.375, 67.625, 0.0], [62.0, np.nan, -4.0], [0.0, 65.5, 151.0], [55.25, 60.0, 59.5]]
TEXT, INTEGERS = ["773869", "767541", "767542"], ["400001", "400017", "400030"]


def cells(chunks: list[Chunk], column: int = SPEED) -> dict[tuple[str, str], float]:
    """The readings' values of one variable by sensor and UTC time."""
    return {
        (batch.codes[sensor], rfc3339(from_ms(at_ms))): float(value)
        for batch in (chunk.batch for chunk in chunks)
        for sensor, at_ms, value in zip(batch.sensor, batch.at_ms, batch.values[:, column], strict=True)
    }


def read(path: Path, options: FormatOptions = LOS_ANGELES) -> tuple[SourceFile, list[Chunk]]:
    source = open_source(path, options)
    chunks = list(source.chunks())
    for chunk in chunks:
        assert len(chunk.batch) + chunk.rejected + chunk.missing == chunk.rows
    assert sum(chunk.rows for chunk in chunks) == source.rows
    return source, chunks


def real(name: str) -> Path:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("frame_fixed_text_labels.h5", TEXT),
        ("frame_table_text_labels.h5", TEXT),
        ("frame_fixed_integer_labels_zoned.h5", INTEGERS),
        ("frame_table_integer_labels_zoned_us.h5", INTEGERS),
    ],
)
@pytest.mark.parametrize("zone", ["America/Los_Angeles", "UTC"])
def test_each_layout_of_a_frame_reads_the_same(name: str, codes: list[str], zone: str) -> None:
    source, chunks = read(FRAMES / name, FormatOptions(timezone=zone))
    hour = "00" if zone == "UTC" and codes is TEXT else "08"
    assert cells(chunks) == {
        (codes[sensor], f"2012-03-01T{hour}:{5 * row:02}:00Z"): FRAME[row][sensor]
        for row, sensor in [(0, 0), (0, 1), (1, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2)]
    }
    assert (source.format, source.interval_s, source.conversions) == ("hdf5", 300, ["zeros read as missing: 2"])
    assert {sensor.sensor_id for sensor in source.sensors} == set(codes)
    assert [(r.index, r.field, r.value, r.reason) for chunk in chunks for r in chunk.rejections] == [
        (2, "speed", -4.0, f"expected 0 to 200 mph (sensor {codes[2]})"),
    ]


def test_columns_of_two_types_lie_in_two_blocks() -> None:
    _, chunks = read(FRAMES / "frame_fixed_two_blocks_us.h5")
    second = {when[14:16]: value for (code, when), value in cells(chunks).items() if code == "767541"}
    assert second == {"00": 67, "10": 65, "15": 60}


def test_zeros_of_a_frame_are_measured_where_the_options_say_so() -> None:
    _, chunks = read(FRAMES / "frame_fixed_text_labels.h5", FormatOptions(zero_is_missing=False))
    assert cells(chunks)["773869", "2012-03-01T00:10:00Z"] == 0


def test_compression_that_needs_a_plug_in_is_refused() -> None:
    with pytest.raises(SourceError, match=r"frame_fixed_blosc\.h5: compressed with blosc: .*complib='zlib'"):
        open_source(FRAMES / "frame_fixed_blosc.h5", LOS_ANGELES)


def rewritten(folder: Path, change: Any) -> Path:
    """A copy of a frame's file after `change` of its HDF5."""
    path = folder / "changed.h5"
    path.write_bytes((FRAMES / "frame_fixed_text_labels.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def test_the_shape_of_a_block_tells_its_rows(tmp_path: Path) -> None:
    def without_word(file: Any) -> None:
        del file["df/block0_values"].attrs["transposed"]

    def turned(file: Any) -> None:
        values = file["df/block0_values"][:]
        del file["df/block0_values"]
        file["df/block0_values"] = values.T

    whole = cells(read(FRAMES / "frame_fixed_text_labels.h5")[1])
    for change in (without_word, turned):
        assert cells(read(rewritten(tmp_path, change))[1]) == whole


def short(file: Any) -> None:
    values = file["df/block0_values"][:2]
    del file["df/block0_values"]
    file["df/block0_values"] = values


def by_number(file: Any) -> None:
    file["df/axis1"].attrs["kind"] = b"integer"


def twice(file: Any) -> None:
    file.copy("df", "again")


def unlabelled(file: Any) -> None:
    del file["df/block0_items"]


def plain(file: Any) -> None:
    del file["df"].attrs["pandas_type"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (by_number, "rows labelled by integer"),
        (twice, "HDF5 with again, df: expected one frame"),
        (unlabelled, "damaged or not what it seems"),
        (plain, "HDF5 with df: expected one frame"),
        (short, r"values of shape \(2, 3\): expected 4 rows of 3 columns"),
    ],
)
def test_other_hdf5_is_refused_in_one_line(tmp_path: Path, change: Any, found: str) -> None:
    with pytest.raises(SourceError, match=rf"changed\.h5: {found}") as caught:
        open_source(rewritten(tmp_path, change), LOS_ANGELES)
    assert "\n" not in str(caught.value)


def test_a_row_without_a_time_is_refused_as_a_whole(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        file["df/axis1"][1] = np.iinfo(np.int64).min

    _, chunks = read(rewritten(tmp_path, change))
    assert [(r.index, r.field) for r in chunks[0].rejections] == [(2, "timestamp")]
    assert chunks[0].rejected == 3


def test_a_long_frame_comes_in_chunks_and_bounded(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        rows = 70_000
        for name in ("axis1", "block0_values"):
            attributes = dict(file["df"][name].attrs)
            del file["df"][name]
            shape: tuple[int, ...] = (rows,) if name == "axis1" else (rows, 3)
            file["df"][name] = (
                (1_200_000_000 + 300 * np.arange(rows)) * 10**9 if name == "axis1" else np.full(shape, 50.0)
            )
            file["df"][name].attrs.update(attributes)

    source, chunks = read(rewritten(tmp_path, change), FormatOptions())
    assert source.rows == 210_000
    assert max(chunk.rows for chunk in chunks) <= 65_536
    assert sum(len(chunk.batch) for chunk in chunks) == 210_000


def los_loop(sensors: int = 2) -> dict[str, NDArray[Any]]:
    """A small file of the Los-loop's form, over the night in which clocks go back."""
    return {
        "speed": np.array([[60, 0], [61, 30], [62, np.nan]], dtype=np.float32),
        "sensor_id": np.array(["a", "b", "c"][:sensors]),
        "latitude": np.array([34.1, 34.2]),
        "longitude": np.array([-118.1, -118.2]),
        "adjacency": np.array([[1, 0.25], [0, 1]], dtype=np.float32),
        "start": np.array("2012-11-04T00:30:00"),
        "interval_s": np.array(1800),
    }


def saved(folder: Path, arrays: dict[str, NDArray[Any]]) -> Path:
    path = folder / "some.npz"
    np.savez(path, allow_pickle=False, **arrays)
    return path


def test_los_loop_has_its_links_from_the_kernel_and_reads_zero_as_missing(tmp_path: Path) -> None:
    source, chunks = read(saved(tmp_path, los_loop()))
    assert [(link.from_sensor, link.to_sensor, link.weight) for link in source.links] == [("a", "b", 0.25)]
    assert cells(chunks) == {
        ("a", "2012-11-04T07:30:00Z"): 60,
        ("a", "2012-11-04T08:00:00Z"): 61,
        ("b", "2012-11-04T08:00:00Z"): 30,
        ("a", "2012-11-04T08:30:00Z"): 62,
    }
    assert source.conversions == [
        "times in an hour that a clock change repeats, read as its first: 2",
        "zeros read as missing: 1",
    ]


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"some\.npz: latitude has shape \(2,\): expected \(3,\) for 3 sensors"):
        open_source(saved(tmp_path, los_loop(sensors=3)), LOS_ANGELES)


def radar() -> dict[str, NDArray[Any]]:
    nan = np.nan
    return {
        "milemarker": np.array([53.3, 54.1], dtype=np.float32),
        "unix_time": np.array([1_702_011_601, 1_702_011_631]),
        "speed_raw": np.array([[[80, 60, nan], [nan, nan, nan]], [[70, nan, nan], [10, 20, nan]]]),
        "volume_raw": np.array([[[1, 3, 0], [0, 0, nan]], [[2, nan, 1], [4, 4, nan]]]),
        "occ_raw": np.array([[[3, 6, 0], [0, 0, nan]], [[5, nan, 1], [50, 70, nan]]]),
    }


def test_radar_lanes_make_stations(tmp_path: Path) -> None:
    source, chunks = read(saved(tmp_path, radar()))
    first, second = "2023-12-08T05:00:01Z", "2023-12-08T05:00:31Z"
    near, far = "I24-MM53.3", "I24-MM54.1"
    assert cells(chunks) == pytest.approx(
        {(near, first): 65, (far, first): np.nan, (near, second): 70, (far, second): 15}, nan_ok=True
    )
    assert cells(chunks, VOLUME) == pytest.approx(
        {(near, first): 4, (far, first): 0, (near, second): np.nan, (far, second): 8}, nan_ok=True
    )
    assert cells(chunks, OCCUPANCY) == pytest.approx(
        {(near, first): 0.03, (far, first): 0, (near, second): np.nan, (far, second): 0.6}, nan_ok=True
    )
    assert [(sensor.road, sensor.direction, sensor.lanes) for sensor in source.sensors] == [
        ("I-24", "W", 3),
        ("I-24", "W", 2),
    ]
    assert [(link.from_sensor, link.to_sensor, link.distance_mi) for link in source.links] == [(far, near, 0.8)]


def test_the_real_week_of_los_angeles() -> None:
    path = real("los_loop.npz")
    source, chunks = read(path)
    raw = np.load(path)["speed"]
    assert (len(source.sensors), source.interval_s, source.rows) == (207, 300, 2016 * 207)
    np.testing.assert_array_equal(np.concatenate([chunk.batch.values[:, SPEED] for chunk in chunks]), raw.ravel())
    times = [rfc3339(from_ms(chunk.batch.at_ms[i])) for chunk, i in ((chunks[0], 0), (chunks[-1], -1))]
    assert times == ["2012-03-01T08:00:00Z", "2012-03-08T07:55:00Z"]
    assert (source.conversions, len(source.links)) == ([], 2626)


def test_the_real_morning_of_nashville() -> None:
    path = real("i24_radar_2023-12-08.npz")
    source, chunks = read(path)
    raw = np.load(path)
    station = {when: value for (code, when), value in cells(chunks, VOLUME).items() if code == "I24-MM60.4"}
    lanes = raw["volume_raw"][:, raw["milemarker"].tolist().index(np.float32(60.4)), :].astype(float)
    assert list(station.values()) == lanes.sum(axis=1)[~np.isnan(lanes).all(axis=1)].tolist()
    assert (len(source.sensors), len(source.links), source.interval_s) == (49, 48, 30)
    assert "lanes that never report, left out: 1" in source.conversions


def test_the_real_lane_of_pems() -> None:
    path = real("pems_single_lane.npz")
    source, chunks = read(path)
    assert list(cells(chunks, VOLUME).values()) == np.load(path)["flow"].tolist()
    assert source.interval_s == 300
    assert ("PEMS_LANE", "2016-01-04T08:00:00Z") in cells(chunks, VOLUME)
