"""Rolling changes: the Serve config that comes next while a model gets a new revision."""
