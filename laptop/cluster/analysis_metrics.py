"""Assessment of the metrics of an AnalysisRun, as pure functions in Argo's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from laptop.cluster.analysis_validation import dry_run_metrics

Metric = Mapping[str, Any]
Result = Mapping[str, Any]

ENDED = ("Successful", "Failed", "Error", "Inconclusive")
_WORSE = ("Successful", "Inconclusive", "Error", "Failed")
_ERROR_LIMIT = 4  # Argo's default `consecutiveErrorLimit`


def wanted_count(metric: Metric) -> int | None:
    """Return the number of measurements of a metric; None if it is measured until the run ends."""
    if metric.get("count"):
        return int(metric["count"])
    return None if metric.get("interval") else 1


def add_measurement(result: Result, measurement: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result that counts a measurement that has ended."""
    counted = dict(result)
    phase = measurement["phase"]
    key = phase.lower() if phase != "Successful" else "successful"
    counted[key] = counted.get(key, 0) + 1
    if phase == "Error":
        counted["consecutiveError"] = counted.get("consecutiveError", 0) + 1
    else:
        counted["count"] = counted.get("count", 0) + 1
        counted.pop("consecutiveError", None)
    if phase == "Successful":
        counted["consecutiveSuccess"] = counted.get("consecutiveSuccess", 0) + 1
    else:
        counted.pop("consecutiveSuccess", None)
    return counted


def violation(metric: Metric, result: Result) -> tuple[str, str]:
    """Return the phase and the reason of a metric beyond one of its limits; "" if it is within them."""
    found = ("", "")
    failed, limit = result.get("failed", 0), int(metric.get("failureLimit", 0))
    if limit >= 0 and failed > limit:
        found = ("Failed", f"failed ({failed}) > failureLimit ({limit})")
    inconclusive, limit = result.get("inconclusive", 0), int(metric.get("inconclusiveLimit", 0))
    if inconclusive > limit:
        found = ("Inconclusive", f"inconclusive ({inconclusive}) > inconclusiveLimit ({limit})")
    errors, limit = result.get("consecutiveError", 0), int(metric.get("consecutiveErrorLimit", _ERROR_LIMIT))
    if errors > limit:
        found = ("Error", f"consecutiveErrors ({errors}) > consecutiveErrorLimit ({limit})")
    return found


def metric_phase(metric: Metric, result: Result, *, terminating: bool) -> str:
    """Return the phase of a metric after its measurements."""
    if result["phase"] in ENDED:
        return str(result["phase"])
    measurements = result.get("measurements") or ()
    if not measurements:
        return "Successful" if terminating else "Pending"
    if measurements[-1]["phase"] not in ENDED:
        return "Running"
    if phase := violation(metric, result)[0]:
        return phase
    needed = int(metric.get("consecutiveSuccessLimit", 0))
    if needed and result.get("consecutiveSuccess", 0) >= needed:
        return "Successful"
    wanted = wanted_count(metric)
    if wanted is not None and result.get("count", 0) >= wanted:
        if not needed:
            return "Successful"
        return "Inconclusive" if int(metric.get("failureLimit", 0)) >= 0 else "Failed"
    return "Successful" if terminating else "Running"


def is_terminating(spec: Mapping[str, Any], results: Sequence[Result]) -> bool:
    """Return whether a run takes no more measurements: it is told to end, or a metric has failed."""
    return bool(spec.get("terminate")) or any(
        result["phase"] in ("Failed", "Error", "Inconclusive") and not result.get("dryRun") for result in results
    )


def run_phase(spec: Mapping[str, Any], results: Sequence[Result], *, terminating: bool) -> tuple[str, str]:
    """Return the phase and the message of a run: those of the worst metric, once all have ended.

    Args:
        spec: `spec` of the run.
        results: a result for each metric that has begun.
        terminating: the run takes no more measurements.
    """
    by_name = {result["name"]: result for result in results}
    worst, message, all_ended = "", "Run Terminated" if spec.get("terminate") else "", True
    for metric in spec["metrics"]:
        result = by_name.get(metric["name"])
        if result is None or result["phase"] not in ENDED:
            all_ended = False
            continue
        phase = str(result["phase"])
        if result.get("dryRun"):
            worst = worst or "Successful"
            continue
        if not worst or _WORSE.index(phase) > _WORSE.index(worst):
            worst = phase
            if why := violation(metric, result)[1]:
                message = f'Metric "{metric["name"]}" assessed {phase} due to {why}'
                message += f': "Error Message: {result["message"]}"' if result.get("message") else ""
    if terminating:
        return worst or "Successful", message
    return (worst, message) if all_ended and worst else ("Running", "")


def summary(spec: Mapping[str, Any], results: Sequence[Result], *, dry: bool) -> dict[str, int]:
    """Return the numbers of metrics by outcome, of those that are dry runs or of the others."""
    names = dry_run_metrics(spec)
    metrics = [metric for metric in spec["metrics"] if (metric["name"] in names) == dry]
    found = {"count": len(metrics)} if metrics else {}
    by_name = {result["name"]: result for result in results}
    for metric in metrics:
        result = by_name.get(metric["name"])
        if result is not None and result["phase"] in ENDED:
            key = (violation(metric, result)[0] or "Successful").lower()
            found[key] = found.get(key, 0) + 1
    return found
