"""Promote bundles from one environment to the next: gates, deployment, rollback and history."""
