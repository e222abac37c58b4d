"""Sends the load: Locust, its coordinator, senders, the HTTP client, and the watches on them."""
