"""What real clients send, and what becomes of it."""
