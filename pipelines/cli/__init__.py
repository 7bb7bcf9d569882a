"""Command line `mlops`, used by people, workflows and the Makefile alike."""

from pipelines.cli.main import main

__all__ = ["main"]
