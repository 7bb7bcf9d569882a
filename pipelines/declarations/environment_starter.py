"""Files that a new environment starts with: its configuration, and a release file for each model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.environment import StackFile
from pipelines.declarations.environment_rules import RESERVED
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import checked_name
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.declarations.validation import validate_project

CONFIGURATION = """\
# yaml-language-server: $schema=pipelines/declarations/schemas/stack.schema.json
{secrets}config:
  aws:region: {region}
  mlops:environment:
    promotes_from: {after}
    trains: false
    disposable: {disposable}
    owner: {owner}
    cost_centre: {cost_centre}
    cluster: {cluster}
    namespace: {namespace}
    permissions_boundary: {boundary} # docs/bootstrap.md
    retention_days: {retention}
    images: {{training: null, serving: null}}
    canary: {{on_inconclusive: {on_inconclusive}}} # continue: golden requests are enough; pause: docs/endpoints.md
"""


@dataclass(frozen=True)
class NewEnvironment:
    """Choices for a new environment.

    Attributes:
        name: its name.
        after: the environment that it promotes from.
        cluster: name of its EKS cluster.
        namespace: its Kubernetes namespace.
        region: its AWS region.
        disposable: True if its data may be deleted with it.
        shares_cluster: True if another environment may have the same cluster, in another namespace.
    """

    name: str
    after: str
    cluster: str
    namespace: str
    region: str
    disposable: bool
    shares_cluster: bool = False


def check_choices(project: Project, chosen: NewEnvironment) -> None:
    """Refuse choices that another environment has made already.

    Raises:
        MlopsError: the name is taken or invalid, or a cluster or namespace belongs to another environment.
    """
    for word, value in (("environment", chosen.name), ("cluster", chosen.cluster), ("namespace", chosen.namespace)):
        checked_name(value, word)
    if chosen.name in RESERVED:
        raise MlopsError(f"the name {chosen.name!r} is used by the bootstrap", fix="choose another name")
    if chosen.name in project.environments:
        raise MlopsError(
            f"the environment {chosen.name} exists: expected a new name, found {project.stack_file(chosen.name).name}",
            fix="choose another name, or edit that file",
        )
    for name in project.environments:
        config = project.stack(name).config
        other = config.environment
        if (config.region, other.cluster) != (chosen.region, chosen.cluster):
            continue
        if other.namespace == chosen.namespace:
            raise MlopsError(
                f"the namespace {chosen.namespace} of the cluster {chosen.cluster} belongs to {name}: expected a "
                "namespace that no environment has",
                fix="choose another --namespace or --cluster",
            )
        if not chosen.shares_cluster:
            raise MlopsError(
                f"the cluster {chosen.cluster} belongs to {name}: expected a cluster that no environment has",
                fix="choose another --cluster, or add --share-cluster and choose another --namespace",
            )


def start_environment(project: Project, chosen: NewEnvironment) -> list[Path]:
    """Write the files of a new environment, and return their paths. Existing files are never overwritten.

    Raises:
        MlopsError: the choices are refused, a file exists, or the declarations would not be valid; nothing is written.
    """
    previous = project.stack(chosen.after)
    check_choices(project, chosen)
    files = {project.stack_file(chosen.name): _configuration(project, previous, chosen)}
    for model in project.model_names:
        release = Release(model=model, environment=chosen.name, bundle=None, replaces=None)
        files[project.release_file(model, chosen.name)] = render_release(release)
    if existing := [path for path in files if path.exists() or path.is_symlink()]:
        raise MlopsError(f"{existing[0].relative_to(project.root)} already exists; nothing was written")
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, text)
    try:
        validate_project(Project(project.root))
    except MlopsError:
        for path in files:
            path.unlink()
        raise
    return list(files)


def _configuration(project: Project, previous: StackFile, chosen: NewEnvironment) -> str:
    """Return the text of the configuration; what is not chosen is as in the environment before."""
    before = previous.config.environment
    text = CONFIGURATION.format(
        secrets=f"secretsprovider: {previous.secrets_provider}\n" if previous.secrets_provider else "",
        region=chosen.region,
        after=chosen.after,
        disposable=str(chosen.disposable).lower(),
        owner=before.owner,
        cost_centre=before.cost_centre,
        cluster=chosen.cluster,
        namespace=chosen.namespace,
        boundary=f"bootstrap/{project.name}-{chosen.name}-boundary" if before.permissions_boundary else "null",
        retention=before.retention_days,
        on_inconclusive="continue" if chosen.disposable else "pause",
    )
    registry = before.image_registry
    if registry.account is not None or registry.region is not None or chosen.region != previous.config.region:
        account = f'"{registry.account}"' if registry.account else "null"
        region = registry.region or previous.config.region
        text += f"    image_registry: {{account: {account}, region: {region}}}\n"
    return text
