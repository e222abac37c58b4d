"""Discovery: which models and replicas there are. Pure, but for the adapters named *_ray."""
