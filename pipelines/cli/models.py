"""Commands for data and models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.commands import Command, Group
from pipelines.cli.options import environment_option, log, open_target, record_output, target_option
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.plurals import counted
from pipelines.declarations.project import Project
from pipelines.declarations.service_level import FREQUENCY

if TYPE_CHECKING:
    from pipelines.targets import Target
    from pipelines.targets.training_due import Unless

TASKS = ("classification", "regression")


@click.command(cls=Command)
@click.argument("dataset")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--check", "only_check", is_flag=True, help="Only check the file; needs no account.")
@environment_option
@target_option
def land(dataset: str, file: Path, only_check: bool, environment: str, target: str) -> None:
    """Check a data file against its contract and upload it.

    Uploads FILE to the landing bucket of DATASET, where the ingest job reads it. A landed file is never
    replaced. Rows whose key is already in the table are found only at ingestion.
    """
    from pipelines.data import landing
    from pipelines.data.row_quarantine import reason_lines
    from pipelines.targets import find_target

    project = Project.find()
    project.check_trains(environment)
    contract = project.contract(dataset)
    summary = landing.check_file(contract, file)
    click.echo(f"{file.name}: {summary.good} of {summary.rows} rows keep version {contract.version} of the contract")
    if summary.quarantined:
        click.echo(f"{summary.quarantined} will go to quarantine:")
        for line in reason_lines(summary.reasons):
            click.echo(f"  {line}")
    for warning in summary.warnings:
        click.echo(f"warning: {warning}")
    if summary.unchecked:
        click.echo(f"Not checked here, because they read tables: {', '.join(summary.unchecked)}")
    if summary.good == 0:
        raise MlopsError(
            f"{file} is not uploaded: expected rows that keep the contract, found none", fix="correct the file"
        )
    if only_check:
        return
    find_target(target, project).connect_account()
    place = landing.landing_bucket(project, environment)
    click.echo(f"landed {landing.upload(place, dataset, file)}")
    schedule = contract.ingest_schedule
    if schedule:
        click.echo(f"Next: the job ingest-{dataset} reads it on its schedule ({schedule}, UTC).")
    else:
        click.echo(f"Next: ingest it. The contract has no {FREQUENCY}, so no schedule does.")
    click.echo(f"To ingest now: run the workflow `ingest`, or mlops ingest {dataset} --env {environment}")


@click.command(cls=Command)
@click.argument("dataset")
@click.option("--file", default="", metavar="NAME", help="Ingest this landing file only; default: every new one.")
@environment_option
@target_option
def ingest(dataset: str, file: str, environment: str, target: str) -> None:
    """Ingest landing files now: check them and append them.

    Runs the ingest job of DATASET without waiting for its schedule. Rows that break the contract go to quarantine with
    the reasons. To upload a file, use `mlops land`.
    """
    from pipelines.targets.training_due import models_due
    from pipelines.targets.workloads import run_ingest

    opened = open_target(target)
    failure: MlopsError | None = None
    try:
        run_ingest(opened, environment, dataset, log, file=file)
    except MlopsError as error:
        failure = error
    try:  # also after a failure: a job that refuses one file has appended the others
        due = models_due(opened, environment, dataset)
    except MlopsError as error:
        raise failure or error from None
    record_output("models", " ".join(due))
    for model in due:
        click.echo(f"New data for {model}: mlops train {model} --env {environment}")
    if failure is not None:
        raise failure


@click.group(cls=Group)
def new() -> None:
    """Create a new model or environment."""


@new.command()
@click.argument("name")
@click.option(
    "--task", type=click.Choice(TASKS), default="classification", show_default=True, help="What the model predicts."
)
@click.option("--owner", default="ml-platform", show_default=True, help="Team that owns the model.")
@click.option("--contract", "dataset", metavar="DATASET", help="Existing contract to train on; needs --target.")
@click.option("--target", metavar="COLUMN", help="With --contract: column to predict.")
def model(name: str, task: str, owner: str, dataset: str | None, target: str | None) -> None:
    """Create the model NAME, with an example contract and sample data.

    The new model passes the tests unchanged. With --contract, its features are all suitable columns of the contract;
    edit them and the bounds in model.yaml.
    """
    from pipelines.declarations.starter import start_model, start_model_on

    project = Project.find()
    if (dataset is None) != (target is None):
        raise click.UsageError("--contract and --target: give both, or neither")
    if dataset is not None and target is not None:
        for path in start_model_on(project, name, task, owner, dataset, target):
            click.echo(f"wrote {path.relative_to(project.root)}")
        if not project.samples(dataset):
            click.echo(f"Next: add a sample without personal data: data-contracts/samples/{dataset}.csv")
        click.echo(
            f"Next: edit models/{name}/model.yaml and train.py; then run `mlops validate`, `mlops train {name} --here` "
            "and `make test`."
        )
        return
    for path in start_model(project, name, task, owner):
        click.echo(f"wrote {path.relative_to(project.root)}")
    click.echo(
        f"Next: write your columns into the contract, or draft one from a data file with `mlops contract init`; edit "
        f"models/{name}/train.py; then run `mlops validate`, `mlops train {name} --here` and `make test`."
    )


@new.command()
@click.argument("name")
@click.option("--after", required=True, metavar="ENV", help="Environment that it promotes from.")
@click.option("--cluster", metavar="NAME", help="Its EKS cluster; suggested: PROJECT-NAME.")
@click.option("--namespace", metavar="NAME", help="Its Kubernetes namespace; suggested: models-NAME.")
@click.option("--region", metavar="REGION", help="Its AWS region; default: as in ENV.")
@click.option("--disposable", is_flag=True, help="Its data may be deleted with it.")
@click.option("--share-cluster", is_flag=True, help="Allow the cluster of another environment.")
def environment(
    name: str,
    after: str,
    cluster: str | None,
    namespace: str | None,
    region: str | None,
    disposable: bool,
    share_cluster: bool,
) -> None:
    """Create the environment NAME.

    Writes its configuration, a release file without a bundle for each model, the approvers of its releases
    into CODEOWNERS, and its name into the workflow that handles alarms. In a terminal, asks for the cluster and the
    namespace.
    """
    from pipelines.declarations.environment_starter import NewEnvironment, check_choices, start_environment
    from pipelines.github.alarm_workflow import RESPOND, write_alarm_environments
    from pipelines.github.release_owners import write_release_owners

    project = Project.find()
    chosen = NewEnvironment(
        name=name,
        after=after,
        cluster=_ask("EKS cluster", cluster, f"{project.name}-{name}"),
        namespace=_ask("Kubernetes namespace", namespace, f"models-{name}"),
        region=region or project.stack(after).config.region,
        disposable=disposable,
        shares_cluster=share_cluster,
    )
    check_choices(project, chosen)
    for path in start_environment(project, chosen):
        click.echo(f"wrote {path.relative_to(project.root)}")
    if write_release_owners(Project(project.root)):
        click.echo("changed .github/CODEOWNERS: check the approvers of its releases")
    if write_alarm_environments(Project(project.root)):
        click.echo(f"changed {RESPOND}: it handles the alarms of {name}")
    click.echo(f"Next: mlops validate, then docs/platform-engineer.md#another-environment for {name}.")


def _ask(what: str, given: str | None, default: str) -> str:
    """Return what was given as an option; else ask in a terminal, and take the default elsewhere."""
    if given is not None:
        return given
    return str(click.prompt(what, default=default)) if sys.stdin.isatty() else default


@click.command(cls=Command)
@click.argument("model")
@click.option("--env", "environment", metavar="NAME", help="Environment: dev. With --here, take the data from there.")
@click.option("--here", is_flag=True, help="Train the working tree on this machine; register nothing.")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --here: data file; default: the sample of the dataset.",
)
@click.option("--snapshot", metavar="ID", help="With --here and --env: snapshot of the dataset; default: the latest.")
@click.option("--pinned", is_flag=True, help="Train with the pinned image even if the working tree differs.")
@click.option(
    "--unless",
    type=click.Choice(("empty", "unchanged")),
    help="Do nothing if the dataset is empty, or also if it has no new version to train on.",
)
@target_option
def train(
    model: str,
    environment: str | None,
    here: bool,
    file: Path | None,
    snapshot: str | None,
    pinned: bool,
    unless: Unless | None,
    target: str,
) -> None:
    """Train a model in an environment and register its bundle.

    Runs the training job of MODEL in the pinned image, whose files must match the working tree. Prints the digest of
    the bundle on the last line.

    With --here, trains the working tree in this process, with your rights, and prints its metrics and the verdicts of
    the gates. This is an experiment: it makes no bundle to release. To compare experiments, use `mlops runs`.
    """
    if here:
        if pinned or unless is not None:
            raise click.UsageError("--here trains the working tree: leave out --pinned and --unless")
        _experiment(model, environment, file, snapshot, target)
        return
    if file is not None or snapshot is not None:
        raise click.UsageError("--file and --snapshot need --here")
    if environment is None:
        raise click.UsageError("Missing option '--env', or '--here'.")
    _train(model, environment, pinned, unless, target)


def _train(model: str, environment: str, pinned: bool, unless: Unless | None, target: str) -> None:
    """Run the training job of a model; write its bundle, or "" if it was not trained, as an output of the step."""
    from pipelines.github.workflow_run import add_summary
    from pipelines.promotion.training_image import check_is_current, describe_image, read_training_image
    from pipelines.targets.training_due import read_facts, reason_to_wait, training_environment
    from pipelines.targets.workloads import run_training

    opened = open_target(target)
    declared = opened.project.model(model)
    if unless is not None:
        waits = reason_to_wait(declared, read_facts(training_environment(opened, environment), declared), unless)
        if waits is not None:
            add_summary(f"**{model}** was not trained: {waits}.")
            record_output("bundle", "")
            click.echo(waits)
            return
    opened.project.check_trains(environment)
    image = read_training_image(opened, environment)
    if image is not None:
        log(describe_image(image, environment))
        if not pinned:
            check_is_current(image, model, environment, opened.publishing.format(environment=environment))
    digest = run_training(opened, environment, model, log)
    record_output("bundle", digest)
    click.echo(digest)


def _experiment(model: str, environment: str | None, file: Path | None, snapshot: str | None, target: str) -> None:
    """Train the working tree on this machine, and print what the gates say."""
    from pipelines.data.catalog import read_version
    from pipelines.data.local_rows import find_sample, read_good_rows
    from pipelines.promotion.experiment import describe_experiment, run_experiment
    from pipelines.training_runs.experiments import save_experiment

    if environment is not None and file is not None:
        raise click.UsageError("--env takes the data from an environment: leave out --file")
    if environment is None and snapshot is not None:
        raise click.UsageError("--snapshot needs --env")
    project = Project.find()
    declared = project.model(model)
    if environment is not None:
        project.check_trains(environment)
        rows, version = read_version(open_target(target).descriptor(environment), declared.contract, snapshot)
        log(f"{declared.contract}: {version.rows} rows of snapshot {version.snapshot} in {environment}")
        found = run_experiment(project, model, rows, version, log)
    else:
        path = file or find_sample(project, declared.contract)
        name = str(file or path.relative_to(project.root))
        rows, bad = read_good_rows(project.contract(declared.contract), path, name=name)
        log(f"{path.name}: {rows.num_rows} rows" + (f"; {bad} others break the contract" if bad else ""))
        found = run_experiment(project, model, rows, None, log)
    click.echo()
    for line in describe_experiment(found):
        click.echo(line)
    name = save_experiment(project.root, found.facts)
    click.echo(f"\nExperiment {name}: nothing is registered, so it cannot be released.")
    click.echo(f"To compare experiments: mlops runs compare {model} --here")


@click.command(cls=Command)
@click.argument("model")
@environment_option
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Rows to predict as .parquet, or a request as .json; default: the golden request of the live bundle.",
)
@click.option("--dataset", metavar="NAME[@VERSION]", help="Predict the rows of a dataset version; `latest` by default.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Save as .parquet or .csv.")
@click.option("--bundle", default="", metavar="DIGEST", help="Predict rows with this bundle; default: the live one.")
@click.option("--direct", is_flag=True, help="Send to the load balancer, which needs the private network.")
@click.option(
    "--times", type=click.IntRange(1, 100_000), default=1, help="Number of requests to send, for example for a soak."
)
@target_option
def predict(
    model: str,
    environment: str,
    file: Path | None,
    dataset: str | None,
    output: Path | None,
    bundle: str,
    direct: bool,
    times: int,
    target: str,
) -> None:
    """Send a request to an endpoint, or predict many rows by a job.

    A request goes to one of the endpoint's pods through the Kubernetes API.

    A Parquet file or a dataset version is predicted by a job, with the same bundle, runtime and checks as requests. Its
    result is a version of the dataset MODEL-predictions. A row that breaks the request schema gets no prediction, but a
    reason. Running the command again predicts nothing twice.
    """
    from pipelines.promotion import predict as module

    by_batch = dataset is not None or (file is not None and file.suffix.lower() not in ("", ".json"))
    if dataset is not None and file is not None:
        raise click.UsageError("--file and --dataset: give one of them")
    if by_batch and (direct or times > 1):
        raise click.UsageError("--direct and --times are for requests, not for a Parquet file or a dataset")
    if not by_batch and (output is not None or bundle):
        raise click.UsageError("--output and --bundle need --dataset, or --file with a Parquet file")
    if by_batch:
        _predict_by_batch(open_target(target), model, environment, file, dataset or "", output, bundle)
        return
    sent = file.read_bytes() if file is not None else None
    request, response = module.predict(open_target(target), model, environment, sent, direct=direct, times=times)
    click.echo(f"request   {json.dumps(request)}")
    click.echo(f"response  {json.dumps(response)}")
    if times > 1:
        click.echo(f"{times} requests were answered; the last response is shown.")


def _predict_by_batch(
    target: Target, model: str, environment: str, file: Path | None, dataset: str, output: Path | None, bundle: str
) -> None:
    from pipelines.promotion.predict_batch import predict_file, predict_version

    if file is not None:
        run = predict_file(target, model, environment, file, log, bundle=bundle, output=output)
    else:
        name, _, version = dataset.partition("@")
        chosen = version or "latest"
        run = predict_version(target, model, environment, name, log, version=chosen, bundle=bundle, output=output)
    click.echo(f"{run.dataset}: snapshot {run.snapshot} in {environment}, predicted by {run.bundle}")
    if output is not None:
        click.echo(f"wrote {counted(run.rows or 0, 'row')} to {output}")
    else:
        click.echo("To save the predictions, repeat the command with --output FILE: nothing is predicted twice.")


@click.command(cls=Command)
@click.argument("model")
@environment_option
def withdraw(model: str, environment: str) -> None:
    """Write a release file that withdraws a model.

    The release file of MODEL then names no bundle, and the one that is withdrawn. Propose it in a pull request of its
    own. After the merge, the deployment removes the endpoint; the registry and the ledger stay.
    """
    from pipelines.declarations.starter import write_withdrawal

    project = Project.find()
    path, bundle = write_withdrawal(project, model, environment)
    click.echo(f"{path.relative_to(project.root)} withdraws {bundle}")
    click.echo(f"Next: commit it, and open a pull request. After its deployment, {model} is not live in {environment}.")
