"""Commands that the laptop adds to `mlops`, imported on first use."""

from __future__ import annotations

from pipelines.cli.commands import Verb

SECTION = "Laptop"

LAPTOP = Verb("laptop.cli.laptop:laptop", "Run an AWS account and a cluster on this machine.", SECTION)
GITHUB = Verb("laptop.cli.github:github", "Run pull requests and workflows on this machine.", SECTION)
DEMO = Verb("laptop.demo.journey:demo", "Show the whole journey from data to prod on this machine.", SECTION)
