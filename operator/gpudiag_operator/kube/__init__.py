"""Kubernetes access of the operator: a small raw client, the reflector, label selectors."""
