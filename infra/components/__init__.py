"""Components of an environment, one per module."""
