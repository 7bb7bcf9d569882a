"""Jobs of an environment that read their dataset by a Spark server, as its contract asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import EnvironmentConfig
from pipelines.declarations.model import Model
from pipelines.declarations.names import monitor_name, training_name
from pipelines.declarations.project import Project

START_WORKERS = ("create", "deletecollection", "get")
"""Verbs on pods with which Sail starts workers, names its own pod as their owner, and removes them."""

SPARK_SERVER = "spark"
SPARK_WORKER = "spark-worker"

SPARK_WORKLOADS = {SPARK_SERVER: SPARK_SERVER, SPARK_WORKER: "sail"}
"""Workload in the namespace of a Spark server → name label of its pods; that of workers is Sail's."""


@dataclass(frozen=True)
class SparkJobs:
    """Jobs on datasets whose contract says `engine: spark`.

    Attributes:
        datasets: names of the datasets that these jobs read, in order.
        monitored: names of the datasets among them that have a monitor.
        trained: names of the models that are trained on them.
    """

    datasets: tuple[str, ...] = ()
    monitored: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the jobs."""
        return (*map(monitor_name, self.monitored), *map(training_name, self.trained))


def spark_jobs(config: EnvironmentConfig, contracts: Mapping[str, Contract], models: Mapping[str, Model]) -> SparkJobs:
    """Return the jobs of an environment that need a Spark server.

    Args:
        config: the environment's configuration.
        contracts: name of a dataset → its contract.
        models: name → model.
    """
    if not config.trains:
        return SparkJobs()
    large = [name for name, contract in contracts.items() if contract.engine == "spark"]
    monitored = tuple(name for name in large if config.monitors(contracts[name]))
    trained = tuple(name for name, model in models.items() if model.contract in large)
    return SparkJobs(tuple(sorted({*monitored, *(models[name].contract for name in trained)})), monitored, trained)


def runs_spark_server(project: Project, environment: str) -> bool:
    """Return whether the program runs a Spark server in the cluster of an environment."""
    config = project.stack(environment).config.environment
    if config.spark.remote is not None:
        return False
    contracts = {name: project.contract(name) for name in project.dataset_names}
    models = {name: project.model(name) for name in project.model_names}
    return bool(spark_jobs(config, contracts, models).names)
