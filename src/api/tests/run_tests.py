"""`python src/api/tests/run_tests.py --type all`: an address that the mission's document promises."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from roadcast.bootstrap import run_tests

if __name__ == "__main__":
    sys.exit(run_tests(sys.argv[1:]))
