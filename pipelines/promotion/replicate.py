"""Copy a bundle and its evidence into the next environment's registry."""

from __future__ import annotations

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import bundles, evidence


def replicate(source: EnvironmentDescriptor, target: EnvironmentDescriptor, model: str, digest: str) -> None:
    """Copy a bundle from one environment's registry into another's, unless it is already there.

    The evidence is copied first and the manifest last, so an interrupted copy leaves no bundle and can be repeated.
    The bundle is verified with the keys that the target trusts, whether it was copied or found.

    Args:
        source: the environment that has the bundle.
        target: the environment that will run it.
        model: the model's name.
        digest: digest of the bundle.

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
