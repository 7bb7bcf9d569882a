"""The emulated AWS account of the local target, and the provider that applies AWS resources to it."""
