"""The command line `mlops`: the one way in for people, workflows and the Makefile."""

from pipelines.cli.main import main

__all__ = ["main"]
