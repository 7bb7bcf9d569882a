"""AnalysisRuns: Jobs that check a rollout. The end of a Job is the result of its measurement."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from laptop.cluster.admission_control import admit
from laptop.cluster.conditions import is_true
from laptop.cluster.controller import Controller
from laptop.cluster.durations import seconds_of
from laptop.cluster.kinds import ANALYSIS_RUN, ANALYSIS_TEMPLATE, JOB, ROLLOUT
from laptop.cluster.objects import (
    Object,
    ObjectStore,
    is_deleting,
    name_of,
    namespace_of,
    now,
    owner_reference,
    uid_of,
)
from laptop.cluster.refusals import StatusError

_ARGUMENT = re.compile(r"\{\{\s*args\.([\w-]+)\s*\}\}")
_ENDED = ("Successful", "Failed", "Error", "Inconclusive")
_ERROR_LIMIT = 4  # Argo's default `consecutiveErrorLimit`


def start_analysis(
    store: ObjectStore,
    rollout: Object,
    step: dict[str, Any],
    index: int,
    new_hash: str,
    stable_hash: str,
    revision: int,
) -> tuple[Object | None, str]:
    """Create the AnalysisRun of a step. Returns it, or None and the reason why it cannot be created."""
    metrics: list[dict[str, Any]] = []
    arguments: dict[str, str | None] = {}
    for reference in step["templates"]:
        template = store.find(ANALYSIS_TEMPLATE, namespace_of(rollout), reference["templateName"])
        if template is None:
            return None, f'AnalysisTemplate "{reference["templateName"]}" not found'
        metrics += template["spec"]["metrics"]
        arguments |= {item["name"]: item.get("value") for item in template["spec"].get("args") or ()}
    for item in step.get("args") or ():
        arguments[item["name"]] = _argument(item, rollout, new_hash, stable_hash)
    missing = sorted(name for name, value in arguments.items() if value is None)
    if missing:
        return None, f"args.{missing[0]} was not resolved"
    run = {
        "metadata": {
            "generateName": f"{name_of(rollout)}-{new_hash}-{revision}-{index}-",
            "labels": {"rollouts-pod-template-hash": new_hash, "step-index": str(index), "rollout-type": "Step"},
            "ownerReferences": [owner_reference(ROLLOUT, rollout)],
        },
        "spec": {
            "args": [{"name": name, "value": value} for name, value in arguments.items()],
            "metrics": metrics,
        },
    }
    return store.create(ANALYSIS_RUN, namespace_of(rollout), run), ""


def _argument(item: dict[str, Any], rollout: Object, new_hash: str, stable_hash: str) -> str | None:
    source = item.get("valueFrom")
    if not source:
        return item.get("value")
    if "podTemplateHashValue" in source:
        return new_hash if source["podTemplateHashValue"] == "Latest" else stable_hash
    value: Any = rollout
    for key in re.findall(r"\['([^']+)'\]|([^.\[\]]+)", source["fieldRef"]["fieldPath"]):
        value = value.get(key[0] or key[1]) if isinstance(value, dict) else None
    return None if value is None else str(value)


class Analyses(Controller):
    """Controller of AnalysisRuns: runs their Jobs and assesses the results.

    Args:
        store: objects of the cluster.
        time_scale: factor applied to declared intervals and initial delays.
    """

    kind = ANALYSIS_RUN

    def __init__(self, store: ObjectStore, time_scale: float) -> None:
        super().__init__(store)
        self._time_scale = time_scale
        self._next: dict[tuple[str, str], float] = {}

    def forget(self, obj: Object) -> None:
        """Drop the state of a deleted AnalysisRun."""
        for key in [key for key in self._next if key[0] == uid_of(obj)]:
            del self._next[key]

    def reconcile(self, obj: Object) -> float | None:
        """Reconcile one AnalysisRun."""
        if is_deleting(obj) or (obj.get("status") or {}).get("phase") in _ENDED:
            return None
        results = {item["name"]: item for item in (obj.get("status") or {}).get("metricResults") or ()}
        waits: list[float] = []
        for metric in obj["spec"]["metrics"]:
            result = results.setdefault(metric["name"], {"name": metric["name"], "phase": "Pending"})
            results[metric["name"]], wait = self._measure(obj, metric, {**result})
            if wait is not None:
                waits.append(wait)
        phase, message = _verdict(list(results.values()))
        if obj["spec"].get("terminate") and phase not in _ENDED:
            phase, message = "Successful", "Run Terminated"
        if phase in _ENDED:
            for job in self._store.owned(JOB, obj):
                if not is_true(job, "Complete") and not is_true(job, "Failed"):
                    self._store.delete(JOB, namespace_of(job), name_of(job), propagation="Foreground")

        def change(target: Object) -> None:
            status = target.setdefault("status", {})
            status.setdefault("startedAt", now())
            status |= {"phase": phase, "metricResults": list(results.values())}
            if phase in _ENDED:
                status.setdefault("completedAt", now())
            if message:
                status["message"] = message

        self._store.modify(ANALYSIS_RUN, obj, change)
        return min(waits, default=None)

    def _measure(
        self, obj: Object, metric: dict[str, Any], result: dict[str, Any]
    ) -> tuple[dict[str, Any], float | None]:
        if result["phase"] in _ENDED:
            return result, None
        measurements = [dict(item) for item in result.get("measurements") or ()]
        clock = asyncio.get_running_loop().time()
        key = (uid_of(obj), metric["name"])
        if measurements and measurements[-1]["phase"] == "Running":
            self._read(obj, measurements[-1])
            interval = seconds_of(metric.get("interval", 0)) * self._time_scale
            self._next[key] = clock + interval
        result["measurements"] = measurements
        result |= _tally(measurements)
        result["phase"], result["message"] = _metric_phase(metric, measurements)
        if not result["message"]:
            del result["message"]
        if result["phase"] in _ENDED or (measurements and measurements[-1]["phase"] == "Running"):
            return result, None
        if obj["spec"].get("terminate"):
            return result, None
        delay = seconds_of(metric.get("initialDelay", 0)) * self._time_scale
        at = self._next.setdefault(key, clock + delay)
        if at > clock:
            return result, at - clock
        measurements.append(self._ask(obj, metric, len(measurements) + 1))
        result["phase"] = "Running"
        return result, None if measurements[-1]["phase"] == "Running" else 0.1

    def _ask(self, obj: Object, metric: dict[str, Any], number: int) -> dict[str, Any]:
        arguments = {item["name"]: str(item["value"]) for item in obj["spec"].get("args") or ()}
        job = _filled(metric["provider"]["job"], arguments)
        name = f"{uid_of(obj)[:18]}.{metric['name']}.{number}"
        manifest = {
            "apiVersion": JOB.api_version,
            "kind": JOB.name,
            "metadata": {
                **(job.get("metadata") or {}),
                "name": name,
                "ownerReferences": [owner_reference(ANALYSIS_RUN, obj)],
            },
            "spec": job["spec"],
        }
        measurement = {"phase": "Running", "startedAt": now()}
        try:
            admit(self._store, JOB, namespace_of(obj), manifest)
            self._store.create(JOB, namespace_of(obj), manifest)
        except StatusError as refusal:
            return measurement | {"phase": "Error", "message": refusal.message, "finishedAt": now()}
        return measurement | {"metadata": {"job-name": name, "job-namespace": namespace_of(obj)}}

    def _read(self, obj: Object, measurement: dict[str, Any]) -> None:
        job = self._store.find(JOB, namespace_of(obj), measurement["metadata"]["job-name"])
        if job is None:
            measurement |= {"phase": "Error", "message": "the job was deleted", "finishedAt": now()}
        elif is_true(job, "Complete"):
            measurement |= {"phase": "Successful", "finishedAt": now()}
        elif is_true(job, "Failed"):
            failed = next(item for item in job["status"]["conditions"] if item["type"] == "Failed")
            measurement |= {"phase": "Failed", "message": failed.get("message", ""), "finishedAt": now()}


def _filled(value: Any, arguments: dict[str, str]) -> Any:
    """Return a copy of a JSON value with `{{args.x}}` replaced in every string. Unknown arguments are unchanged."""
    if isinstance(value, str):
        return _ARGUMENT.sub(lambda match: arguments.get(match[1], match[0]), value)
    if isinstance(value, list):
        return [_filled(item, arguments) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, arguments) for key, item in value.items()}
    return json.loads(json.dumps(value))


def _tally(measurements: list[dict[str, Any]]) -> dict[str, int]:
    tally = {"count": sum(item["phase"] != "Running" for item in measurements)}
    for phase, key in (("Successful", "successful"), ("Failed", "failed"), ("Error", "error")):
        number = sum(item["phase"] == phase for item in measurements)
        tally |= {key: number} if number else {}
    return tally


def _metric_phase(metric: dict[str, Any], measurements: list[dict[str, Any]]) -> tuple[str, str]:
    """Return the phase and message of a metric after its measurements, as Argo assesses it."""
    failed = [item for item in measurements if item["phase"] == "Failed"]
    limit = int(metric.get("failureLimit", 0))
    if len(failed) > limit:
        why = failed[-1].get("message", "")
        return "Failed", f"failed ({len(failed)}) > failureLimit ({limit})" + (f": {why}" if why else "")
    errors = 0
    for item in reversed(measurements):
        if item["phase"] != "Error":
            break
        errors += 1
    error_limit = int(metric.get("consecutiveErrorLimit", _ERROR_LIMIT))
    if errors > error_limit:
        why = measurements[-1].get("message", "")
        return "Error", f"consecutiveErrors ({errors}) > consecutiveErrorLimit ({error_limit}): {why}"
    if not measurements:
        return "Pending", ""
    wanted = int(metric.get("count", 1))
    valid = sum(item["phase"] in ("Successful", "Failed") for item in measurements)
    return ("Successful", "") if valid >= wanted else ("Running", "")


def _verdict(results: list[dict[str, Any]]) -> tuple[str, str]:
    """Return the phase of a run: that of a failed metric at once, else that of all metrics once they have ended."""
    for phase in ("Failed", "Error"):
        for result in results:
            if result["phase"] == phase:
                return phase, f'Metric "{result["name"]}" assessed {phase} due to {result["message"]}'
    if all(result["phase"] in _ENDED for result in results):
        return "Successful", ""
    return "Running", ""
