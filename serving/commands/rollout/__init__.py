"""`comptoir rollout`: give a model a new revision, a share of the requests at a time."""
