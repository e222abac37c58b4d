"""`comptoir up` and `down`: a whole stack on this machine."""
