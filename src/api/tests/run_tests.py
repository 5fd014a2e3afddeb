"""`python src/api/tests/run_tests.py --type all`: an address that the mission's document promises."""

import signal
import sys
from pathlib import Path

signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C while this is read ends without a trace
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from roadcast.bootstrap import run_tests  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_tests(sys.argv[1:]))
