"""The only package that knows HTTP and WebSocket."""
