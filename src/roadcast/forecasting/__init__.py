"""Pure forecasting: forecasters behind one interface, their errors, and the engine that serves the best of them."""
