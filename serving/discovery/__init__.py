"""Discovery: the models and replicas of the site. Pure, except for the adapters named *_ray."""
