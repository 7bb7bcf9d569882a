"""Commands for people on call: the state of environments, and logs."""

from __future__ import annotations

import json
import re

import click

from pipelines.cli.commands import Command
from pipelines.cli.options import environment_option, open_target, target_option
from pipelines.declarations.project import Project
from pipelines.targets import find_target

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_COLOURS = {"alarm": "red", "response": "yellow"}
"""First word of a line → its colour."""


@click.command(cls=Command)
@click.option("--env", "environment", default="", metavar="NAME", help="Only this environment; all by default.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@target_option
def status(environment: str, as_json: bool, target: str) -> None:
    """Show releases, rollouts, alarms, monitors and responses.

    Read-only. What cannot be read is shown as `not visible`, with the reason.
    """
    from pipelines.promotion.status import read_status
    from pipelines.promotion.status_lines import status_json, status_lines

    opened = find_target(target, Project.find())  # a target that cannot be reached is not visible
    names = [environment] if environment else list(opened.project.environments)
    found = [read_status(opened, name) for name in names]
    if as_json:
        click.echo(json.dumps(status_json(found), indent=2, ensure_ascii=False))
        return
    for one in found:
        first, *others = status_lines(one)
        click.secho(first, bold=True)
        for line in others:
            click.secho(line, fg=_COLOURS.get(line.split()[0]))


def _seconds(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """Convert `30s`, `10m`, `2h` or `1d` to seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,5})([smhd])", text)
    if match is None:
        raise click.BadParameter(f"expected a number with s, m, h or d, such as 10m; found {text!r}")
    return int(match[1]) * _UNITS[match[2]]


@click.command(cls=Command)
@click.argument("name")
@environment_option
@click.option("--follow", is_flag=True, help="Wait for further lines, until Ctrl-C.")
@click.option("--since", metavar="TIME", callback=_seconds, help="Only lines of the last 30s, 10m, 2h, …")
@target_option
def logs(name: str, environment: str, follow: bool, since: int | None, target: str) -> None:
    """Show the logs of a model's pods, or of a job's newest run.

    NAME is a model, a job such as `train-churn`, `predict-churn` or `ingest-customers`, or `spark` or `spark-worker`.
    """
    from pipelines.cluster.pod_logs import show_logs
    from pipelines.declarations.names import serving_name
    from pipelines.declarations.spark_jobs import SPARK_WORKLOADS

    opened = open_target(target)
    config = opened.project.stack(environment).config.environment
    namespace, workload = config.namespace, name
    if name in opened.project.model_names:
        workload = serving_name(name)
    elif name in SPARK_WORKLOADS:
        namespace, workload = config.spark_namespace, SPARK_WORKLOADS[name]
    with opened.using_cluster(environment):
        show_logs(namespace, workload, click.echo, follow=follow, since_seconds=since)
