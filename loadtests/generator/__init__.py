"""Sends the load: Locust, its coordinator, senders, the HTTP client, and what watches them."""
