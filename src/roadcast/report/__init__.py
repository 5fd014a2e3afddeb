"""The report of a backtest: one HTML file that asks for nothing from anywhere."""
