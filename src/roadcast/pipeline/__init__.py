"""The loops: each reads, calls pure code, writes and publishes."""
