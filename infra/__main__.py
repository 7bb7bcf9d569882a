"""Everything an environment needs for its models, in the order in which it is needed."""

from __future__ import annotations

import pulumi

from infra.components.endpoint import Endpoint, EndpointArgs
from infra.components.ingestion import Ingestion, IngestionArgs
from infra.components.namespace import Namespace, NamespaceArgs
from infra.components.registry import Registry, RegistryArgs
from infra.components.storage import Storage, StorageArgs
from infra.components.training import Training, TrainingArgs
from infra.descriptor import describe, for_pods
from infra.environment import load_environment
from pipelines.declarations.project import Project

project = Project.find()
environment = load_environment(project)
contracts = {name: project.contract(name) for name in project.dataset_names}
models = {name: project.model(name) for name in project.model_names}
releases = {name: project.release(name, environment.name).bundle for name in project.model_names}
pinned = environment.config.images
notes: list[str] = []

# Where data, and what is promoted, live
storage = Storage("storage", StorageArgs(environment, tuple(contracts.values())))
registry = Registry("registry", RegistryArgs(environment, storage.key, storage.access_logs))
namespace = Namespace("namespace", NamespaceArgs(environment))
descriptor = describe(environment, storage, registry, namespace)

# Data and training, in the one environment that trains
if environment.config.trains:
    image, told = descriptor["images"]["training"], for_pods(descriptor, "training")
    for name, contract in contracts.items():
        Ingestion(name, IngestionArgs(environment, contract, storage, namespace.name, image, told))
    for name, model in models.items():
        Training(name, TrainingArgs(environment, model, storage, registry, namespace.name, image, told))
    if image is None:
        jobs = [*(f"ingest-{name}" for name in contracts), *(f"train-{name}" for name in models)]
        notes.append(
            f"no training image is pinned (images.training in Pulumi.{environment.name}.yaml): "
            f"{', '.join(jobs)} are left out"
        )

# An endpoint for each model that is released here
endpoints: dict[str, pulumi.Output[str | None]] = {}
for name, bundle in releases.items():
    if bundle is None:
        continue
    if pinned.serving is None:
        notes.append(
            f"no serving image is pinned (images.serving in Pulumi.{environment.name}.yaml): "
            f"the endpoint of {name} is left out, though it is released here"
        )
        continue
    serving = EndpointArgs(
        environment,
        models[name],
        bundle,
        storage,
        registry,
        namespace.name,
        descriptor["images"]["serving"],
        pinned.serving,
        for_pods(descriptor, "serving"),
    )
    endpoints[name] = Endpoint(name, serving).url

answering = pulumi.Output.from_input(endpoints).apply(lambda urls: {name: url for name, url in urls.items() if url})
pulumi.export("descriptor", {**descriptor, "endpoints": answering})
pulumi.export("notes", notes)
