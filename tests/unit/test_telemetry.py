"""The log's two ends: standard output, whose reader may go or sleep, and a file, which may be moved or refuse."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from roadcast.outputs import FLUSH_PATIENCE_S

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


LINES = 30_000
POUR = f"""
import sys, structlog
from roadcast import telemetry
telemetry.set_up("INFO", "json", None)
log = structlog.get_logger()
for number in range({LINES}):
    log.info("poured", number=number)
sys.stderr.write("done")
sys.stderr.flush()
sys.stdin.read()
log.info("poured", number={LINES})
"""
"""More lines than a pipe and the queue hold; once told to, another one."""


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
        while "before" not in file.read_text():
            time.sleep(0.01)
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


def pouring() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", POUR],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_reader_that_sleeps_holds_nobody_up_and_learns_what_it_missed() -> None:
    with pouring() as process:
        assert process.stderr.read(4) == "done"  # though nobody has read a line
        said = [process.stdout.readline() for _ in range(LINES // 10)]
        process.stdin.close()
        said += process.stdout
    lines = [json.loads(line) for line in said]
    numbers = [line["number"] for line in lines if line["event"] == "poured"]
    dropped = sum(line["lines"] for line in lines if line["event"] == "log_dropped")
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == LINES
    assert dropped > 0
    assert len(numbers) + dropped == LINES + 1


def test_a_reader_that_sleeps_on_does_not_keep_it_from_ending() -> None:
    with pouring() as process:
        assert process.stderr.read(4) == "done"
        process.stdin.close()
        assert process.wait(FLUSH_PATIENCE_S + 8) == 0
