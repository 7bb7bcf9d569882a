"""Brings the state up to what is at the target."""

from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from infra.local.engine.ledger import Ledger
from infra.local.engine.paths import changed_paths
from infra.local.engine.provider import Providers, is_provider
from infra.local.engine.report import Report
from infra.local.engine.resources import ResourceState
from infra.local.engine.steps import Kind, Step, describe_changes
from infra.local.engine.values import Properties, still_secret


def refresh_all(ledger: Ledger, providers: Providers, report: Report, parallel: int) -> None:
    """Reads every managed resource at the target, which is only read, and keeps what was found."""
    managed = [
        known
        for known in ledger.contents.resources.values()
        if known.custom and not known.external and not known.recorded and not is_provider(known.type)
    ]
    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="refresh") as pool:
        list(pool.map(lambda known: _refresh(known, ledger, providers, report), managed))


def _refresh(known: ResourceState, ledger: Ledger, providers: Providers, report: Report) -> None:
    began = time.monotonic()
    try:
        inputs, outputs = copy.deepcopy((known.inputs.values, known.outputs.values))
        live = providers.serving(known.type).read(known.type, known.id, inputs, outputs)
    except Exception as error:
        report.failed(Kind.READ, known.urn, error, began)
        return
    seconds = time.monotonic() - began
    if live is None:
        ledger.drop(known)
        report.ended(Step(Kind.GONE, known.urn, seconds=seconds))
        return
    found, drifted = reconcile(known, live)
    if not drifted:
        report.ended(Step(Kind.SAME, known.urn, seconds=seconds))
        return
    ledger.put(found)
    changes = describe_changes(known.outputs, found.outputs, drifted)
    report.ended(Step(Kind.DRIFTED, known.urn, changes=changes, seconds=seconds))


def reconcile(known: ResourceState, live: dict[str, Any]) -> tuple[ResourceState, tuple[str, ...]]:
    """The resource as it is at the target, and which of its properties drifted.

    An input that is not what the last step left becomes what was found, so that the next `up` sees a difference
    to what the program says, and puts it right.
    """
    drifted = tuple(sorted({str(path[0]) for path in changed_paths(known.outputs.values, live)}))
    values = dict(known.inputs.values)
    for key in set(drifted) & values.keys():
        if key in live:
            values[key] = live[key]
        else:
            del values[key]
    found = replace(
        known,
        inputs=Properties(values, still_secret(known.inputs.secrets, values)),
        outputs=Properties(live, still_secret(known.outputs.secrets, live)),
    )
    return found, drifted
