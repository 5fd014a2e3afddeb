"""Versions of models: kept whole, never changed, refused when damaged, and named by aliases with a history."""
