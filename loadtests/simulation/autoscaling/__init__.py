"""A simulator of replicas that are scaled: traces, replicas with queues and cold starts, policies."""
