"""The log's two ends: standard output, whose reader may go, and a file, which may be moved or refuse."""

import os
import subprocess
import sys
from pathlib import Path

SAY = """
import sys, structlog
from roadcast import telemetry
telemetry.set_up("INFO", "json", __import__("pathlib").Path(sys.argv[1]))
log = structlog.get_logger()
for line in sys.stdin:
    log.info(line.strip())
    sys.stderr.write(line)
    sys.stderr.flush()
"""


def speaker(file: Path, **pipes: object) -> subprocess.Popen[str]:
    """Logs each line that it is told, and repeats it on standard error once it has."""
    return subprocess.Popen(
        [sys.executable, "-c", SAY, str(file)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **pipes
    )


def told(process: subprocess.Popen[str], line: str) -> None:
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    assert process.stderr.readline().strip() == line


def test_a_file_that_is_moved_away_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "log" / "app.log"
    with speaker(file, stdout=subprocess.PIPE) as process:
        told(process, "before")
        file.rename(tmp_path / "log" / "app.log.1")
        told(process, "after")
        process.stdin.close()
    assert "before" in (tmp_path / "log" / "app.log.1").read_text()
    assert "after" in file.read_text()
    assert "before" not in file.read_text()


def test_a_file_that_refuses_is_one_warning(tmp_path: Path) -> None:
    with speaker(Path("/dev/full"), stdout=subprocess.PIPE) as process:
        for line in ("one", "two", "three"):
            told(process, line)
        process.stdin.close()
        said = process.stdout.read()
        assert process.stderr.read() == ""
    assert said.count("cannot be written") == 1
    assert all(line in said for line in ("one", "two", "three"))


def test_a_reader_that_goes_away_is_not_missed(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    file = tmp_path / "app.log"
    with speaker(file, stdout=writing) as process:
        os.close(writing)
        os.close(reading)
        for line in ("one", "two"):
            told(process, line)
        process.stdin.close()
        assert "Traceback" not in process.stderr.read()
    assert "two" in file.read_text()
