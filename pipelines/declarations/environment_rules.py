"""Rules over all environments: what the bootstrap, the program or AWS would refuse later, with file, line and key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.declarations.documents import Key, parse_yaml, read_bytes
from pipelines.declarations.environment import EnvironmentConfig, StackFile
from pipelines.declarations.errors import DeclarationError, Problem
from pipelines.declarations.names import bucket_name
from pipelines.declarations.project import Project
from pipelines.declarations.repository_root import PROGRAM

ACCOUNT_FILE = Path("infra", "bootstrap", "Pulumi.account.yaml")
"""Configuration of the account's bootstrap."""

RESERVED = ("account", "preview", "images")
"""Names that the bootstrap uses in addition to those of environments: its stack, and two GitHub environments."""

UNSUPPORTED_PARTITIONS = {
    "cn-": "China",
    "us-gov-": "GovCloud",
    "us-iso": "an isolated partition",
    "eusc-": "the European Sovereign Cloud",
}
"""Prefix of a region's name → where it is. Service principals and endpoints of the program are those of `aws`."""

LONGEST_BUCKET = 63
LONGEST_PURPOSE = "access-logs"
"""The longest purpose of a bucket."""

_ANY_ACCOUNT = "0" * 12
_CLUSTERS_OWN = ("default", "kube-system", "kube-public", "kube-node-lease")
_SETTINGS: Key = ("config", "mlops:environment")


@dataclass(frozen=True)
class DeclaredEnvironments:
    """What the rules look at.

    Attributes:
        project: name of the project.
        files: environment → its file.
        stacks: environment → its configuration, in the order of promotion.
        lines: environment → key → line.
        account_region: region of the account's bootstrap; None if the repository has no bootstrap.
    """

    project: str
    files: Mapping[str, Path]
    stacks: Mapping[str, StackFile]
    lines: Mapping[str, Mapping[Key, int]]
    account_region: str | None = None

    def settings(self, environment: str) -> EnvironmentConfig:
        """Return the value of `mlops:environment`."""
        return self.stacks[environment].config.environment

    def problem(self, environment: str, key: Key, expected: str, found: str, fix: str = "") -> Problem:
        """Return a problem at a key of an environment's file."""
        line = self.lines[environment].get(key)
        dotted = ".".join(map(str, key))
        return Problem(self.files[environment], line, dotted, expected, found, fix)


def environment_problems(project: Project) -> list[Problem]:
    """Return every problem of the environments of a project.

    Raises:
        MlopsError: a file cannot be read, or is not valid by itself.
    """
    files = {name: project.stack_file(name) for name in project.environments}
    declared = DeclaredEnvironments(
        project=project.name,
        files=files,
        stacks={name: project.stack(name) for name in files},
        lines={name: parse_yaml(read_bytes(file), file)[1] for name, file in files.items()},
        account_region=_account_region(project.root / ACCOUNT_FILE),
    )
    return find_problems(declared)


def find_problems(declared: DeclaredEnvironments) -> list[Problem]:
    """Return what is wrong with environments, by every rule."""
    return [problem for rule in RULES for problem in rule(declared)]


def _account_region(file: Path) -> str | None:
    if not file.is_file():
        return None
    document: Any = parse_yaml(read_bytes(file), file)[0]
    config = document.get("config") if isinstance(document, dict) else None
    region = config.get("aws:region") if isinstance(config, dict) else None
    if not isinstance(region, str):
        raise DeclarationError([Problem(file, None, "config.aws:region", "the region of the bootstrap", "none")])
    if (expected := problem_of_region(region)) is not None:
        raise DeclarationError([Problem(file, None, "config.aws:region", expected, region)])
    return region


def _names(declared: DeclaredEnvironments) -> Iterator[Problem]:
    """IAM scopes environments by name prefix, so no name may begin with another."""
    taken = [*RESERVED]
    for name in declared.stacks:
        for other in taken:
            if f"{name}-".startswith(f"{other}-") or f"{other}-".startswith(f"{name}-"):
                yield Problem(
                    declared.files[name],
                    None,
                    "",
                    f"a name by which IAM can tell it from {other!r}: neither begins with the other",
                    repr(name),
                    "give the environment another name",
                )
        taken.append(name)


def _bucket_names(declared: DeclaredEnvironments) -> Iterator[Problem]:
    for name in declared.stacks:
        longest = bucket_name(declared.project, name, LONGEST_PURPOSE, _ANY_ACCOUNT)
        if len(longest) > LONGEST_BUCKET:
            room = LONGEST_BUCKET - (len(longest) - len(declared.project) - len(name))
            yield Problem(
                declared.files[name],
                None,
                "",
                f"at most {room} characters for the names of project and environment: S3 allows {LONGEST_BUCKET}",
                f"{len(declared.project) + len(name)} in {declared.project!r} and {name!r}",
                f"shorten `name` in {PROGRAM}, or the environment's name",
            )


def _regions(declared: DeclaredEnvironments) -> Iterator[Problem]:
    for name, stack in declared.stacks.items():
        expected = problem_of_region(stack.config.region)
        if expected is not None:
            yield declared.problem(name, ("config", "aws:region"), expected, stack.config.region)
        of_registry = stack.config.environment.image_registry.region
        if of_registry is not None and (expected := problem_of_region(of_registry)) is not None:
            yield declared.problem(name, (*_SETTINGS, "image_registry", "region"), expected, of_registry)


def problem_of_region(region: str) -> str | None:
    """Return what is expected instead of a region; None if the program supports it."""
    for prefix, where in UNSUPPORTED_PARTITIONS.items():
        if region.startswith(prefix):
            return f"a region of the partition `aws`: {where} is not supported"
    return None if region in known_regions() else "a region in which AWS offers EKS"


@cache
def known_regions() -> frozenset[str]:
    """Return the regions of the partition `aws` that have EKS, as the pinned botocore knows them."""
    import botocore.session

    return frozenset(botocore.session.get_session().get_available_regions("eks", "aws"))


def _placements(declared: DeclaredEnvironments) -> Iterator[Problem]:
    """Two environments in one namespace would overwrite each other's objects."""
    seen: dict[tuple[str, str, str], str] = {}
    for name, stack in declared.stacks.items():
        settings = stack.config.environment
        key = (stack.config.region, settings.cluster, settings.namespace)
        if key in seen:
            expected = f"another namespace than that of {seen[key]}, on the same cluster {settings.cluster}"
            yield declared.problem(name, (*_SETTINGS, "namespace"), expected, repr(settings.namespace))
        seen.setdefault(key, name)
        for other in declared.stacks.values():
            theirs = other.config.environment
            if (other.config.region, theirs.cluster, theirs.spark_namespace) == key:
                expected = f"another namespace than that of a Spark server, on the same cluster {settings.cluster}"
                yield declared.problem(name, (*_SETTINGS, "namespace"), expected, repr(settings.namespace))
        if settings.namespace in _CLUSTERS_OWN or settings.namespace.startswith("kube-"):
            expected = "its own namespace: the cluster uses this one"
            yield declared.problem(name, (*_SETTINGS, "namespace"), expected, repr(settings.namespace))


def _boundaries(declared: DeclaredEnvironments) -> Iterator[Problem]:
    """The deploy role of an environment creates roles with the boundary of that environment only."""
    seen: dict[str, str] = {}
    for name in declared.stacks:
        found = declared.settings(name).permissions_boundary
        wanted = f"bootstrap/{declared.project}-{name}-boundary"
        key = (*_SETTINGS, "permissions_boundary")
        if declared.account_region is not None and (found or "").rpartition(":policy/")[2] != wanted:
            fix = f"permissions_boundary: {wanted}"
            yield declared.problem(name, key, f"the boundary that the bootstrap creates, {wanted}", repr(found), fix)
        elif found is not None and found in seen:
            yield declared.problem(name, key, f"another boundary than that of {seen[found]}", repr(found))
        if found is not None:
            seen.setdefault(found, name)


def _registries(declared: DeclaredEnvironments) -> Iterator[Problem]:
    """The bootstrap creates the image repositories in its own region."""
    for name, stack in declared.stacks.items():
        registry = stack.config.environment.image_registry
        region = registry.region or stack.config.region
        if declared.account_region is not None and registry.account is None and region != declared.account_region:
            expected = f"the region of the account's image repositories, {declared.account_region} ({ACCOUNT_FILE})"
            fix = f"image_registry: {{region: {declared.account_region}}}"
            yield declared.problem(name, (*_SETTINGS, "image_registry"), expected, region, fix)


def _secrets(declared: DeclaredEnvironments) -> Iterator[Problem]:
    """Pulumi finds the key of a stack's secrets by `secretsprovider`; without it, it asks for a passphrase."""
    for name, stack in declared.stacks.items():
        provider = stack.secrets_provider
        if provider is None and stack.encrypted_key is not None:
            region = declared.account_region or stack.config.region
            fix = f"secretsprovider: awskms://alias/mlops-state?region={region}"
            yield declared.problem(name, ("encryptedkey",), "a secretsprovider beside it", "none", fix)
        wanted = f"region={declared.account_region}"
        if (
            provider is not None
            and declared.account_region
            and "alias/mlops-state?" in provider
            and wanted not in provider
        ):
            expected = f"the key of the bootstrap, in {declared.account_region}"
            yield declared.problem(name, ("secretsprovider",), expected, provider)


RULES: tuple[Callable[[DeclaredEnvironments], Iterator[Problem]], ...] = (
    _names,
    _bucket_names,
    _regions,
    _placements,
    _boundaries,
    _registries,
    _secrets,
)
"""Every rule."""
