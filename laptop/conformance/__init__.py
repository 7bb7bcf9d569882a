"""Checks of the laptop against the real engines: the Pulumi CLI, the API server and the controllers."""
