"""The command line `mlops`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from pipelines.cli.commands import LazyGroup, Verb, plugin_verbs
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.outside_errors import explain
from pipelines.declarations.printable import log_line
from pipelines.github.workflow_run import stop_commands
from pipelines.startup import relax_gc, report_nothing

ENVIRONMENTS, DATA, MODELS = "Environments", "Data", "Models"
RELEASES, REPOSITORY, WORKFLOWS = "Releases", "Repository", "Workflows"

VERBS = {
    "doctor": Verb(
        "pipelines.cli.environments:doctor", "Check this machine and the target for missing requirements.", ENVIRONMENTS
    ),
    "preview": Verb("pipelines.cli.environments:preview", "Preview the changes that `up` would make.", ENVIRONMENTS),
    "up": Verb("pipelines.cli.environments:up", "Create or update an environment.", ENVIRONMENTS),
    "destroy": Verb("pipelines.cli.environments:destroy", "Remove an environment that is not protected.", ENVIRONMENTS),
    "refresh": Verb(
        "pipelines.cli.environments:refresh",
        "Update the state of an environment from its real resources.",
        ENVIRONMENTS,
    ),
    "unlock": Verb(
        "pipelines.cli.environments:unlock", "Remove the lock that a dead process left on an environment.", ENVIRONMENTS
    ),
    "outputs": Verb(
        "pipelines.cli.environments:outputs", "Print the stack outputs of an environment as JSON.", ENVIRONMENTS
    ),
    "audit": Verb(
        "pipelines.cli.environments:audit", "Compare an environment and what it serves with git.", ENVIRONMENTS
    ),
    "status": Verb(
        "pipelines.cli.operations:status", "Show releases, rollouts, alarms, monitors and responses.", ENVIRONMENTS
    ),
    "logs": Verb(
        "pipelines.cli.operations:logs", "Show the logs of a model's pods, or of a job's newest run.", ENVIRONMENTS
    ),
    "images": Verb("pipelines.cli.environments:images", "Set the images that an environment runs.", ENVIRONMENTS),
    "cluster": Verb("pipelines.cli.environments:cluster", "Prepare the cluster of an environment.", ENVIRONMENTS),
    "land": Verb("pipelines.cli.models:land", "Check a data file against its contract and upload it.", DATA),
    "ingest": Verb("pipelines.cli.models:ingest", "Ingest landing files now: check them and append them.", DATA),
    "data": Verb("pipelines.cli.data:data", "Manage landing files, quarantined rows and versions of datasets.", DATA),
    "contract": Verb("pipelines.cli.contracts:contract", "Check, compare, show and draft data contracts.", DATA),
    "catalog": Verb("pipelines.cli.datasets:catalog", "List, search and render the datasets.", DATA),
    "lineage": Verb(
        "pipelines.cli.lineage_queries:lineage", "Trace bundles back to landing files, and data to releases.", DATA
    ),
    "monitor": Verb("pipelines.cli.monitors:monitor", "Run monitors and read their reports.", DATA),
    "new": Verb("pipelines.cli.models:new", "Create a new model or environment.", MODELS),
    "train": Verb("pipelines.cli.models:train", "Train a model in an environment and register its bundle.", MODELS),
    "runs": Verb("pipelines.cli.run_queries:runs", "List, show and compare training runs and experiments.", MODELS),
    "predict": Verb(
        "pipelines.cli.models:predict", "Send a request to an endpoint, or predict many rows by a job.", MODELS
    ),
    "release": Verb(
        "pipelines.cli.releases:release", "Write a bundle into a release file after verifying it.", RELEASES
    ),
    "propose": Verb(
        "pipelines.cli.releases:propose", "Open or update the pull request that releases a bundle.", RELEASES
    ),
    "deploy": Verb("pipelines.cli.releases:deploy", "Deploy the merged releases of an environment.", RELEASES),
    "rollback": Verb(
        "pipelines.cli.releases:rollback", "Return to the last good bundle: traffic first, then git.", RELEASES
    ),
    "withdraw": Verb("pipelines.cli.models:withdraw", "Write a release file that withdraws a model.", RELEASES),
    "stop": Verb("pipelines.cli.releases:stop", "Stop the bundle that is on trial; the live one stays.", RELEASES),
    "history": Verb("pipelines.cli.releases:history", "Show the promotions and rollbacks of a model.", RELEASES),
    "validate": Verb(
        "pipelines.cli.repository:validate", "Validate all declarations, alone and against each other.", REPOSITORY
    ),
    "schemas": Verb("pipelines.cli.repository:schemas", "Export the JSON Schemas of the declarations.", REPOSITORY),
    "github": Verb("pipelines.cli.github_setup:github", "Set up the repository on GitHub.", REPOSITORY),
    "completion": Verb("pipelines.cli.repository:completion", "Print the completion script of a shell.", REPOSITORY),
    "ci": Verb("pipelines.cli.ci:ci", "Commands that workflows run.", WORKFLOWS),
}

TRACEBACK = "MLOPS_TRACEBACK"
"""Environment variable: if it is set, errors of the machine, AWS and the cluster are shown with their tracebacks."""

RENAMED = {
    "check": "mlops validate",
    "gates": "mlops ci judge",
    "plan": "mlops ci select",
    "local": "mlops laptop",
    "output": "mlops outputs",
    "connect": "mlops ci use-cluster",
    "review": "mlops ci review",
    "respond": "mlops ci respond",
    "propose-next": "mlops ci propose-next",
}
"""Former name of a command → its name now."""


class Root(LazyGroup):
    """Group of the built-in commands and those of installed plugins."""

    def verbs(self, ctx: click.Context) -> dict[str, Verb]:
        return {**VERBS, **{name: verb for name, verb in plugin_verbs().items() if name not in VERBS}}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        built_in = VERBS.get(cmd_name)  # look plugins up only if needed
        return built_in.load() if built_in is not None else super().get_command(ctx, cmd_name)


@click.group(cls=Root, renamed=RENAMED, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mlops", prog_name="mlops", message="%(prog)s %(version)s")
def mlops() -> None:
    """Run machine-learning models on AWS and Kubernetes by pull request."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line, and return its exit status.

    Errors for people are printed without a traceback: status 1 if a command failed, 2 for a usage error.

    Raises:
        Exception: a fault of this program.
    """
    relax_gc()
    report_nothing()
    stop_commands()
    try:
        status = mlops.main(args=arguments, prog_name="mlops", standalone_mode=False)
        sys.stdout.flush()  # a full disk shows here
        return status
    except MlopsError as error:
        return _fail(str(error), 1)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.UsageError as error:
        help_command = f"{error.ctx.command_path} --help" if error.ctx is not None else "mlops --help"
        return _fail(f"{error.format_message()}\n  fix: see {help_command}", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.Abort:
        return _fail("interrupted", 1)
    except Exception as error:
        outside = None if os.environ.get(TRACEBACK) else explain(error)
        if outside is None:
            raise
        _discard_unwritable_output()
        return 1 if isinstance(error, BrokenPipeError) else _fail(str(outside), 1)


def _discard_unwritable_output() -> None:
    """Keep Python from reporting at its end that it cannot flush standard output: to a full disk, or a closed pipe."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, status: int) -> int:
    """Print an error, which may quote others: names of objects, answers of servers."""
    click.secho("error: ", nl=False, err=True, fg="red", bold=True)
    click.echo("\n".join(map(log_line, message.split("\n"))), err=True)
    return status
