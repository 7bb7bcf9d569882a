"""Monitors: scheduled jobs that watch a dataset and decide if something must happen."""
