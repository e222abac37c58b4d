"""What a run leaves: its records, and the folder that holds them."""
