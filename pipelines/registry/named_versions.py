"""Versions of datasets that bundles name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pipelines.declarations.bundle import DatasetVersion
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import bundles, store

MOST_MODELS = 10_000
READ_AT_ONCE = 8


def every_bundle(descriptor: EnvironmentDescriptor) -> list[tuple[str, str]]:
    """Return the model and digest of every bundle in an environment's registry.

    Also those of incomplete bundles, and of models that are no longer declared.
    """
    return [
        (model, digest)
        for model in store.folders(descriptor.registry_bucket, "bundles/", limit=MOST_MODELS)
        for digest in bundles.list_digests(descriptor, model)
    ]


def named_versions(descriptor: EnvironmentDescriptor, dataset: str) -> dict[str, str]:
    """Return the snapshots of a dataset that the bundles in an environment's registry name, and why each stays.

    Raises:
        MlopsError: the registry cannot be read, or a manifest was changed.
    """
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        versions = list(pool.map(lambda each: _version(descriptor, *each), every_bundle(descriptor)))
    found: dict[str, str] = {}
    for name, version in versions:
        if version is not None and version.dataset == dataset:
            found.setdefault(version.snapshot, f"{name} names it")
    return found


def _version(descriptor: EnvironmentDescriptor, model: str, digest: str) -> tuple[str, DatasetVersion | None]:
    try:
        manifest = bundles.read_manifest(descriptor, model, digest)
    except bundles.UnknownBundleError:  # an interrupted push has left no manifest
        return "", None
    return f"{model} {digest[:19]}…", manifest.dataset
