"""Run the ingest, monitor and training jobs of an environment."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping

from pipelines.cluster.jobs import DEADLINE_SECONDS, run_job
from pipelines.data.landing import DROP_REASON, LANDING_ACTION, LANDING_FILE, LandingAction
from pipelines.data.table_changes import TABLE_CHANGE, TableChange
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import (
    compaction_name,
    maintenance_name,
    model_monitor_name,
    monitor_name,
    training_name,
)
from pipelines.declarations.project import Project
from pipelines.github.git import Git
from pipelines.registry.runs import read_run
from pipelines.targets.target import Target

START_ALLOWANCE_SECONDS = 60
"""Time allowed for a training job in addition to its declared deadline."""


def run_ingest(
    target: Target,
    environment: str,
    dataset: str,
    log: Callable[[str], None],
    *,
    file: str = "",
    action: LandingAction = "ingest",
    reason: str = "",
) -> None:
    """Run the ingest job of a dataset now, rather than at its next scheduled time.

    Args:
        target: where the environment lives.
        environment: its name.
        dataset: the dataset's name.
        log: receives each line of the job's log.
        file: name of the only landing file to ingest; every new one by default.
        action: what to do with the file: ingest it, release it (check it or its quarantined rows again), or drop it.
        reason: why the file is dropped.

    Raises:
        MlopsError: the dataset, the job or the landing file does not exist, or the job failed.
    """
    target.project.contract(dataset)
    target.project.check_ingests(environment, dataset)
    descriptor = target.descriptor(environment)
    variables = {LANDING_FILE: file} if file else {}
    if action != "ingest":
        variables |= {LANDING_ACTION: action, DROP_REASON: reason}
    _run(descriptor, f"ingest-{dataset}", log, variables=variables, after_others=True)


def run_monitor(target: Target, environment: str, dataset: str, log: Callable[[str], None]) -> None:
    """Run the monitor of a dataset now.

    Args:
        target: where the environment lives.
        environment: its name.
        dataset: the dataset's name.
        log: receives each line of the job's log.

    Raises:
        MlopsError: the dataset does not exist or is not monitored, or the job failed.
    """
    contract = target.project.contract(dataset)
    target.project.check_trains(environment)
    if not target.project.stack(environment).config.environment.monitors(contract):
        raise MlopsError(
            f"{dataset} is not monitored in {environment}",
            fix=f"check `monitoring` in {target.project.contract_file(dataset).name}, the contract's status, and "
            f"`monitoring` in Pulumi.{environment}.yaml",
        )
    descriptor = target.descriptor(environment)
    _run(descriptor, monitor_name(dataset), log)


def run_model_monitor_job(target: Target, environment: str, model: str, log: Callable[[str], None]) -> None:
    """Run the monitor of a model now.

    Args:
        target: where the environment lives.
        environment: its name.
        model: the model's name.
        log: receives each line of the job's log.

    Raises:
        MlopsError: the model does not exist, is not released or not monitored here, or the job failed.
    """
    project = target.project
    declared, settings = project.model(model), project.stack(environment).config.environment.monitoring
    if not declared.monitoring.enabled or not settings.models:
        raise MlopsError(
            f"{model} is not monitored in {environment}",
            fix=f"check `monitoring` in models/{model}/model.yaml and in Pulumi.{environment}.yaml",
        )
    if project.release(model, environment).bundle is None:
        raise MlopsError(
            f"{model} is not monitored in {environment}: models/{model}/releases/{environment}.yaml names no bundle",
            fix="pull the newest main if a bundle is released there, otherwise release one first",
        )
    descriptor = target.descriptor(environment)
    check_training_image(descriptor, "monitors run")
    _run(descriptor, model_monitor_name(model), log)


def run_log_compaction(target: Target, environment: str, model: str, log: Callable[[str], None]) -> None:
    """Compact the inference log of a model now.

    Args:
        target: where the environment lives.
        environment: its name.
        model: the model's name.
        log: receives each line of the job's log.

    Raises:
        MlopsError: the model does not exist or is not released here, or the job failed.
    """
    project = target.project
    project.model(model)
    if project.release(model, environment).bundle is None:
        raise MlopsError(f"{model} has no inference log job in {environment}: no bundle is released there")
    descriptor = target.descriptor(environment)
    check_training_image(descriptor, "the job runs")
    _run(descriptor, compaction_name(model), log)


def change_table(
    target: Target, environment: str, dataset: str, change: TableChange, log: Callable[[str], None]
) -> None:
    """Run the ingest job of a dataset to change its table: tag a version, roll back, or expire versions.

    Args:
        target: where the environment lives.
        environment: its name.
        dataset: the dataset's name.
        change: what to change.
        log: receives each line of the job's log.

    Raises:
        MlopsError: the dataset or the job does not exist, or the job failed.
    """
    target.project.contract(dataset)
    target.project.check_ingests(environment, dataset)
    variables = {TABLE_CHANGE: change.model_dump_json()}
    _run(target.descriptor(environment), f"ingest-{dataset}", log, variables=variables, after_others=True)


def run_maintenance(target: Target, environment: str, dataset: str, log: Callable[[str], None]) -> None:
    """Run the job that maintains a dataset's table now.

    Args:
        target: where the environment lives.
        environment: its name.
        dataset: the dataset's name, or that of a model's predictions.
        log: receives each line of the job's log.

    Raises:
        MlopsError: the dataset or the job does not exist, or the job failed.
    """
    target.project.check_maintains(environment, dataset)
    _run(target.descriptor(environment), maintenance_name(dataset), log, after_others=True)


def run_training(target: Target, environment: str, model: str, log: Callable[[str], None]) -> str:
    """Run the training job of a model in the pinned image.

    Args:
        target: where the environment lives.
        environment: its name.
        model: the model's name.
        log: receives each line of the job's log.

    Returns:
        The digest of the bundle that the job registered.

    Raises:
        MlopsError: the environment does not run the pinned image, a model or job does not exist, or the job failed.
    """
    target.project.check_trains(environment)
    declared, descriptor = target.project.model(model), target.descriptor(environment)
    pinned = target.project.stack(environment).config.environment.images.training
    if pinned is not None and not (descriptor.images.training or "").endswith(pinned):
        # Not applied here: releases are judged first, and deployments of an environment queue.
        raise MlopsError(
            f"{environment} does not run the training image that Pulumi.{environment}.yaml pins",
            fix=f"mlops deploy --env {environment}",
        )
    run = "-".join(filter(None, (os.environ.get(f"GITHUB_RUN_{part}") for part in ("ID", "ATTEMPT"))))
    run = run or secrets.token_hex(8)
    _run(
        descriptor,
        training_name(model),
        log,
        variables={"RUN_ID": run, "SOURCE_COMMIT": _source_commit(target.project)},
        deadline_seconds=declared.training.deadline_seconds + START_ALLOWANCE_SECONDS,
    )
    return read_run(descriptor, model, run)


def check_training_image(descriptor: EnvironmentDescriptor, what: str) -> None:
    """Refuse an environment without the image of its jobs.

    Args:
        descriptor: the environment.
        what: what runs in the image, such as `trainings run`.

    Raises:
        MlopsError: the environment pins none.
    """
    if descriptor.images.training is None:
        raise MlopsError(
            f"{descriptor.name} pins no training image, in which {what}",
            fix=f"pin images.training in Pulumi.{descriptor.name}.yaml, and deploy",
        )


def _run(
    descriptor: EnvironmentDescriptor,
    cron_job: str,
    log: Callable[[str], None],
    *,
    variables: Mapping[str, str] | None = None,
    after_others: bool = False,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> None:
    """Run a job of an environment, and log its output with a prefix; see `run_job`."""
    run_job(
        descriptor.namespace,
        cron_job,
        variables=variables or {},
        on_line=lambda line: log(f"| {line}"),
        after_others=after_others,
        deadline_seconds=deadline_seconds,
    )


def _source_commit(project: Project) -> str:
    """Return the checked-out commit; an empty string outside a git repository."""
    try:
        return Git(project.root).head()
    except MlopsError:
        return ""
