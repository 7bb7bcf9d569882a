"""Propose changes by pull request: releases, and the images that environments run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.environment import EnvironmentDescriptor, Images
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import ImageName
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.github import pull_requests
from pipelines.github.gh import Gh
from pipelines.github.git import Git
from pipelines.promotion.attempt import Log
from pipelines.promotion.images import pin_images
from pipelines.promotion.live_bundles import live_bundle, release_of_live
from pipelines.registry import bundles, evidence
from pipelines.registry.bundle_quarantine import quarantined_anywhere
from pipelines.registry.image_records import read_image_record
from pipelines.targets import Target


def write_release(
    project: Project, descriptors: Mapping[str, EnvironmentDescriptor], model: str, environment: str, bundle: str
) -> Path:
    """Write a bundle into `models/<model>/releases/<environment>.yaml`, with the live bundle that it replaces.

    The bundle is verified in the registry that it comes from: the previous environment's, or the first one's own.
    A file that already names both is left unchanged.

    Args:
        project: the repository.
        descriptors: environment → descriptor, of the environments that are up.
        model: the model's name.
        environment: the environment that will run the bundle.
        bundle: digest of the bundle.

    Returns:
        The release file.

    Raises:
        UnknownBundleError: the environment that it comes from does not have the bundle.
        TamperedBundleError, UnsignedBundleError, BadSignatureError: the bundle cannot be trusted.
        MlopsError: the model or the environment does not exist, or the environment to verify in is not up.
    """
    project.model(model)
    previous = project.stack(environment).config.environment.promotes_from
    verified_in = previous or environment
    descriptor = descriptors.get(verified_in)
    if descriptor is None:
        raise MlopsError(f"the bundle cannot be verified: {verified_in} is not up", fix=f"mlops up --env {verified_in}")
    signer = project.environments[0]
    try:
        evidence.verify_bundle(descriptor, model, bundle, signer=signer, all_runs=False)
    except bundles.UnknownBundleError as error:
        if previous is None:
            raise
        raise bundles.UnknownBundleError(
            f"{previous} does not have the bundle {bundle} of {model}, so {environment} cannot get it",
            fix=f"release it in {previous} first: mlops release {model} --env {previous} --bundle {bundle}",
        ) from error
    return _write(project, intended_release(project, descriptors, model, environment, bundle))


def intended_release(
    project: Project, descriptors: Mapping[str, EnvironmentDescriptor], model: str, environment: str, bundle: str
) -> Release:
    """Return the release file that releases a bundle: it replaces what is live, whatever the file names today.

    The two differ after a deployment that was refused or failed.

    Raises:
        MlopsError: the model or the environment does not exist, or the ledger cannot be read.
    """
    live = live_bundle(descriptors, environment, model)
    if live == bundle:
        named = _named(project, model, environment)
        return (
            named if named is not None and named.bundle == bundle else release_of_live(descriptors[environment], model)
        )
    return Release(model=model, environment=environment, bundle=bundle, replaces=live)


def write_live_release(
    project: Project, descriptors: Mapping[str, EnvironmentDescriptor], model: str, environment: str
) -> Path:
    """Write the bundle that is live into the release file, or no bundle if none is live. Returns the file.

    Raises:
        MlopsError: the model or the environment does not exist or is not up, or the ledger cannot be read.
    """
    project.model(model)
    project.stack(environment)
    if environment not in descriptors:
        raise MlopsError(f"{environment} is not up, so nothing is live there", fix=f"mlops up --env {environment}")
    wanted, named = release_of_live(descriptors[environment], model), _named(project, model, environment)
    # A file that names the live bundle agrees with it, whatever it replaced.
    return _write(project, named if named is not None and named.bundle == wanted.bundle else wanted)


def _named(project: Project, model: str, environment: str) -> Release | None:
    return project.release(model, environment) if project.release_file(model, environment).is_file() else None


def _write(project: Project, release: Release) -> Path:
    """Write a release file, unless it says the same already."""
    path = project.release_file(release.model, release.environment)
    if _named(project, release.model, release.environment) != release:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, render_release(release))
    return path


def propose_release(target: Target, model: str, environment: str, bundle: str, log: Log) -> int | None:
    """Open or update the pull request that releases a bundle.

    Args:
        target: where the environments live.
        model: the model's name.
        environment: the environment that will run the bundle.
        bundle: digest of the bundle.
        log: receives the result.

    Returns:
        The number of the pull request; None if main names the bundle already.

    Raises:
        MlopsError: the bundle cannot be trusted, or GitHub refuses.
    """
    project, descriptors = target.project, target.descriptors()
    bundles.hex_of(bundle)
    if _named(project, model, environment) == intended_release(project, descriptors, model, environment, bundle):
        log(f"the release of {model} to {environment} names {bundle} already; there is nothing to propose")
        return None
    gh = Gh.find(project.root)
    path = write_release(project, descriptors, model, environment, bundle)
    body = (
        f"Merging this makes {environment} run `{bundle}` of {model}.\n\n"
        "A workflow opened this pull request. The gates write their verdicts below, and judge again after the merge.\n"
    )
    return _open(gh, model, environment, path, f"Release {model} to {environment}", body, log)


def propose_live(target: Target, model: str, environment: str, log: Log) -> int | None:
    """Open or update the pull request that makes a release file name the bundle that is live.

    Args:
        target: where the environments live.
        model: the model's name.
        environment: the environment.
        log: receives the result.

    Returns:
        The number of the pull request; None if main names what is live.

    Raises:
        MlopsError: the environment is not up, the ledger cannot be read, or GitHub refuses.
    """
    project, before, gh = target.project, _named(target.project, model, environment), Gh.find(target.project.root)
    path = write_live_release(project, target.descriptors(), model, environment)
    after = project.release(model, environment)
    if after == before:
        log(f"the release of {model} to {environment} names what is live: {after.bundle or 'no bundle'}")
        return None
    body = (
        f"Merging this makes main name what is live in {environment}: `{after.bundle or 'no bundle'}`. "
        "It releases nothing.\n"
    )
    return _open(gh, model, environment, path, f"Name what is live of {model} in {environment}", body, log)


def _open(gh: Gh, model: str, environment: str, path: Path, title: str, body: str, log: Log) -> int:
    request = pull_requests.propose(gh, f"release/{environment}/{model}", [path], title, body)
    log(f"proposed in pull request {request.number}: {request.url}")
    return request.number


def next_releases(project: Project, environment: str) -> list[tuple[Release, str]]:
    """Return the releases of an environment that are not yet promoted, each with the environment they go to next."""
    downstream = [e for e in project.environments if project.stack(e).config.environment.promotes_from == environment]
    releases = [project.release(model, environment) for model in project.model_names]
    return [
        (release, to)
        for release in releases
        for to in downstream
        if release.bundle is not None and project.release(release.model, to).bundle != release.bundle
    ]


def next_pins(project: Project, environment: str) -> list[tuple[Images, str]]:
    """Return the images of an environment that are not yet promoted, each with the environment they go to next.

    The training image goes to environments that monitor models: their monitors run in it.
    """
    found = []
    own = project.stack(environment).config.environment.images
    for to in project.environments:
        config = project.stack(to).config.environment
        if config.promotes_from != environment:
            continue
        names: tuple[ImageName, ...] = ("serving", "training") if config.monitoring.models else ("serving",)
        newer = {
            name: getattr(own, name) for name in names if getattr(own, name) not in (None, getattr(config.images, name))
        }
        if newer:
            found.append((Images(**newer), to))
    return found


def propose_next(target: Target, environment: str, log: Log) -> None:
    """Open or update the pull requests that promote an environment's releases and images to the next environments.

    Images that the environment has not verified are left out, bundles that it does not run, and those that were rolled
    back in any environment: the gates would refuse them.

    Raises:
        MlopsError: a bundle or a record cannot be trusted, or GitHub refuses.
    """
    descriptors = target.descriptors()
    for release, to in next_releases(target.project, environment):
        if live_bundle(descriptors, environment, release.model) != release.bundle:
            log(f"{environment} does not run {release.bundle} of {release.model}; it is not proposed to {to}")
        elif why := quarantined_anywhere(descriptors, release.model).get(str(release.bundle)):
            log(f"{release.bundle} of {release.model} was rolled back: {why}; it is not proposed to {to}")
        else:
            propose_release(target, release.model, to, str(release.bundle), log)
    descriptor = target.descriptor(environment)
    for images, to in next_pins(target.project, environment):
        verified = {}
        for name in get_args(ImageName):
            digest = getattr(images, name)
            if digest is None:
                continue
            if read_image_record(descriptor, name, digest) is None:
                log(f"{environment} has not verified the {name} image yet; it is not proposed to {to}")
            else:
                verified[name] = digest
        if verified:
            why = f"{environment} runs and has verified them."
            propose_images(target.project, Images(**verified), to, why, log)


def propose_images(project: Project, images: Images, environment: str, why: str, log: Log) -> None:
    """Open or update the pull request that pins images in an environment.

    Args:
        project: the repository.
        images: the digests; None keeps the pinned one.
        environment: the environment.
        why: a sentence for the text of the pull request.
        log: receives the result.

    Raises:
        MlopsError: the stack file has no line to change, or GitHub refuses.
    """
    gh, file = Gh.find(project.root), project.stack_file(environment)
    pull_requests.take_from_main(gh, file)
    changed = False
    try:
        changed = pin_images(project, environment, images)
    finally:
        if not changed:
            Git(gh.root).restore_files([file.relative_to(gh.root).as_posix()])
    if not changed:
        log(f"{environment} pins these images already; there is nothing to propose")
        return
    digests = {name: digest for name, digest in sorted(images.model_dump().items()) if digest is not None}
    listed = "\n".join(f"- {name}: `{digest}`" for name, digest in digests.items())
    body = (
        f"Merging this makes {environment} run these images. {why}\n\n{listed}\n\n"
        "A workflow opened this pull request. The gates write their verdicts below, and judge again after the merge.\n"
    )
    title = f"Pin images in {environment}"
    request = pull_requests.propose(gh, f"pin/{environment}", [file], title, body)
    log(f"proposed in pull request {request.number}: {request.url}")
