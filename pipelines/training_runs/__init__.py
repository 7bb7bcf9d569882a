"""Training runs and experiments: read, compare and draw them."""
