"""Keep pods from starting before EKS Pod Identity gives them their roles.

An association takes effect several seconds after it was created, and AWS does not say when (EKS API reference,
`CreatePodIdentityAssociation`). A pod that is created earlier never gets credentials.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from infra.components.serving_identity import ServingIdentity

SETTLE_SECONDS = 15.0
"""Seconds from the creation of an association to the first pod."""

pause = asyncio.sleep
"""Wait for a number of seconds, while Pulumi goes on with everything else."""

OUTPUT = "associations"
"""Stack output with the ids of the associations of all endpoints."""


def association_ids(identities: Sequence[ServingIdentity]) -> pulumi.Output[list[str]]:
    """Return the ids of the associations of endpoints."""
    return pulumi.Output.all(*(one.id for identity in identities for one in identity.associations)).apply(sorted)


def new_associations(ids: Sequence[str], last: Mapping[str, Any]) -> list[str]:
    """Return the associations that the last update did not know.

    Args:
        ids: ids of associations.
        last: the outputs of the stack's last update.
    """
    known = last.get(OUTPUT) or ()
    return [one for one in ids if one not in known]


class AssociationWait:
    """Waits of one update for the associations of endpoints. The first wait prints a line.

    Args:
        before: the outputs of the stack's last update.
    """

    def __init__(self, before: pulumi.Output[Any]) -> None:
        self._before = before
        self._is_announced = False

    def effective(self, identity: ServingIdentity) -> pulumi.Input[pulumi.Resource]:
        """Return an identity once its associations are effective. What depends on it is created then.

        Associations that existed before this update are effective. This waits for the others.

        Args:
            identity: the identities of an endpoint.
        """
        if pulumi.runtime.is_dry_run():
            return identity

        async def settled(known: Sequence[Any]) -> pulumi.Resource:
            last, *ids = known
            if new_associations(ids, last):
                self.announce()
                await pause(SETTLE_SECONDS)
            return identity

        return pulumi.Output.all(self._before, *(one.id for one in identity.associations)).apply(settled)

    def announce(self) -> None:
        """Print that something waits, unless that was printed before."""
        if not self._is_announced:
            self._is_announced = True
            pulumi.info(f"waiting {SETTLE_SECONDS:.0f} s until Pod Identity knows the new service accounts")
