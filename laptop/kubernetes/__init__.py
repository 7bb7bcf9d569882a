"""The engine's Kubernetes provider."""
