"""Bring a bundle and its evidence into the registry of the environment that is to run it."""

from __future__ import annotations

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import bundles, evidence


def replicate(source: EnvironmentDescriptor, target: EnvironmentDescriptor, model: str, digest: str) -> None:
    """Copy a bundle from one environment's registry into another's, unless it is there already.

    The evidence goes first and the manifest last, so a copy that was interrupted leaves no bundle, and the next one
    finishes it. What is copied, and what is found, is verified with the keys that the target trusts.

    Args:
        source: the environment before.
        target: the environment that is to run the bundle.
        model: the model's name.
        digest: the bundle's id.

    Raises:
        UnknownBundleError, TamperedBundleError, UnsignedBundleError, BadSignatureError: the bundle cannot be trusted.
        MlopsError: a registry cannot be read or written.
    """
    try:
        evidence.verify_bundle(target, model, digest)
    except (bundles.UnknownBundleError, evidence.UnsignedBundleError):
        reader = source.model_copy(update={"trusted_keys": target.trusted_keys})
        verified = evidence.verify_bundle(reader, model, digest)
        evidence.copy_statements(source, target, model, digest)
        bundles.push(target, verified.manifest, verified.files)
