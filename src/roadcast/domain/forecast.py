"""Forecasts: how far they reach, and which quantiles they have."""

QUANTILES = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95)
"""The quantile levels of every forecast, in this order."""

LONGEST_MINUTES = 120
"""The longest horizon that can be asked for."""

QUANTILE_NAMES = tuple(f"p{round(level * 100):02d}" for level in QUANTILES)
