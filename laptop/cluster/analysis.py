"""AnalysisRuns: Jobs that check a rollout. The end of a Job is the result of its measurement."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from laptop.cluster.admission_control import admit
from laptop.cluster.analysis_metrics import (
    ENDED,
    add_measurement,
    is_terminating,
    metric_phase,
    run_phase,
    summary,
    violation,
    wanted_count,
)
from laptop.cluster.analysis_validation import (
    AnalysisError,
    dry_run_metrics,
    resolved,
    run_dry_rules,
    run_metrics,
    step_arguments,
    why_run_invalid,
)
from laptop.cluster.conditions import is_true
from laptop.cluster.controller import Controller
from laptop.cluster.defaults import with_defaults
from laptop.cluster.durations import duration_seconds
from laptop.cluster.event_log import record
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
from laptop.cluster.replica_sets import ROLLOUT_HASH
from laptop.cluster.rollout_validation import template_names

_ERROR_RETRY = 10.0  # seconds until a measurement that could not be taken is taken again, Argo's default
_MEASUREMENTS_KEPT = 10  # for each metric, Argo's default
_LONGEST_NAME = 63  # characters, because the name of a Job becomes a label of its pods


def is_ended(run: Object) -> bool:
    """Return whether an AnalysisRun has ended."""
    return (run.get("status") or {}).get("phase") in ENDED


def start_analysis(
    store: ObjectStore,
    rollout: Object,
    step: dict[str, Any],
    index: int,
    new_hash: str,
    stable_hash: str,
    revision: int,
) -> Object:
    """Create the AnalysisRun of a step whose templates exist, and return it."""
    namespace = namespace_of(rollout)
    templates = [store.get(ANALYSIS_TEMPLATE, namespace, template) for template in template_names(step)]
    given = {item["name"]: _argument(item, rollout, new_hash, stable_hash) for item in step.get("args") or ()}
    arguments = step_arguments(templates, given)
    name = base = f"{name_of(rollout)}-{new_hash}-{revision}-{index}"
    tries = 0
    while store.find(ANALYSIS_RUN, namespace, name) is not None:
        tries += 1
        name = f"{base}.{tries}"
    labels = {ROLLOUT_HASH: new_hash, "step-index": str(index), "rollout-type": "Step"}
    labels |= rollout["spec"]["selector"].get("matchLabels") or {}
    spec: dict[str, Any] = {
        "args": [{"name": key, **({"value": value} if value is not None else {})} for key, value in arguments.items()],
        "metrics": run_metrics(templates),
    }
    if dry := run_dry_rules(templates, step):
        spec["dryRun"] = dry
    metadata = {
        "name": name,
        "labels": labels,
        "annotations": {"rollout.argoproj.io/revision": str(revision)},
        "ownerReferences": [owner_reference(ROLLOUT, rollout)],
    }
    return store.create(ANALYSIS_RUN, namespace, {"metadata": metadata, "spec": spec})


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
        if is_deleting(obj) or is_ended(obj):
            return None
        arguments = {item["name"]: item.get("value") for item in obj["spec"].get("args") or ()}
        try:
            metrics = [resolved(metric, arguments) for metric in obj["spec"]["metrics"]]
        except AnalysisError as error:
            self._refuse(obj, f"Unable to resolve metric arguments: {error}")
            return None
        spec = obj["spec"] | {"metrics": metrics}
        if problem := why_run_invalid(spec):
            self._refuse(obj, f"Analysis spec invalid: {problem}")
            return None
        results = {item["name"]: dict(item) for item in (obj.get("status") or {}).get("metricResults") or ()}
        dry = dry_run_metrics(spec)
        terminating = is_terminating(spec, list(results.values()))
        waits: list[float] = []
        for metric in metrics:
            name = metric["name"]
            result, wait = self._measure(obj, metric, results.get(name), terminating=terminating)
            if result is not None:
                results[name] = result | ({"dryRun": True} if name in dry else {})
            if wait is not None:
                waits.append(wait)
        self._assess(obj, spec, results)
        return min(waits, default=None)

    def _refuse(self, obj: Object, message: str) -> None:
        """End a run that Argo does not measure."""
        self._write(obj, {"phase": "Error", "message": message})

    def _assess(self, obj: Object, spec: dict[str, Any], results: dict[str, dict[str, Any]]) -> None:
        terminating = is_terminating(spec, list(results.values()))
        for metric in spec["metrics"]:
            result = results.get(metric["name"])
            if result is None:
                continue
            phase = metric_phase(metric, result, terminating=terminating)
            if phase != result["phase"]:
                measurements = result.get("measurements") or ()
                result["phase"] = phase
                _set_text(result, "message", measurements[-1].get("message", "") if measurements else "")
                if phase in ENDED:
                    text = f"Metric '{metric['name']}' Completed. Result: {phase}"
                    warning = phase in ("Failed", "Error")
                    record(self._store, ANALYSIS_RUN, obj, f"Metric{phase}", text, warning=warning)
            why = violation(metric, result)[1]
            if result.get("dryRun") and phase in ENDED and why:
                result["message"] = f"Metric assessed {phase} due to {why}"
        found = list(results.values())
        phase, message = run_phase(spec, found, terminating=terminating)
        status: dict[str, Any] = {
            "phase": phase,
            "metricResults": found,
            "runSummary": summary(spec, found, dry=False),
            "dryRunSummary": summary(spec, found, dry=True),
        }
        _set_text(status, "message", message)
        self._write(obj, status)

    def _write(self, obj: Object, status: dict[str, Any]) -> None:
        before = obj.get("status") or {}

        def change(target: Object) -> None:
            written = status | {"startedAt": before.get("startedAt") or now()}
            if status["phase"] in ENDED:
                written["completedAt"] = now()
            target["status"] = written

        self._store.modify(ANALYSIS_RUN, obj, change)
        if status["phase"] in ENDED:
            text, warning = f"Analysis Completed. Result: {status['phase']}", status["phase"] in ("Failed", "Error")
            record(self._store, ANALYSIS_RUN, obj, f"AnalysisRun{status['phase']}", text, warning=warning)

    def _measure(
        self, obj: Object, metric: dict[str, Any], result: dict[str, Any] | None, *, terminating: bool
    ) -> tuple[dict[str, Any] | None, float | None]:
        """Take, continue or end a measurement. Return the metric's result, and the seconds until the next call."""
        if result is not None and result["phase"] in ENDED:
            return result, None
        measurements = [dict(item) for item in (result or {}).get("measurements") or ()]
        key, clock = (uid_of(obj), metric["name"]), asyncio.get_running_loop().time()
        if measurements and measurements[-1]["phase"] == "Running":
            assert result is not None
            last = measurements[-1]
            self._end(last) if terminating else self._read(obj, last)
            if last["phase"] != "Running":
                result = add_measurement(result, last)
                scaled = duration_seconds(metric.get("interval") or "0") * self._time_scale
                self._next[key] = clock + (_ERROR_RETRY * self._time_scale if last["phase"] == "Error" else scaled)
            result = {**result, "measurements": measurements[-_MEASUREMENTS_KEPT:]}
            return result, 0.0 if last["phase"] != "Running" else None
        if terminating:
            return result, None
        wanted = wanted_count(metric)
        if measurements and wanted is not None and (result or {}).get("count", 0) >= wanted:
            return result, None
        delay = duration_seconds(metric.get("initialDelay") or "0") * self._time_scale
        at = self._next.setdefault(key, clock + delay)
        if at > clock:
            return result, at - clock
        result = dict(result or {"name": metric["name"], "phase": "Running"})
        asked = self._ask(obj, metric, result.get("count", 0) + result.get("error", 0) + 1)
        if asked["phase"] != "Running":
            result = add_measurement(result, asked)
            self._next[key] = clock + _ERROR_RETRY * self._time_scale
        return {**result, "measurements": [*measurements, asked][-_MEASUREMENTS_KEPT:]}, None

    def _ask(self, obj: Object, metric: dict[str, Any], number: int) -> dict[str, Any]:
        job = metric["provider"]["job"]
        name = _job_name(uid_of(obj), metric["name"], number)
        given = job.get("metadata") or {}
        manifest = {
            "apiVersion": JOB.api_version,
            "kind": JOB.name,
            "metadata": {
                "name": name,
                "labels": {**(given.get("labels") or {}), "analysisrun.argoproj.io/uid": uid_of(obj)},
                "annotations": {**(given.get("annotations") or {}), **_about(obj, metric)},
                "ownerReferences": [owner_reference(ANALYSIS_RUN, obj)],
            },
            "spec": job["spec"],
        }
        measurement = {"phase": "Running", "startedAt": now()}
        try:
            manifest = with_defaults(JOB, manifest)
            admit(self._store, JOB, namespace_of(obj), manifest)
            self._store.create(JOB, namespace_of(obj), manifest)
        except StatusError as refusal:
            return measurement | {"phase": "Error", "message": refusal.message, "finishedAt": now()}
        return measurement | {"metadata": {"job-name": name, "job-namespace": namespace_of(obj)}}

    def _read(self, obj: Object, measurement: dict[str, Any]) -> None:
        name = measurement["metadata"]["job-name"]
        job = self._store.find(JOB, namespace_of(obj), name)
        if job is None:
            measurement |= {"phase": "Error", "message": f'job.batch "{name}" not found', "finishedAt": now()}
        elif is_true(job, "Complete"):
            measurement |= {"phase": "Successful", "finishedAt": now()}
        elif is_true(job, "Failed"):
            measurement |= {"phase": "Failed", "finishedAt": now()}

    def _end(self, measurement: dict[str, Any]) -> None:
        where, name = measurement["metadata"]["job-namespace"], measurement["metadata"]["job-name"]
        if self._store.find(JOB, where, name) is not None:
            self._store.delete(JOB, where, name, propagation="Foreground")
        measurement |= {"phase": "Successful", "message": "Metric Terminated", "finishedAt": now()}


def _job_name(uid: str, metric: str, number: int) -> str:
    excess = len(f"{uid}.{metric}.{number}") - _LONGEST_NAME
    return f"{uid}.{metric[: len(metric) - excess] if excess > 0 else metric}.{number}"


def _about(obj: Object, metric: dict[str, Any]) -> dict[str, str]:
    return {
        "analysisrun.argoproj.io/name": name_of(obj),
        "analysisrun.argoproj.io/namespace": namespace_of(obj),
        "analysisrun.argoproj.io/metric-name": metric["name"],
    }


def _set_text(target: dict[str, Any], key: str, text: str) -> None:
    target.pop(key, None)
    if text:
        target[key] = text
