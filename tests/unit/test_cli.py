"""How the command line ends where something goes wrong."""

import subprocess
import sys

FAILS = """
import sys
from roadcast.cli import app, main

@app.command()
def fail() -> None:
    raise ZeroDivisionError("by zero")

main()
"""


def said(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", FAILS, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    return done.stderr


def test_what_nobody_foresaw_is_one_line_unless_the_trace_is_asked_for() -> None:
    assert said("fail") == "roadcast: unexpected ZeroDivisionError: by zero. roadcast --verbose shows the trace.\n"
    assert "Traceback" in said("--verbose", "fail")
