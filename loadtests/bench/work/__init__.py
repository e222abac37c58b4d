"""The effect of one request of the largest size on all others: how long it holds the event loop."""
