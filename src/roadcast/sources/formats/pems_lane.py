"""One lane of Caltrans PeMS as an npz file: vehicles in 5 minutes, by stamps on the local clock."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from roadcast.domain.sensor import Sensor
from roadcast.errors import SourceError
from roadcast.sources.formats.source_file import Chunk, FormatOptions, Notes, SourceFile
from roadcast.sources.formats.tables import Arrays, Table, of_variable
from roadcast.sources.formats.units import Meaning

KEYS = frozenset({"flow", "time"})
SENSOR = "PEMS_LANE"


def open_pems_lane(path: Path, arrays: Arrays, options: FormatOptions) -> SourceFile:
    """The file as a source."""
    flow = arrays["flow"].astype(np.float64).reshape(-1, 1)
    stamps = arrays["time"].astype("datetime64[ms]").astype(np.int64)
    if stamps.shape != (len(flow),):
        raise SourceError(f"{path}: time has shape {stamps.shape}: expected {(len(flow),)}, as flow")
    table = Table([SENSOR], stamps, utc=False, values=lambda start, stop: of_variable(flow[start:stop], "volume"))
    meaning = Meaning(zero_is_missing=bool(options.zero_is_missing))

    def read(notes: Notes) -> Iterator[Chunk]:
        return table.chunks(options, meaning, notes)

    return SourceFile(path, "pems_lane", [Sensor(SENSOR, lanes=1)], [], table.interval_s, table.cells, read)
