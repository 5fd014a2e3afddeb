"""`python src/api/deploy.py --config development --install-deps`: an address that the mission's document promises."""

import signal
import sys
from pathlib import Path

signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C while this is read ends without a trace
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from roadcast.bootstrap import deploy  # noqa: E402

if __name__ == "__main__":
    sys.exit(deploy(sys.argv[1:]))
