"""Options that several commands share."""

from __future__ import annotations

from typing import Any

import click

from pipelines.targets import default_target, open_target, target_names

__all__ = ["environment_option", "open_target", "target_option"]


class _TargetType(click.ParamType[str]):
    """Name of an installed target; checked when a command runs, so that `--help` stays fast."""

    name = "target"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        names = target_names()
        if value not in names:
            self.fail(f"{value!r} is not one of {', '.join(names)}", param, ctx)
        return str(value)


target_option = click.option(
    "--target",
    type=_TargetType(),
    default=default_target,
    metavar="NAME",
    help="Where the environments live: aws or laptop. [env: MLOPS_TARGET; default: laptop if installed]",
)

environment_option = click.option("--env", "environment", required=True, help="dev, staging, prod, …")
