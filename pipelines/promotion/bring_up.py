"""Create or update an environment by hand, without taking a release live that no gate has judged."""

from __future__ import annotations

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.live_models import released
from pipelines.declarations.markdown import short_digest
from pipelines.promotion.attempt import Log
from pipelines.promotion.live_bundles import live_bundle
from pipelines.targets import Target


def bring_up(target: Target, environment: str, log: Log) -> None:
    """Apply the program of an environment; only `deploy` changes which bundles are live.

    An environment that does not exist yet is created without images and releases if git names a bundle for it: the
    gates need its registry before they can judge.

    Args:
        target: where the environment lives.
        environment: its name.
        log: receives what was left out.

    Raises:
        UnjudgedReleaseError: the program would change which bundles are live.
        MlopsError: the environment does not exist, a ledger cannot be read, or the program failed.
    """
    project = target.project
    declared = {model: project.release(model, environment).bundle for model in project.model_names}
    if not target.is_up(environment):
        is_released = any(declared.values())
        target.apply("up", environment, foundation_only=is_released)
        if is_released:
            log(
                f"{environment} is created, without images and releases: the gates judge them first. Now run mlops "
                f"deploy --env {environment}"
            )
        return
    descriptors, applied = {environment: target.descriptor(environment)}, released(target.outputs(environment))
    for model, bundle in declared.items():
        if bundle is None and model not in applied:
            continue
        live = live_bundle(descriptors, environment, model)
        if bundle != live:
            raise UnjudgedReleaseError(model, environment, bundle, live)
    target.apply("up", environment)


class UnjudgedReleaseError(MlopsError):
    """A release file names another bundle than the one that is live.

    Args:
        model, environment: of the release file.
        bundle: the bundle that it names; None if it names none.
        live: the bundle that is live; None if none is.
    """

    def __init__(self, model: str, environment: str, bundle: str | None, live: str | None) -> None:
        super().__init__(
            f"{model} in {environment}: expected the release file to name the live bundle, {short_digest(live)}, found "
            f"{short_digest(bundle)}; `up` would apply it without the gates",
            fix=f"mlops deploy --env {environment}, which judges it; or let the file name what is live: mlops release "
            f"{model} --env {environment} --live",
        )
