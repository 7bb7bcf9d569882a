"""The bundle that is live, and the release file that names it."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.release import Release
from pipelines.registry.ledger import Ledger


def live_bundle(descriptors: Mapping[str, EnvironmentDescriptor], environment: str, model: str) -> str | None:
    """Return the bundle that the ledger records as live; None if none is, or the environment is not up.

    Raises:
        MlopsError: the ledger cannot be read.
    """
    if environment not in descriptors:
        return None
    head = Ledger(descriptors[environment], model).head()
    return head.event.live if head is not None else None


def release_of_live(descriptor: EnvironmentDescriptor, model: str) -> Release:
    """Return the release file that names what is live in an environment, and what that replaced; or no bundle.

    Raises:
        MlopsError: the ledger cannot be read.
    """
    entry = Ledger(descriptor, model).went_live()
    live, before = (entry.event.live, entry.event.before) if entry is not None else (None, None)
    return Release(model=model, environment=descriptor.name, bundle=live, replaces=before if before != live else None)
