"""What goes from one environment to the next, and what may stop it."""
