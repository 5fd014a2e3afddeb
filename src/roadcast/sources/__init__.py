"""Where readings come from: files of many formats, their replay, and the simulated corridor's feed."""
