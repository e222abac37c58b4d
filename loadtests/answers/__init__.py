"""What an answer of each API must look like, and the ways in which one can end. Pure."""
