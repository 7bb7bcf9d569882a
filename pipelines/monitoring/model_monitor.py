"""Monitor of a model: read the requests of a window and the labels that have arrived, judge them, publish a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.lineage import lineage, table_data
from pipelines.declarations.baseline import Baseline
from pipelines.declarations.bundle import RequestSchema
from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.inference_logging import sampling_key
from pipelines.declarations.model import Model
from pipelines.declarations.model_monitoring import ModelMonitoring
from pipelines.declarations.names import model_monitor_name
from pipelines.declarations.timestamps import CLOCKS
from pipelines.monitoring.baseline_drift import FEATURES, OUTPUTS, BaselineCounter, judge_outside
from pipelines.monitoring.cloudwatch_metrics import publish_metrics
from pipelines.monitoring.column_drift import judge_drift, judge_nulls, without_rare
from pipelines.monitoring.estimated_accuracy import LEAST_HOLDOUT, AccuracyEstimator
from pipelines.monitoring.labelled_checks import (
    accuracy_windows,
    bounds_of,
    calibration_bins,
    group_figures,
    judge_accuracy,
    judge_calibration,
    judge_estimate,
    judge_fairness,
    judge_labels,
    judge_stream,
    measured_metrics,
    unlabelled_metric,
    wrong_predictions,
)
from pipelines.monitoring.model_checks import (
    judge_errors,
    judge_latency,
    judge_log,
    judge_lost,
    judge_not_logged,
    judge_served_bundle,
    judge_traffic,
)
from pipelines.monitoring.model_report import GroupFigure, LabelCounts, ModelMonitorReport
from pipelines.monitoring.model_report_page import render_model_page
from pipelines.monitoring.monitor_findings import MonitorFinding, overall_verdict
from pipelines.monitoring.monitor_lineage import assertions_of, log_data, report_data
from pipelines.monitoring.monitor_reports import write_report
from pipelines.monitoring.prediction_labels import LabelJoin, Labelled, Labels, group_name, read_labels, resolve_labels
from pipelines.monitoring.request_log import LoggedRows, LogTotals, ProcessCounts, RequestLog, read_counts
from pipelines.monitoring.trial_accuracy import TRIAL_CHECK, JudgedRows, bundle_on_trial, judge_trial
from pipelines.registry.bundles import fetch
from pipelines.registry.ledger import Ledger
from pipelines.serving.request_metrics import BUCKETS

MOST_WINDOWS = 60
"""Windows whose accuracy is restated. If labels take longer, each is a multiple of `window_hours`."""

LOOK_AHEAD = timedelta(hours=24)
"""How far ahead of the clock requests are looked for: a clock with the wrong time zone is up to 14 hours ahead."""

SWITCHED = timedelta(minutes=10)
"""Time after a bundle went live in which another one may still answer."""


@dataclass(frozen=True)
class LiveBundle:
    """The bundle that is live, and what the monitor needs of it.

    Attributes:
        digest: id of the bundle.
        since: when it went live.
        schema, baseline, evaluation: its files.
        sampling_key: key by which its servers choose the requests that they log.
    """

    digest: str
    since: datetime
    schema: RequestSchema
    baseline: Baseline
    evaluation: Evaluation
    sampling_key: bytes = b""


@dataclass(frozen=True)
class WindowFacts:
    """What the log says about a window.

    Attributes:
        totals: counts of requests.
        future: requests that are dated in the future.
        counts: latencies and lost records.
        counter: rows counted over the baseline.
        times: times of the rows.
        predicted: predictions of the rows.
        groups: protected attribute → value of each row as text, for features that are logged.
    """

    totals: LogTotals
    future: int
    counts: ProcessCounts
    counter: BaselineCounter
    times: NDArray[np.int64]
    predicted: NDArray[np.float64]
    groups: dict[str, NDArray[Any]]


def find_live(descriptor: EnvironmentDescriptor, model: str) -> LiveBundle | None:
    """Read the bundle that the ledger records as live; None if none is.

    Raises:
        MlopsError: the ledger or the bundle cannot be read, or does not verify.
    """
    entry = Ledger(descriptor, model).went_live()
    if entry is None or entry.event.live is None:
        return None
    return read_bundle(descriptor, model, entry.event.live, entry.at)


def read_bundle(descriptor: EnvironmentDescriptor, model: str, digest: str, since: datetime) -> LiveBundle:
    """Read what the monitor needs of a bundle.

    Args:
        descriptor: the environment.
        model: name of the model.
        digest: id of the bundle.
        since: when it went live; for a release on trial, the start of the window.

    Raises:
        MlopsError: the bundle cannot be read, or does not match its digest.
    """
    found = fetch(descriptor, model, digest, ("schema.json", "baseline.json", "evaluation.json"))
    files = found.files
    return LiveBundle(
        digest,
        since,
        parse(files["schema.json"], RequestSchema, Path("schema.json")),
        parse(files["baseline.json"], Baseline, Path("baseline.json")),
        parse(files["evaluation.json"], Evaluation, Path("evaluation.json")),
        sampling_key(found.manifest),
    )


def window_edges(settings: ModelMonitoring, now: datetime) -> list[datetime]:
    """Return the times between the windows whose accuracy is measured, the last of which ends now.

    Windows are aligned to the clock, so that each run restates the same ones.
    """
    hours = settings.window_hours
    if settings.labels is None:
        return [now - timedelta(hours=hours), now]
    windows = math.ceil(settings.labels.delay_days * 24 / hours) + 1
    step = hours * math.ceil(windows / MOST_WINDOWS)
    windows = math.ceil(settings.labels.delay_days * 24 / step) + 1
    seconds = step * 3600
    last = datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)
    edges = [last - timedelta(seconds=seconds) * number for number in range(windows, -1, -1)]
    return edges if last == now else [*edges, now]


def examine_model(
    descriptor: EnvironmentDescriptor, model: Model, live: LiveBundle | None, now: datetime
) -> ModelMonitorReport:
    """Judge the requests that a model answered in the window before a time. Read-only.

    Args:
        descriptor: the environment.
        model: the declaration.
        live: the bundle that is live; None if none is.
        now: the present time, in UTC.

    Raises:
        MlopsError: the log or the labels cannot be read.
    """
    settings = model.monitoring
    start = now - timedelta(hours=settings.window_hours)
    facts: dict[str, Any] = {
        "model": model.name,
        "environment": descriptor.name,
        "bundle": live.digest if live is not None else None,
        "time": now,
        "window_start": start,
        "window_end": now,
    }
    if live is None:
        none = MonitorFinding(check="served-bundle", verdict="unknown", reason="no bundle is live")
        return ModelMonitorReport(**facts, requests=0, verdict="unknown", findings=(none,))
    edges = window_edges(settings, now)
    labels = _labels(descriptor, model, live, edges[0], now + CLOCKS)
    by_row = settings.labels is not None and settings.labels.row is not None
    join = LabelJoin(labels, model.protected, by_row=by_row, sampling_key=live.sampling_key)
    window, row_counts = _read_log(descriptor, model, live, edges, start, now, join)
    labelled, counts = join.result()
    metrics = measured_metrics(bounds_of(model.task, model.gates, settings, live.evaluation))
    accuracy = accuracy_windows(model.task, labelled, edges, row_counts, metrics) if settings.labels else ()
    on_trial = _judge_trial(descriptor, model, live, window.totals, labels, labelled, start, now)
    groups, fairness = _fairness(model, window, labelled)
    not_logged = _not_logged(live, window.totals, settings.ignored_features)
    window.counter.leave_out(not_logged)
    features, outputs = window.counter.features(), window.counter.outputs()
    rows, requests = len(window.times), round(window.totals.requests[live.digest])
    recent = {bundle: round(number) for bundle, number in window.totals.recent.items()}
    findings = [
        judge_traffic(rows, settings.minimum_rows, window.totals.sample),
        *judge_log(window.totals.unreadable, window.future),
        *judge_lost(window.counts.lost, requests),
        judge_served_bundle(live.digest, live.since + SWITCHED, recent, window.totals.newest),
        judge_errors(
            window.totals.errors[live.digest],
            requests,
            model.gates.soak.maximum_error_rate,
            settings.minimum_rows,
        ),
        judge_latency(window.counts.latencies, BUCKETS, model.gates.latency.p99_ms, settings.minimum_rows),
        *judge_not_logged(not_logged),
        *judge_nulls(features, settings, FEATURES),
        *judge_outside(window.counter.outside(), settings.minimum_rows),
        *judge_drift(features, settings, FEATURES),
        *judge_drift(outputs, settings, OUTPUTS),
        *_judge_labelled(model, live.evaluation, labelled, counts, accuracy),
        *on_trial.findings,
        *_judge_estimate(model, live.evaluation, window.predicted),
        *fairness,
    ]
    kept = tuple(finding for finding in findings if finding.check in settings.checks)
    return ModelMonitorReport(
        **facts,
        trial=on_trial.bundle,
        requests=requests,
        rows=rows,
        sample=window.totals.sample,
        lost=window.counts.lost,
        verdict=overall_verdict(kept),
        findings=kept,
        features=tuple(without_rare(one, settings.minimum_rows) for one in features),
        outputs=tuple(without_rare(one, settings.minimum_rows) for one in outputs),
        accuracy=accuracy,
        labels=counts if settings.labels is not None else None,
        calibration=calibration_bins(labelled) if len(labelled.truth) >= settings.minimum_rows else (),
        groups=groups,
        skipped={
            **dict.fromkeys(not_logged, "personal, and not logged"),
            **dict.fromkeys(settings.ignored_features, "ignored in model.yaml"),
        },
    )


def _not_logged(live: LiveBundle, totals: LogTotals, ignored: Sequence[str]) -> list[str]:
    """Return the features that cannot be compared: they were not logged, or the baseline leaves them out."""
    features = [column.name for tensor in live.schema.inputs for column in tensor.columns]
    known = live.baseline.features
    return [name for name in features if name not in ignored and (name in totals.withheld or name not in known)]


def _labels(
    descriptor: EnvironmentDescriptor, model: Model, live: LiveBundle, since: datetime, until: datetime
) -> Labels:
    source = model.monitoring.labels
    if source is None:
        return Labels({}, LabelCounts())
    extra = [name for name in model.protected if name not in model.features]
    table = read_labels(descriptor, source, model.target, extra, since)
    return resolve_labels(table, live.evaluation.classes, extra, until=until)


def _read_log(
    descriptor: EnvironmentDescriptor,
    model: Model,
    live: LiveBundle,
    edges: Sequence[datetime],
    start: datetime,
    now: datetime,
    join: LabelJoin,
) -> tuple[WindowFacts, list[int]]:
    """Read the log once over the windows of labels and once over the window to judge."""
    log = RequestLog(descriptor, model.name, live.digest, live.schema)
    bounds = np.array([edge.timestamp() * 1000 for edge in edges])
    by_window = np.zeros(len(edges) - 1, dtype=np.int64)

    def join_labels(part: LoggedRows) -> None:
        nonlocal by_window
        join.add(part)
        by_window += np.histogram(part.times, bins=bounds)[0]

    totals, earlier = LogTotals(), LogTotals()
    if edges[0] < start:
        for part in log.read(edges[0], start, earlier, live.since):
            join_labels(part)
    counter = BaselineCounter(live.baseline, live.evaluation.classes, model.monitoring.ignored_features)
    times, predicted = [], []
    groups: dict[str, list[NDArray[Any]]] = {name: [] for name in model.protected if name in model.features}
    for part in log.read(start, now, totals, live.since + SWITCHED):
        join_labels(part)
        counter.add(part)
        times.append(part.times)
        predicted.append(part.predicted)
        for name in [name for name in groups if name not in part.features.schema.names]:
            del groups[name]  # not logged
        for name, found in groups.items():
            found.append(_names(part.features.column(name)))
    join.sample = min(totals.sample, earlier.sample)
    ahead = LogTotals()
    for _ in log.read(now + CLOCKS, now + LOOK_AHEAD, ahead, now):
        pass
    counts = read_counts(descriptor, model.name, live.digest, start, now, BUCKETS)
    facts = WindowFacts(
        totals,
        round(sum(ahead.requests.values())),
        counts,
        counter,
        np.concatenate([np.empty(0, dtype=np.int64), *times]),
        np.concatenate(predicted) if predicted else np.empty(0),
        {name: np.concatenate([np.empty(0, dtype=object), *found]) for name, found in groups.items()},
    )
    return facts, [int(number) for number in by_window]


def _names(array: Any) -> NDArray[Any]:
    encoded = array.dictionary_encode(null_encoding="encode")
    names = np.array([group_name(value) for value in encoded.dictionary.to_pylist()], dtype=object)
    found: NDArray[Any] = names[encoded.indices.to_numpy()]
    return found


def _judge_labelled(
    model: Model, evaluation: Evaluation, labelled: Labelled, counts: LabelCounts, accuracy: Sequence[Any]
) -> list[MonitorFinding]:
    settings = model.monitoring
    if settings.labels is None:
        return []
    return [
        *judge_accuracy(accuracy, bounds_of(model.task, model.gates, settings, evaluation), settings),
        *judge_stream(model.task, labelled, evaluation, settings),
        *judge_labels(counts),
        judge_calibration(model.task, labelled, evaluation, settings.minimum_rows),
    ]


@dataclass(frozen=True)
class _TrialFindings:
    """Findings about a release on trial; empty if there is no trial or the model has no labels."""

    bundle: str | None = None
    findings: tuple[MonitorFinding, ...] = ()


def _judge_trial(
    descriptor: EnvironmentDescriptor,
    model: Model,
    live: LiveBundle,
    totals: LogTotals,
    labels: Labels,
    labelled: Labelled,
    start: datetime,
    now: datetime,
) -> _TrialFindings:
    """Compare the labelled rows of a release on trial with those of the live bundle."""
    settings = model.monitoring
    recent = {bundle: round(number) for bundle, number in totals.recent.items()}
    digest = bundle_on_trial(totals.newest, recent, live.digest, int(now.timestamp() * 1000))
    if settings.labels is None or TRIAL_CHECK not in settings.checks or digest is None:
        return _TrialFindings()
    start = max(start, live.since + SWITCHED)
    try:
        trial = read_bundle(descriptor, model.name, digest, start)
    except MlopsError as error:
        return _TrialFindings(digest, (_unknown_trial(error.what),))
    if trial.evaluation.classes != live.evaluation.classes:
        return _TrialFindings(digest, (_unknown_trial("the release on trial has other classes than the live one"),))
    join = LabelJoin(labels, (), by_row=settings.labels.row is not None, sampling_key=trial.sampling_key)
    # Its rows have another form than those of the live bundle, so they are read again: only the hours that have any.
    start = max(start, datetime.fromtimestamp(totals.oldest[digest] / 1000, UTC))
    end = min(now, datetime.fromtimestamp(totals.newest[digest] / 1000 + 1, UTC))
    for part in RequestLog(descriptor, model.name, digest, trial.schema).read(start, end, LogTotals(), start):
        join.add(part)
    sides = []
    for rows in (join.result()[0], labelled):
        wrong = wrong_predictions(model.task, rows, live.evaluation)
        if wrong is None:
            return _TrialFindings(digest, (_unknown_trial("the live bundle has no holdout to tell a large error"),))
        sides.append(JudgedRows(rows.times, wrong))
    ours, theirs = sides
    return _TrialFindings(digest, (judge_trial(ours, theirs, settings),))


def _unknown_trial(reason: str) -> MonitorFinding:
    return MonitorFinding(check=TRIAL_CHECK, verdict="unknown", reason=reason)


def _judge_estimate(model: Model, evaluation: Evaluation, predicted: NDArray[np.float64]) -> list[MonitorFinding]:
    if model.task != "classification":
        return []
    estimator = AccuracyEstimator.of(evaluation)
    if estimator is None:
        why = f"the holdout sample has less than {LEAST_HOLDOUT} rows, or one class only"
    else:
        why = "no rows in the window"
    estimate = estimator.estimate(predicted) if estimator is not None and len(predicted) else None
    return [judge_estimate(estimate, model.monitoring, why)]


def _fairness(
    model: Model, window: WindowFacts, labelled: Labelled
) -> tuple[tuple[GroupFigure, ...], list[MonitorFinding]]:
    """Measure and judge the bounds on fairness; on all rows of the window if the metric needs no labels."""
    figures: list[GroupFigure] = []
    findings = []
    for bound in model.gates.fairness:
        rows, why = labelled, "no labelled rows, or they lack this attribute"
        if unlabelled_metric(bound.metric) and bound.attribute in window.groups:
            label = window.predicted.argmax(axis=1).astype(np.float64) if window.predicted.ndim > 1 else np.empty(0)
            rows, why = Labelled(window.times, label, window.predicted, window.groups), "no rows in the window"
        found: tuple[GroupFigure, ...] = ()
        if bound.attribute in rows.groups and len(rows.truth):
            found = group_figures(model.task, rows, bound.attribute, bound.metric)
        if bound.attribute in window.totals.withheld:
            why = "not logged: the contract classifies it as personal and does not list its values"
        if model.monitoring.labels is None and not unlabelled_metric(bound.metric):
            why = "the model has no labels: declare monitoring.labels in model.yaml"
        findings.append(judge_fairness(bound, found, why))
        figures += [one for one in found if one.rows >= bound.minimum_group_size]
    return tuple(figures), findings


def run_model_monitor(
    descriptor: EnvironmentDescriptor, model: Model, namespace: str, now: datetime | None = None
) -> tuple[ModelMonitorReport, str]:
    """Run the monitor of a model: judge it, write the report, then publish its metrics.

    In this order, so that a run that was killed midway is seen as missing, and another run does all of it again.

    Args:
        descriptor: the environment.
        model: the declaration.
        namespace: CloudWatch namespace of the metrics; "" to publish none.
        now: the present time; by default the clock's.

    Returns:
        The report and its name.

    Raises:
        MlopsError: the ledger, the bundle, the log or the labels cannot be read, or AWS denied a request.
    """
    moment = (now or datetime.now(UTC)).replace(microsecond=0)
    declared = model.monitoring.labels
    labels = [table_data(descriptor, declared.dataset)] if declared is not None else []
    reports = report_data(descriptor, model.name, "models")
    job = model_monitor_name(model.name)
    with lineage(descriptor, job, [log_data(descriptor, model.name), *labels], [reports]) as run:
        report = examine_model(descriptor, model, find_live(descriptor, model.name), moment)
        name = write_report(descriptor, report, render_model_page(report))
        found = assertions_of(report.findings, model.features)
        run.inputs = [log_data(descriptor, model.name, assertions=found), *labels]
        run.outputs = [report_data(descriptor, model.name, "models", name)]
        if namespace:
            publish_metrics(descriptor, report, namespace)
    return report, name
