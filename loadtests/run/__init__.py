"""The result of a run: its records, and the folder that holds them."""
