"""A real run of the autoscaling beside a simulated one of the same arrivals."""
