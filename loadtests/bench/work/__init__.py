"""What one request of the largest size may do to all others: how long it holds the event loop."""
