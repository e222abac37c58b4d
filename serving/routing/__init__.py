"""Routing: which model and which replica. Pure, but for the adapter named *_ray."""
