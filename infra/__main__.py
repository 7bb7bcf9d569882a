"""Pulumi program of one environment, in dependency order."""

from __future__ import annotations

import os

import pulumi

from infra.command_line import require_policy_pack
from infra.components.alarm_delivery import AlarmDelivery, AlarmDeliveryArgs
from infra.components.association_wait import OUTPUT, AssociationWait, association_ids
from infra.components.batch_prediction import BatchPredictionArgs, BatchPredictionJob
from infra.components.endpoint import Endpoint, EndpointArgs
from infra.components.ingestion import Ingestion, IngestionArgs
from infra.components.job_component import JobContext
from infra.components.log_compaction_job import LogCompactionJob, LogCompactionJobArgs
from infra.components.model_monitor_job import ModelDashboard, ModelDashboardArgs, ModelMonitor, ModelMonitorArgs
from infra.components.monitor_job import DataMonitor, DataMonitorArgs
from infra.components.namespace import Namespace, NamespaceArgs
from infra.components.registry import Registry, RegistryArgs
from infra.components.serving import ServingContext
from infra.components.serving_identity import ServingIdentity, ServingIdentityArgs
from infra.components.spark_server import SparkServer, SparkServerArgs
from infra.components.storage import Storage, StorageArgs
from infra.components.table_maintenance_job import TableMaintenance, TableMaintenanceArgs
from infra.components.training import TrainingArgs, TrainingJob
from infra.declared_cluster import cluster_providers, find_cluster, last_outputs, placement
from infra.descriptor import describe, exported, pod_descriptor
from infra.mistakes import reported
from infra.scopes import load_environment
from pipelines.declarations.inference_logging import log_policy
from pipelines.declarations.live_models import FOUNDATION_ONLY
from pipelines.declarations.names import (
    compaction_name,
    maintenance_name,
    model_monitor_name,
    monitor_name,
    prediction_job_name,
    predictions_name,
    training_name,
)
from pipelines.declarations.project import Project
from pipelines.declarations.spark_jobs import spark_jobs


def provision() -> None:
    """Register the resources and the outputs of an environment."""
    project = Project.find()
    require_policy_pack(project.root)
    environment = load_environment(project)
    contracts = {name: project.contract(name) for name in project.dataset_names}
    models = {name: project.model(name) for name in project.model_names}
    releases = {name: project.release(name, environment.name).bundle for name in project.model_names}
    notes: list[str] = []
    foundation_only = bool(os.environ.get(FOUNDATION_ONLY))
    if foundation_only:
        environment, releases = environment.without_images(), dict.fromkeys(releases)
        notes.append("images and releases are left out until `mlops deploy` has judged them")

    # The declared cluster. Kubernetes resources wait until it is certain that nothing moves or gets lost
    cluster = find_cluster(environment)
    before = last_outputs()
    kubernetes = cluster_providers(environment, cluster, before, project.model_names, foundation_only=foundation_only)
    on_cluster = pulumi.ResourceOptions(providers={"kubernetes": kubernetes.ordinary})

    # Data, the registry, and the namespace that pods run in
    storage = Storage("storage", StorageArgs(environment=environment, contracts=tuple(contracts.values())))
    registry = Registry("registry", RegistryArgs(environment=environment, storage=storage))
    namespace = Namespace("namespace", NamespaceArgs(environment=environment, adopting=kubernetes.adopting), on_cluster)
    descriptor = describe(environment, storage, registry, namespace)

    # Ingestion and table maintenance where models are trained, and of labels elsewhere; monitors of datasets; training
    context = JobContext(
        environment=environment,
        namespace=namespace.name,
        image=environment.image_reference("training"),
        descriptor=pod_descriptor(descriptor, "training"),
    )
    jobs: list[str] = []
    for name in project.ingested(environment.name):
        Ingestion(name, IngestionArgs(context=context, contract=contracts[name], storage=storage), on_cluster)
        maintained = TableMaintenanceArgs(
            context=context,
            storage=storage,
            registry=registry,
            predicting=project.predicting(name),
        )
        TableMaintenance(name, maintained, on_cluster)
        jobs += [f"ingest-{name}", maintenance_name(name)]
    if environment.config.trains:
        monitored = [name for name, each in contracts.items() if environment.config.monitors(each)]
        on_spark = spark_jobs(environment.config, contracts, models)
        spark = None
        if on_spark.names:
            server = SparkServerArgs(
                context=context,
                datasets=on_spark.datasets,
                clients=on_spark.names,
                storage=storage,
                adopting=kubernetes.adopting,
            )
            spark = SparkServer(server, on_cluster).access
        for name in monitored:
            monitor = DataMonitorArgs(
                context=context,
                contract=contracts[name],
                storage=storage,
                spark=spark if name in on_spark.monitored else None,
            )
            DataMonitor(name, monitor, on_cluster)
        jobs += map(monitor_name, monitored)
        for name, model in models.items():
            training = TrainingArgs(
                context=context,
                model=model,
                storage=storage,
                registry=registry,
                spark=spark if name in on_spark.trained else None,
            )
            TrainingJob(name, training, on_cluster)
            jobs.append(training_name(name))

    # Prediction by batch, the maintenance of its table, and a monitor for each model with a release in this environment
    for name in (name for name, bundle in releases.items() if bundle is not None):
        predicting = BatchPredictionArgs(context=context, model=models[name], storage=storage, registry=registry)
        BatchPredictionJob(name, predicting, on_cluster)
        predicted = predictions_name(name)
        TableMaintenance(
            predicted,
            TableMaintenanceArgs(context=context, storage=storage, registry=registry, predicting=()),
            on_cluster,
        )
        jobs += [prediction_job_name(name), maintenance_name(predicted)]
    observed = [name for name, bundle in releases.items() if bundle is not None and models[name].monitoring.enabled]
    observed = observed if environment.config.monitoring.models else []
    for name in observed:
        observer = ModelMonitorArgs(context=context, model=models[name], storage=storage, registry=registry)
        ModelMonitor(name, observer, on_cluster)
        jobs.append(model_monitor_name(name))
    if observed and context.image is not None:
        ModelDashboard("models", ModelDashboardArgs(environment=environment, models=observed))

    # A job that compacts the inference log of each model with a release in this environment
    for name in (name for name, bundle in releases.items() if bundle is not None):
        compaction = LogCompactionJobArgs(context=context, model=models[name], storage=storage, registry=registry)
        LogCompactionJob(name, compaction, on_cluster)
        jobs.append(compaction_name(name))
    if context.image is None and jobs and not foundation_only:
        notes.append(
            f"no training image is pinned (images.training in Pulumi.{environment.name}.yaml): "
            f"{', '.join(jobs)} are left out"
        )

    # The identities of every endpoint, long before its first pods
    identities = {
        name: ServingIdentity(
            name,
            ServingIdentityArgs(
                environment=environment, model=model, storage=storage, registry=registry, namespace=namespace.name
            ),
            on_cluster,
        )
        for name, model in models.items()
    }

    # An endpoint for each model with a release in this environment
    endpoints: dict[str, pulumi.Output[str | None]] = {}
    associations = AssociationWait(before)
    serving_image = environment.image_reference("serving")
    for name, bundle in releases.items():
        if bundle is None:
            continue
        if serving_image is None:
            notes.append(
                f"no serving image is pinned (images.serving in Pulumi.{environment.name}.yaml): "
                f"the endpoint of {name} is left out, although {name} is released here"
            )
            continue
        serving = ServingContext(
            environment=environment,
            model=models[name],
            log_policy=log_policy(models[name], contracts[models[name].contract]),
            identity=associations.effective(identities[name]),
            namespace=namespace.name,
            image=serving_image,
            descriptor=pod_descriptor(descriptor, "serving"),
        )
        endpoints[name] = Endpoint(name, EndpointArgs(context=serving, bundle=bundle), on_cluster).url

    # Alarms of the models that are released here, to GitHub
    github = environment.config.monitoring.github
    if github is not None:
        alarmed = tuple(models[name] for name in endpoints)
        AlarmDelivery("alarms", AlarmDeliveryArgs(environment=environment, github=github, models=alarmed))

    pulumi.export("descriptor", exported(descriptor, endpoints))
    pulumi.export("placement", placement(environment, cluster).model_dump())
    pulumi.export("released", {name: releases[name] for name in endpoints})
    pulumi.export(OUTPUT, association_ids(list(identities.values())))
    pulumi.export("notes", notes)


with reported():
    provision()
