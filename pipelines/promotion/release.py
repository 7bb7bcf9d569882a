"""Write a release: the one-file change by which an environment is asked to run a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.files import write_atomically
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.registry import bundles, evidence


def release(
    project: Project, descriptors: Mapping[str, EnvironmentDescriptor], model: str, environment: str, bundle: str
) -> Path:
    """Make `models/<model>/releases/<environment>.yaml` name a bundle, and what it named before as replaced.

    The bundle is verified in the registry of the environment before, which it must have reached; for the first
    environment in its own. Naming the bundle that is named already changes nothing.

    Args:
        project: the repository; nothing else in it is touched.
        descriptors: environment → descriptor, of those that are up.
        model: the model's name.
        environment: the environment that is to run it.
        bundle: the bundle's digest.

    Returns:
        The release file.

    Raises:
        UnknownBundleError: the environment before does not have the bundle.
        TamperedBundleError, UnsignedBundleError, BadSignatureError: it cannot be trusted.
        MlopsError: there is no such model or environment, or the one to verify in is not up.
    """
    project.model(model)
    previous = project.stack(environment).config.environment.promotes_from
    verified_in = previous or environment
    descriptor = descriptors.get(verified_in)
    if descriptor is None:
        raise MlopsError(f"the bundle cannot be verified: {verified_in} is not up", fix=f"mlops up --env {verified_in}")
    try:
        evidence.verify_bundle(descriptor, model, bundle, signer=project.environments[0])
    except bundles.UnknownBundleError as error:
        if previous is None:
            raise
        raise bundles.UnknownBundleError(
            f"{previous} does not have the bundle {bundle} of {model}, so {environment} cannot get it",
            fix=f"release it in {previous} first: mlops release {model} --env {previous} --bundle {bundle}",
        ) from error
    path = project.release_file(model, environment)
    named = project.release(model, environment).bundle if path.is_file() else None
    if named != bundle:
        changed = Release(model=model, environment=environment, bundle=bundle, replaces=named)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, render_release(changed))
    return path
