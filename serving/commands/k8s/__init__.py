"""`comptoir k8s`: manifests for Kubernetes from a deployment file, and the policy lint."""
