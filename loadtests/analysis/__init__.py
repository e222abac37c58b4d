"""From records to figures: statistics, summary, comparison, the search for the highest rate. Pure."""
