"""Finish what a killed Pulumi process left half done, before the next operation on the stack."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from pipelines.registry import clients
from pipelines.targets.import_ids import import_id
from pipelines.targets.pending_operations import (
    Resolution,
    adopt_resources,
    ids_in,
    plan_resolution,
)

Pulumi = Callable[..., str]
"""Runs `pulumi` with arguments on the stack, and returns its standard output."""

Log = Callable[[str], None]
"""Receives one line of progress."""


def resolve_interrupted_update(pulumi: Pulumi, log: Log) -> Resolution | None:
    """Make the state agree with what an interrupted operation created, changed or deleted.

    The caller must hold the stack. Can be interrupted and run again.

    Args:
        pulumi: runs Pulumi on the stack.
        log: receives what is found, a line per resource.

    Returns:
        What was resolved; None if no operation was interrupted.

    Raises:
        MlopsError: the state cannot be read or written, or a resource cannot be read.
    """
    exported = json.loads(pulumi("stack", "export"))
    plan = plan_resolution(exported, lambda kind, inputs: import_id(kind, inputs, _account))
    if not plan.is_needed:
        return None
    for urn in plan.targets:
        log(f"an earlier operation was interrupted at {urn}; reading it")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "stack.json")
        file.write_text(json.dumps(adopt_resources(exported, plan.adopt)))
        pulumi("stack", "import", "--file", str(file))
    if plan.targets:
        targets = [argument for urn in plan.targets for argument in ("--target", urn)]
        pulumi("refresh", "--yes", "--skip-preview", "--non-interactive", *targets)
    found = ids_in(json.loads(pulumi("stack", "export"))) if plan.adopt else {}
    for urn, expected in plan.adopt.items():
        log(f"{expected} exists, and is in the state now" if urn in found else f"{expected} was not created")
    for description in plan.unidentified.values():
        log(
            f"warning: an earlier operation was interrupted while it created {description}, whose id is unknown; it is "
            "created again, so look for an earlier copy and delete it"
        )
    return plan


def _account() -> str:
    return str(clients.client("sts").get_caller_identity()["Account"])
