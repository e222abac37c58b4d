"""Simulated engines, and the policies that are compared on them.

Three models of an engine, each with what its question needs:

- `queueing.BatchingModel`, step times of a continuous batch: how much do replicas carry?
- `autoscaling.replicas.ReplicaModel`, slots, a queue and cold starts: how many replicas should there be?
- `routing.engines.CachingModel`, a prefix cache beside prefill and decode: which replica gets a request?
"""
