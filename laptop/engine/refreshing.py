"""Refresh: update the state from the live resources."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from laptop.engine.journal import Journal
from laptop.engine.paths import changed_paths
from laptop.engine.progress import RunReport
from laptop.engine.provider import Providers, ResourceCall, is_provider
from laptop.engine.resource_steps import ResourceStep, StepKind, describe_changes
from laptop.engine.resources import ResourceState
from laptop.engine.values import Properties, still_secret


def refresh_all(journal: Journal, providers: Providers, report: RunReport, parallel: int) -> None:
    """Read every managed resource and store what was found. Changes only the state."""
    managed = [
        known
        for known in journal.contents.resources.values()
        if known.custom and not known.external and not known.recorded and not is_provider(known.type)
    ]
    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="refresh") as pool:
        list(pool.map(lambda known: _refresh(known, journal, providers, report), managed))
    left = journal.contents.resources
    gone = frozenset(known.urn for known in managed if known.urn not in left)
    for known in list(left.values()):
        if (independent := known.without(gone)) != known:
            journal.put(independent)


def _refresh(known: ResourceState, journal: Journal, providers: Providers, report: RunReport) -> None:
    began = time.monotonic()
    report.hide(known.inputs, known.outputs)
    try:
        live = providers.serving(known.type).read(ResourceCall.about(known))
    except Exception as error:
        report.failed(StepKind.READ, known.urn, error, began)
        return
    seconds = time.monotonic() - began
    if live is None:
        journal.drop(known)
        report.ended(ResourceStep(StepKind.GONE, known.urn, seconds=seconds))
        return
    found = reconcile(known, live)
    if found != known:
        journal.put(found)
    drifted = changed_paths(known.inputs.values, found.inputs.values)
    if not drifted:
        report.ended(ResourceStep(StepKind.SAME, known.urn, seconds=seconds))
        return
    changes = describe_changes(known.inputs, found.inputs, {str(path[0]) for path in drifted})
    report.ended(ResourceStep(StepKind.DRIFTED, known.urn, changes=changes, seconds=seconds))


def reconcile(known: ResourceState, live: dict[str, Any]) -> ResourceState:
    """Return the resource with its live values.

    An input whose live value differs from the last step takes the live value, so the next `up` sees a difference
    to the program and corrects it. Changes of computed values are not drift.
    """
    values = live_inputs(known.inputs.values, known.outputs.values, live)
    return replace(
        known,
        inputs=Properties(values, still_secret(known.inputs.secrets, values)),
        outputs=Properties(live, still_secret(known.outputs.secrets, live)),
    )


def live_inputs(wanted: dict[str, Any], before: dict[str, Any], live: dict[str, Any]) -> dict[str, Any]:
    """Update inputs that changed live. Keep those that were never outputs (provider flags); drop missing ones."""
    return {
        key: _followed(value, before.get(key), live[key]) if key in live else value
        for key, value in wanted.items()
        if key in live or key not in before
    }


def _followed(wanted: Any, before: Any, live: Any) -> Any:
    """Return an input after its output changed from `before` to `live`.

    If the input is an object, keys added since the last step (such as a new tag) become part of it. Keys that
    were already there as defaults do not.
    """
    if before == live and type(before) is type(live):
        return wanted
    if isinstance(wanted, dict) and isinstance(before, dict) and isinstance(live, dict):
        kept = live_inputs(wanted, before, live)
        return kept | {key: value for key, value in live.items() if key not in wanted and key not in before}
    lists = [value for value in (wanted, before, live) if isinstance(value, list)]
    if len(lists) == 3 and len({len(value) for value in lists}) == 1:
        return [_followed(*items) for items in zip(*lists, strict=True)]
    return live
