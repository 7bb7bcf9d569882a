"""Compare an environment with git: its infrastructure, and the bundles that its endpoints serve."""

from __future__ import annotations

from pipelines.declarations.errors import MlopsError
from pipelines.promotion.attempt import Log
from pipelines.promotion.pod_endpoints import open_pods
from pipelines.targets import Target


def audit(target: Target, environment: str, log: Log) -> bool:
    """Compare an environment with git.

    Args:
        target: where the environment lives.
        environment: its name.
        log: receives one line for each endpoint that matches, or that the environment was never brought up.

    Returns:
        False if the environment was never brought up, so there is nothing to compare.

    Raises:
        MlopsError: the environment differs from git; every difference is listed.
    """
    if not target.is_up(environment):
        log(f"{environment} was never brought up: skipped")
        return False
    descriptor = target.descriptor(environment)
    differences = target.drift(environment)
    for model in target.project.model_names:
        wanted = target.project.release(model, environment).bundle
        if wanted is None and model not in descriptor.endpoints:
            continue
        try:
            with open_pods(descriptor, model) as pods:
                served = " and ".join(sorted({pod.served() for pod in pods}))
        except MlopsError as error:  # the other models are still compared
            differences.append(f"{model}: git names {wanted or 'no bundle'}, but the endpoint failed: {error.what}")
            continue
        if served != wanted:
            differences.append(f"{model}: git names {wanted or 'no bundle'}, but {environment} serves {served}")
        else:
            log(f"{model}: serves {served}, as in git")
    if differences:
        raise MlopsError(
            f"{environment} differs from git:\n" + "\n".join(f"- {difference}" for difference in differences),
            fix=f"find out who changed it; to undo it, run mlops refresh --env {environment}, then mlops deploy",
        )
    return True
