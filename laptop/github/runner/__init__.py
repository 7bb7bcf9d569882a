"""Run workflows: order jobs, run their steps, keep logs and results."""
