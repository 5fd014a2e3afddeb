"""`from src.api.config import get_settings`: an address that the mission's document promises."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("roadcast") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from roadcast.settings import get_settings

__all__ = ["get_settings"]
