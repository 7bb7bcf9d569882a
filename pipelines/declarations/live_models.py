"""Models that are live in an environment, and what keeps them from being removed by accident."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.declarations.errors import MlopsError

WITHDRAW = "docs/data-scientist.md#withdraw-and-remove-a-model"

FOUNDATION_ONLY = "MLOPS_FOUNDATION_ONLY"
"""Variable that makes the program leave out every image and release: their gates need the environment first."""


def released(outputs: Mapping[str, Any]) -> dict[str, str]:
    """Return model → digest of the bundle that has an endpoint, from the outputs of a stack.

    Earlier versions of the program exported the endpoints only; their bundles are then "a bundle".
    """
    held = outputs.get("released")
    if isinstance(held, Mapping):
        return {str(model): str(bundle) for model, bundle in held.items()}
    descriptor = outputs.get("descriptor")
    endpoints = descriptor.get("endpoints") if isinstance(descriptor, Mapping) else None
    return dict.fromkeys(endpoints or (), "a bundle")


def check_models(environment: str, live: Mapping[str, str], declared: Iterable[str]) -> None:
    """Refuse to lose the endpoint of a model whose folder is gone.

    Args:
        environment: its name.
        live: model → bundle that is live there.
        declared: the models of the repository.

    Raises:
        MlopsError: a model is live, but not declared.
    """
    known = set(declared)
    for model, bundle in sorted(live.items()):
        if model not in known:
            raise MlopsError(
                f"{model} is live in {environment} with {bundle}, but models/{model} does not exist: expected it to be "
                "withdrawn first",
                fix=f"restore models/{model} and withdraw the model in {environment}: {WITHDRAW}",
            )


def check_foundation_only(environment: str, live: Mapping[str, str]) -> None:
    """Refuse to leave out the releases of an environment that serves some.

    Args:
        environment: its name.
        live: model → bundle that is live there.

    Raises:
        MlopsError: a model is live.
    """
    if live:
        raise MlopsError(
            f"{environment} was brought up while this deployment began to create it: expected no endpoint, found "
            f"{', '.join(sorted(live))}",
            fix=f"run it again; if {FOUNDATION_ONLY} is set in this shell, unset it",
        )
