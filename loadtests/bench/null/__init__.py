"""The gateway alone: an engine that does nothing behind it and a client that costs little before it."""
