"""The engine's provider for `kubernetes:*` resources."""
