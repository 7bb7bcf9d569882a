"""What an environment is made of: one component a file."""
