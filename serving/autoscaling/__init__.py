"""Autoscaling: from the engines' load to a number of replicas. Pure, except for the adapter named *_ray."""
