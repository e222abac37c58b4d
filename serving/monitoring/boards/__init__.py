"""The dashboards: one for each question, and the parts that they share."""
