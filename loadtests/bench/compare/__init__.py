"""Comptoir beside other servers: the same model, the same engine arguments, one run, taking turns."""
