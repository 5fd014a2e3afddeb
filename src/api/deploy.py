"""`python src/api/deploy.py --config development --install-deps`: an address that the mission's document promises."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from roadcast.bootstrap import deploy

if __name__ == "__main__":
    sys.exit(deploy(sys.argv[1:]))
