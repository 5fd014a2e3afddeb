"""The model that is trained. Its versions may be of different forecasters."""

MODEL = "traffic"
"""Its name in the registry."""
