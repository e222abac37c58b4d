"""The choice of a replica, and of the next one after a failure. Pure."""
