"""Brings the state up to what is at the target."""

from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from laptop.engine.ledger import Ledger
from laptop.engine.paths import changed_paths
from laptop.engine.provider import Providers, is_provider
from laptop.engine.report import Report
from laptop.engine.resources import ResourceState
from laptop.engine.steps import Kind, Step, describe_changes
from laptop.engine.values import Properties, still_secret


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
    found = reconcile(known, live)
    if found != known:
        ledger.put(found)
    drifted = changed_paths(known.inputs.values, found.inputs.values)
    if not drifted:
        report.ended(Step(Kind.SAME, known.urn, seconds=seconds))
        return
    changes = describe_changes(known.inputs, found.inputs, {str(path[0]) for path in drifted})
    report.ended(Step(Kind.DRIFTED, known.urn, changes=changes, seconds=seconds))


def reconcile(known: ResourceState, live: dict[str, Any]) -> ResourceState:
    """The resource as it is at the target.

    What was asked for and is no longer as the last step left it becomes what was found, so that the next `up` sees a
    difference to what the program says, and puts it right. What nobody asked for is no drift, however it changes.
    """
    values = _all_followed(known.inputs.values, known.outputs.values, live)
    return replace(
        known,
        inputs=Properties(values, still_secret(known.inputs.secrets, values)),
        outputs=Properties(live, still_secret(known.outputs.secrets, live)),
    )


def _all_followed(asked: dict[str, Any], before: dict[str, Any], live: dict[str, Any]) -> dict[str, Any]:
    """What was never to be seen at the target (a flag for the provider) stays; what was, and is no more, goes."""
    return {
        key: _followed(value, before.get(key), live[key]) if key in live else value
        for key, value in asked.items()
        if key in live or key not in before
    }


def _followed(asked: Any, before: Any, live: Any) -> Any:
    """An input after what was made of it went from `before` to `live`.

    A key that has come since the last step belongs to the input, where the input has keys at all (a tag that somebody
    added); one that was there already without having been asked for does not.
    """
    if before == live and type(before) is type(live):
        return asked
    if isinstance(asked, dict) and isinstance(before, dict) and isinstance(live, dict):
        kept = _all_followed(asked, before, live)
        return kept | {key: value for key, value in live.items() if key not in asked and key not in before}
    lists = [value for value in (asked, before, live) if isinstance(value, list)]
    if len(lists) == 3 and len({len(value) for value in lists}) == 1:
        return [_followed(*items) for items in zip(*lists, strict=True)]
    return live
