"""The form of an answer of each API, and the ways in which one can end. Pure."""
