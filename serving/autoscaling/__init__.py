"""Autoscaling: from the engines' load to a number of replicas. Pure, but for the adapter named *_ray."""
