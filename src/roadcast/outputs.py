"""Where lines of a log go: each output has a thread of its own, so that one that is slow or stuck holds nobody up."""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger(__name__)

WAITING_LINES = 10_000
"""Lines that may wait for a reader who is slow; those that come after are dropped, and counted."""
FLUSH_PATIENCE_S = 2.0
"""How long an output may take at the end to be given what still waits."""
FILE_PAUSE_S = 60.0
"""How long a file that could not be written is left alone."""


class Aside(logging.Handler):
    """Leaves the writing of lines to a thread of its own, so that an output that nobody reads holds nobody up.

    Where lines had to be dropped, a line `log_dropped` in their place says how many.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write
        self._waiting: queue.Queue[str] = queue.Queue(WAITING_LINES)
        self._dropped = 0
        threading.Thread(target=self._work, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put one line in the queue."""
        try:
            line = self.format(record)
            self._tell_dropped()
            self._waiting.put_nowait(line)
        except queue.Full:
            self._dropped += 1
        except Exception:  # noqa: BLE001 - as logging has it: what cannot be said ends nobody who says it
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all is written, for FLUSH_PATIENCE_S at most."""
        deadline_s = time.monotonic() + FLUSH_PATIENCE_S
        self._wait_until(deadline_s)
        with suppress(queue.Full):
            self._tell_dropped()
        self._wait_until(deadline_s)

    def _wait_until(self, deadline_s: float) -> None:
        with self._waiting.all_tasks_done:
            self._waiting.all_tasks_done.wait_for(
                lambda: not self._waiting.unfinished_tasks, max(0.0, deadline_s - time.monotonic())
            )

    def _tell_dropped(self) -> None:
        if self._dropped:
            self._waiting.put_nowait(self.format(_dropped(self._dropped)))
            self._dropped = 0

    def _work(self) -> None:
        while True:
            line = self._waiting.get()
            with suppress(OSError):  # whoever read it is gone; we go on
                self._write(line)
            self._waiting.task_done()


def _dropped(lines: int) -> logging.LogRecord:
    told = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "msg": "log_dropped", "lines": lines}
    return logging.makeLogRecord(told)


def write_line(descriptor: int, line: str) -> None:
    """Write a line without a buffer, whose lock would be held by the thread that waits at the end."""
    rest = f"{line}\n".encode(errors="backslashreplace")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class LogFile:
    """A file, also after it was moved away. One that cannot be written, as on a full disk, rests for a while.

    Each time one warning says so.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._rests_until_s = 0.0

    def write(self, line: str) -> None:
        """Write one line, unless the file rests."""
        if time.monotonic() < self._rests_until_s:
            return
        try:
            if self._is_moved():
                self._file.close()
                self._file = self._path.open("ab", buffering=0)
            write_line(self._file.fileno(), line)
        except OSError:
            self._rests_until_s = time.monotonic() + FILE_PAUSE_S
            detail = f"{self._path} cannot be written; it is tried again in {FILE_PAUSE_S:.0f} s."
            _log.warning("log_file", extra={"detail": detail})

    def _is_moved(self) -> bool:
        try:
            return self._file.closed or not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return True
