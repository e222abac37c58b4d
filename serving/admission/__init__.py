"""Admission: which request goes next, and how many at once. Pure."""
