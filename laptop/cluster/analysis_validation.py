"""Validate the arguments, metrics and limits of an analysis as Argo Rollouts does, with its messages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from laptop.cluster.durations import duration_seconds
from laptop.cluster.objects import Object

_PLACEHOLDER = re.compile(r"\{\{(.*?)(\}\}|$)", re.DOTALL)
_NUMBERS = ("count", "failureLimit", "inconclusiveLimit", "consecutiveErrorLimit", "consecutiveSuccessLimit")
_UNKNOWN_VALUE = "dummy-value"  # stands for an argument that only a run has


class AnalysisError(ValueError):
    """An analysis is not valid."""


def step_arguments(templates: Sequence[Object], given: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the arguments of templates, with the values of a step instead of the templates' own.

    Raises:
        AnalysisError: two templates give one argument different values.
    """
    found: dict[str, str | None] = {}
    for template in templates:
        for item in template["spec"].get("args") or ():
            name, value = item["name"], item.get("value")
            before = found.get(name)
            if before is not None and value is not None and before != value:
                raise AnalysisError(
                    f"Argument `{name}` specified multiple times with different values: '{before}', '{value}'"
                )
            found[name] = value if before is None else before
    return found | {name: value for name, value in given.items() if name in found and value is not None}


def run_metrics(templates: Sequence[Object]) -> list[dict[str, Any]]:
    """Return the metrics of templates together.

    Raises:
        AnalysisError: two metrics have one name.
    """
    metrics = [metric for template in templates for metric in template["spec"]["metrics"]]
    seen = set()
    for metric in metrics:
        if metric["name"] in seen:
            raise AnalysisError(f"two metrics have the same name '{metric['name']}'")
        seen.add(metric["name"])
    return metrics


def run_dry_rules(templates: Sequence[Object], step: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rules for dry runs of a step and its templates together.

    Raises:
        AnalysisError: two rules are the same.
    """
    rules = [rule for template in templates for rule in template["spec"].get("dryRun") or ()]
    rules = [*(step.get("dryRun") or ()), *rules]
    seen = set()
    for rule in rules:
        if rule["metricName"] in seen:
            raise AnalysisError(f"two Dry-Run metric rules have the same name '{rule['metricName']}'")
        seen.add(rule["metricName"])
    return rules


def missing_argument(arguments: Mapping[str, str | None]) -> str:
    """Return the name of the first argument without a value, or ""."""
    return next((name for name, value in arguments.items() if value is None), "")


def resolved(metric: Mapping[str, Any], arguments: Mapping[str, str | None]) -> dict[str, Any]:
    """Return a metric with `{{args.x}}` replaced in every string, and with numbers for its limits.

    Raises:
        AnalysisError: an argument has no value, or a placeholder names none.
    """
    if missing := missing_argument(arguments):
        raise AnalysisError(f'argument "{missing}" was not supplied')
    found: dict[str, Any] = _filled(metric, arguments)
    return found | {key: int_value(found[key]) for key in _NUMBERS if key in found}


def int_value(value: int | str) -> int:
    """Return the number of an IntOrString; 0 for a text that is not a number."""
    if isinstance(value, int):
        return value
    return int(value) if re.fullmatch(r"[+-]?[0-9]+", value) else 0


def dry_run_metrics(spec: Mapping[str, Any]) -> set[str]:
    """Return the names of the metrics that cannot fail the run."""
    return {name for rule in spec.get("dryRun") or () for name in _matching(rule, spec["metrics"])}


def why_run_invalid(spec: Mapping[str, Any]) -> str:
    """Return why Argo refuses to measure anything of a run with resolved metrics, or ""."""
    return next(_run_problems(spec), "")


def why_template_invalid(template: Object) -> str:
    """Return why Argo refuses a Rollout with a step that runs an AnalysisTemplate, or "".

    The values of a step are not considered, as in Argo.
    """
    name = template["metadata"]["name"]
    own = {item["name"]: item.get("value", _UNKNOWN_VALUE) for item in template["spec"].get("args") or ()}
    try:
        metrics = [_filled(metric, own) for metric in template["spec"]["metrics"]]
    except AnalysisError as error:
        return f"AnalysisTemplate {name}: {error}"
    for metric in metrics:
        if not int_value(metric.get("count") or 0) and metric.get("interval"):
            shown = metric.get("count", "<nil>")
            return (
                f"AnalysisTemplate {name} has metric {metric['name']} which runs indefinitely. "
                f"Invalid value for count: {shown}"
            )
    return ""


def _filled(value: Any, arguments: Mapping[str, str | None]) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: _argument(match[1], arguments), value)
    if isinstance(value, list):
        return [_filled(item, arguments) for item in value]
    if isinstance(value, Mapping):
        return {key: _filled(item, arguments) for key, item in value.items()}
    return value


def _argument(tag: str, arguments: Mapping[str, str | None]) -> str:
    value = arguments.get(tag.strip().removeprefix("args.")) if tag.strip().startswith("args.") else None
    if value is None:
        raise AnalysisError(f"failed to resolve {{{{{tag}}}}}")
    return value


def _matching(rule: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    try:
        pattern = re.compile(rule["metricName"])
    except re.error:
        return []
    return [metric["name"] for metric in metrics if pattern.search(metric["name"])]


def _run_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    if not spec["metrics"]:
        yield "no metrics specified"
    names: set[str] = set()
    for index, metric in enumerate(spec["metrics"]):
        if metric["name"] in names:
            yield f"metrics[{index}]: duplicate name '{metric['name']}'"
        names.add(metric["name"])
        yield from (f"metrics[{index}]: {problem}" for problem in _metric_problems(metric))
    for index, rule in enumerate(spec.get("dryRun") or ()):
        if not _matching(rule, spec["metrics"]):
            yield f"dryRun[{index}]: Rule didn't match any metric name(s)"


def _metric_problems(metric: Mapping[str, Any]) -> Iterator[str]:
    count, failures = metric.get("count", 0), metric.get("failureLimit", 0)
    successes, inconclusive = metric.get("consecutiveSuccessLimit", 0), metric.get("inconclusiveLimit", 0)
    if successes < 0:
        yield "consecutiveSuccessLimit must be >= 0"
    if failures < -1:
        yield "failureLimit must be >= 0, or -1 to be disabled"
    if successes == 0 and failures == -1:
        yield "failureLimit and consecutiveSuccessLimit cannot both be disabled"
    if inconclusive < 0:
        yield "inconclusiveLimit must be >= 0"
    if metric.get("consecutiveErrorLimit", 0) < 0:
        yield "consecutiveErrorLimit must be >= 0"
    if count > 0 and failures >= 0 and count < failures + successes:
        yield (
            f"count ({count}) must be >= failureLimit + consecutiveSuccessLimit ({failures} + {successes}) if both >= 0"
        )
    if count > 0 and failures < 0 and count < successes:
        yield "count must be >= consecutiveSuccessLimit"
    if 0 < count < inconclusive:
        yield "count must be >= inconclusiveLimit"
    if count > 1 and not metric.get("interval"):
        yield "interval must be specified when count > 1"
    for key, what in (("interval", "interval"), ("initialDelay", "startDelay")):
        if metric.get(key):
            try:
                duration_seconds(metric[key])
            except ValueError as error:
                yield f"invalid {what} string: {error}"
