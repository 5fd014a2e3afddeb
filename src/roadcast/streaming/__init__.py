"""The durable log: what is promised, the messages, and the implementations."""
