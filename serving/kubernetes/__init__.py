"""Manifests for KubeRay, made from a deployment file. Pure: no client, no Ray, no I/O."""
