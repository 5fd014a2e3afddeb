"""Roadcast: real-time traffic prediction. Importing it reads no environment and opens nothing."""

__version__ = "0.1.0"
