"""The Kubernetes API: configuration, credentials, requests, and a watched copy of a collection."""
