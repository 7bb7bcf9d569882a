"""The laptop's AWS account and the engine's AWS provider."""
