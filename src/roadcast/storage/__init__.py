"""The only package that knows SQL. Functions take a `Reader` or a `Writer` first and never commit."""
