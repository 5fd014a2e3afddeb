"""The pictures, read back as files."""

import struct
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from roadcast.charts import draw_corridor, fundamental_diagram, time_space_diagram
from roadcast.flow.corridor import simulate_days
from roadcast.flow.road import demo_corridor


def title_of(path: Path) -> str:
    """The title in a PNG's metadata, which is the one drawn."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    position = 8
    while position < len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        body = content[position + 8 : position + 8 + length]
        if kind == b"tEXt" and body.startswith(b"Title\0"):
            return body[6:].decode("latin-1")
        position += length + 12
    return ""


def test_every_picture_of_a_simulated_day_says_so(tmp_path: Path):
    corridor = demo_corridor()
    day = simulate_days(corridor, 1, [date(2026, 1, 13)], with_cells=True)[0]
    paths = draw_corridor(tmp_path / "pictures", day, corridor)
    assert {path.name for path in paths} == {
        "time-space-N.png", "time-space-S.png", "fundamental-N.png", "fundamental-S.png",
    }  # fmt: skip
    for path in paths:
        assert "(simulated)" in title_of(path)
        assert "Tuesday 13 January 2026" in title_of(path)


def test_a_day_without_cells_cannot_be_drawn(tmp_path: Path):
    corridor = demo_corridor()
    day = simulate_days(corridor, 1, [date(2026, 1, 13)])[0]
    with pytest.raises(ValueError, match="2026-01-13 holds no cells"):
        draw_corridor(tmp_path, day, corridor)


def test_real_data_with_gaps_is_drawn_without_the_word(tmp_path: Path):
    speed = np.full((12, 3), 60.0)
    speed[4:6, 1] = np.nan
    miles = np.array([0.0, 0.4, 1.1, 1.5])
    path = time_space_diagram(tmp_path / "space.png", speed, np.arange(13) / 12, miles, title="A road")
    assert title_of(path) == "A road"
    path = fundamental_diagram(tmp_path / "flow.png", np.array([0, 20, np.nan]), np.array([0, 1200, 900.0]), title="B")
    assert title_of(path) == "B"
