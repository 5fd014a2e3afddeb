"""What every format gives: a `SourceFile`, whose readings come in chunks."""

import csv
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from zipfile import BadZipFile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from roadcast.domain.reading import VARIABLES, ReadingBatch, Rejection
from roadcast.domain.sensor import EXPECTED_CODE, LONGEST_CODE, Link, Sensor, is_code
from roadcast.domain.times import to_ms
from roadcast.domain.units import Units
from roadcast.errors import SourceError
from roadcast.sources.formats.units import Meaning

CHUNK_CELLS = 65_536
"""About how many cells or rows a chunk holds, which bounds memory."""

Notes = Counter[str]
"""What was done to a file's data, and how often."""


LATEST_MS = to_ms(datetime(9999, 1, 1, tzinfo=UTC))
"""Later times cannot be told on every local clock."""


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """What a file does not say about itself.

    timezone: of stamps without an offset. locations, distances: files that describe the sensors, looked for
    beside the file where not given. speed_unit, density_unit: of a CSV; by default those of `units`. variable: what
    the cells of a table by sensors hold. zero_is_missing: whether 0 is a code for missing; None leaves it to the
    format. latest_ms: the latest time that a row can have.

    Raises:
        SourceError: naming the option, its value and what was expected.
    """

    timezone: str = "UTC"
    locations: Path | None = None
    distances: Path | None = None
    speed_unit: str | None = None
    density_unit: str | None = None
    occupancy_unit: str = "fraction"
    variable: str = "speed"
    zero_is_missing: bool | None = None
    units: Units = Units.US
    latest_ms: int = LATEST_MS

    def __post_init__(self) -> None:
        self.meaning(zero_is_missing=False)
        if self.variable not in VARIABLES:
            raise SourceError(f"variable {self.variable!r}: expected {', '.join(VARIABLES)}")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise SourceError(f"timezone {self.timezone!r}: expected a name such as America/Los_Angeles") from None

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of stamps without an offset."""
        return ZoneInfo(self.timezone)

    def meaning(self, *, zero_is_missing: bool, units: Units | None = None) -> Meaning:
        """What numbers mean in a format that fixes no units; zero_is_missing, units: where nothing is said."""
        zero = zero_is_missing if self.zero_is_missing is None else self.zero_is_missing
        usual = self.units if units is None else units
        speed, density = self.speed_unit or usual.speed_unit, self.density_unit or usual.density_unit
        return Meaning(speed, "vehicles", density, self.occupancy_unit, zero)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive cells (of a table by sensors) or rows (one reading each) of a file.

    len(batch) + rejected + missing = rows, always. A rejection's index is the number of the data row, from 1,
    headers not counted; a row of a table whose time is bad is one rejection and as many rejected cells as it has.
    """

    batch: ReadingBatch
    rejections: list[Rejection]
    rejected: int
    missing: int
    rows: int


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of readings whose format was recognised.

    sensors, links: what the file and those beside it say of the network; batches may name further sensors.
    rows: how many cells or rows are expected, where known beforehand.
    """

    path: Path
    format: str
    sensors: list[Sensor]
    links: list[Link]
    interval_s: int | None
    rows: int | None
    read: Callable[[Notes], Iterator[Chunk]] = field(repr=False)
    notes: Notes = field(default_factory=Notes)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def conversions(self) -> list[str]:
        """What was converted, ignored or decided, counted. Complete once `chunks` has been read to its end."""
        return [f"{what}: {count:,}" for what, count in self.notes.items()]

    def chunks(self) -> Iterator[Chunk]:
        """The readings, in the file's order. In a file in time order no chunk splits a time stamp.

        Raises:
            SourceError: where the file cannot be read on.
        """
        self.notes.clear()
        with readable(self.path):
            yield from self.read(self.notes)


def expect_codes(path: Path, codes: Iterable[str]) -> None:
    """Refuse a table by sensors with a sensor that cannot be named.

    Raises:
        SourceError: naming it.
    """
    for code in codes:
        if not is_code(code):
            raise SourceError(f"{path}: sensor {code[:LONGEST_CODE]!r}: {EXPECTED_CODE}")


@contextmanager
def readable(path: Path) -> Generator[None]:
    """Turn what a damaged or absent file raises into a `SourceError` that names it."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8 text (byte {error.start}).", remedy="Convert it to UTF-8.") from error
    except (EOFError, zlib.error, BadZipFile, csv.Error, ValueError, KeyError) as error:
        raise SourceError(f"{path}: damaged or not what it seems: {error}") from error
