"""Checks of labelled predictions: accuracy, change in the stream, calibration and fairness. Pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.model import METRICS, Fairness, Gates, Task
from pipelines.declarations.model_monitoring import ModelMonitoring
from pipelines.declarations.plurals import counted
from pipelines.monitoring.change_detection import StreamChange, find_change
from pipelines.monitoring.estimated_accuracy import AccuracyEstimate
from pipelines.monitoring.model_report import AccuracyWindow, CalibrationBin, GroupFigure, LabelCounts
from pipelines.monitoring.monitor_findings import MonitorFinding, MonitorVerdict
from pipelines.monitoring.prediction_labels import Labelled
from pipelines.training.metrics import measure, replicate

Numbers = NDArray[np.float64]

MOST_MEASURED = 50_000
"""Rows from which a metric and its interval are computed; of more, every n-th row by time is taken."""

LARGE_ERROR = 0.8
"""Share of the holdout whose errors are smaller than a large error, for regression."""

CALIBRATION_BINS = 10
CALIBRATION_DIFFERENCE = 0.05
"""Increase of the calibration error that is an alarm, as a share; for regression, of the holdout's RMSE times four."""

BLIND = "the estimate is blind to a change of the relation between inputs and target"

_SEED = 0
_UNKNOWN = "labels for unknown ids"


@dataclass(frozen=True)
class Bound:
    """The figure from which a metric is an alarm.

    Attributes:
        metric: metric of the task.
        limit: the figure.
        higher_is_better: True if the metric must not be below it, False if it must not be above.
        source: where the figure comes from, in words.
    """

    metric: str
    limit: float
    higher_is_better: bool
    source: str

    def broken_by(self, value: float) -> bool:
        """Return True if a value is worse than the bound."""
        return value < self.limit if self.higher_is_better else value > self.limit


def bounds_of(task: Task, gates: Gates, settings: ModelMonitoring, evaluation: Evaluation) -> list[Bound]:
    """Return the bounds of a model in operation: those of its gates, and the allowed loss against its holdout."""
    found = [
        Bound(each.metric, limit, minimum, "the gate")
        for each in gates.thresholds
        for limit, minimum in ((each.minimum, True), (each.maximum, False))
        if limit is not None
    ]
    metric = gates.champion.metric
    reference = evaluation.metrics.get(metric)
    if reference is not None and reference.value is not None:
        better = METRICS[task][metric] == "higher"
        loss = settings.maximum_loss * abs(reference.value)
        limit = reference.value - loss if better else reference.value + loss
        found.append(Bound(metric, limit, better, f"{settings.maximum_loss:.0%} worse than the holdout"))
    return found


def measured_metrics(bounds: Sequence[Bound]) -> list[str]:
    """Return the metrics that bounds are about, each once."""
    return list(dict.fromkeys(bound.metric for bound in bounds))


def with_interval(
    task: Task, rows: Labelled, metrics: Sequence[str]
) -> dict[str, tuple[float | None, float | None, float | None]]:
    """Return metric → value and 95 % bootstrap interval; None where undefined."""
    if not len(rows.truth):
        return dict.fromkeys(metrics, (None, None, None))
    thin = rows.where(np.arange(len(rows.truth)) % max(1, -(-len(rows.truth) // MOST_MEASURED)) == 0)
    once = measure(task, rows.truth, rows.predicted, metrics=metrics)
    many = replicate(task, thin.truth, thin.predicted, _SEED, metrics)
    scale = np.sqrt(len(thin.truth) / len(rows.truth))  # the interval of all rows is narrower than that of the sample
    found: dict[str, tuple[float | None, float | None, float | None]] = {}
    for metric in metrics:
        value = float(once[metric][0]) if metric in once else float("nan")
        drawn = many.get(metric, np.empty(0))
        drawn = drawn[np.isfinite(drawn)]
        if not np.isfinite(value) or not len(drawn):
            found[metric] = (None, None, None)
            continue
        low, high = np.quantile(drawn, (0.025, 0.975))
        middle = float(np.median(drawn))
        found[metric] = (value, value + float(low - middle) * scale, value + float(high - middle) * scale)
    return found


def accuracy_windows(
    task: Task,
    labelled: Labelled,
    edges: Sequence[datetime],
    rows: Sequence[int],
    metrics: Sequence[str],
) -> tuple[AccuracyWindow, ...]:
    """Measure each window of requests with the labels that have arrived.

    Args:
        task: regression or classification.
        labelled: labelled rows of all windows.
        edges: times between windows, ascending.
        rows: predicted rows of each window.
        metrics: what to measure.
    """
    found = []
    for (start, end), predicted in zip(itertools.pairwise(edges), rows, strict=True):
        inside = labelled.between(int(start.timestamp() * 1000), int(end.timestamp() * 1000))
        for metric, (value, low, high) in with_interval(task, inside, metrics).items():
            found.append(
                AccuracyWindow(
                    start=start, end=end, metric=metric, rows=predicted, labelled=len(inside.truth), value=value,
                    low=low, high=high,
                )
            )  # fmt: skip
    return tuple(found)


def judge_accuracy(
    windows: Sequence[AccuracyWindow], bounds: Sequence[Bound], settings: ModelMonitoring
) -> list[MonitorFinding]:
    """Judge the newest window of each metric that has enough labels.

    An alarm needs the whole interval beyond the bound. A value beyond it alone is `watch`.
    """
    found = []
    for bound in bounds:
        enough = [one for one in windows if one.metric == bound.metric and one.labelled >= settings.minimum_rows]
        defined = [one for one in enough if one.value is not None]
        subject = f"{bound.metric} ({bound.source})"
        if not defined:
            most = max((one.labelled for one in windows), default=0)
            reason = f"{bound.metric} is not defined on the labelled rows" if enough else (
                f"{most:,} of at least {settings.minimum_rows:,} labelled rows in a window"
            )  # fmt: skip
            found.append(MonitorFinding(check="accuracy", subject=subject, verdict="unknown", reason=reason))
            continue
        newest = max(defined, key=lambda one: one.end)
        assert newest.value is not None and newest.low is not None and newest.high is not None
        best = newest.high if bound.higher_is_better else newest.low
        verdict: MonitorVerdict = "ok"
        if bound.broken_by(best):
            verdict = "alarm"
        elif bound.broken_by(newest.value):
            verdict = "watch"
        share = newest.labelled / newest.rows if newest.rows else 0.0
        found.append(
            MonitorFinding(
                check="accuracy",
                subject=subject,
                verdict=verdict,
                figure=newest.value,
                threshold=bound.limit,
                unit=bound.metric,
                rows=newest.labelled,
                reason=f"{newest.value:.4g} ({newest.low:.4g} to {newest.high:.4g}) for requests from "
                f"{newest.start:%Y-%m-%d %H:%M} to {newest.end:%Y-%m-%d %H:%M} UTC, of which {share:.0%} are labelled",
            )
        )
    return found


def wrong_predictions(task: Task, labelled: Labelled, evaluation: Evaluation) -> NDArray[np.bool_] | None:
    """Return which predictions are wrong; for regression, which have a large error.

    None for regression without a holdout, from which nothing tells what a large error is.
    """
    if not len(labelled.truth):
        return np.zeros(0, dtype=bool)
    if task == "classification":
        wrong: NDArray[np.bool_] = labelled.predicted.argmax(axis=1) != labelled.truth
        return wrong
    sample = evaluation.sample
    apart = np.abs(np.array(sample.truth) - np.array(sample.predicted, dtype=np.float64))
    if not len(apart):
        return None
    large: NDArray[np.bool_] = np.abs(labelled.truth - labelled.predicted) > np.quantile(apart, LARGE_ERROR)
    return large


def judge_stream(
    task: Task, labelled: Labelled, evaluation: Evaluation, settings: ModelMonitoring
) -> list[MonitorFinding]:
    """Judge if the error rose within the labelled rows, by time of the request.

    Two keys: chance does not explain the rise, and right predictions became rarer by more than `maximum_loss`.
    """
    if len(labelled.truth) < settings.minimum_rows:
        reason = f"{len(labelled.truth):,} of at least {settings.minimum_rows:,} labelled rows"
        return [MonitorFinding(check="accuracy", subject="change", verdict="unknown", reason=reason)]
    wrong = wrong_predictions(task, labelled, evaluation)
    if wrong is None:
        return []
    what = "the error rate" if task == "classification" else "the share of large errors"
    change = find_change(wrong)
    facts: dict[str, Any] = {"check": "accuracy", "subject": "change", "rows": len(wrong)}
    if change is None:
        return [MonitorFinding(**facts, verdict="ok", reason=f"{what} did not rise: {wrong.mean():.1%}")]
    began = datetime.fromtimestamp(labelled.times[change.began] / 1000, UTC)
    return [
        MonitorFinding(
            **facts,
            verdict="alarm" if is_loss(change, settings) else "watch",
            figure=change.after - change.before,
            threshold=(1 - change.before) * settings.maximum_loss,
            reason=f"{what} rose from {change.before:.1%} to {change.after:.1%}, since about "
            f"{began:%Y-%m-%d %H:%M} UTC",
        )
    ]


def is_loss(change: StreamChange, settings: ModelMonitoring) -> bool:
    """Return True if right predictions became rarer by more than `maximum_loss`."""
    return 1 - change.after < (1 - change.before) * (1 - settings.maximum_loss)


def judge_labels(counts: LabelCounts) -> list[MonitorFinding]:
    """Report labels that contradict each other or cannot be used."""
    found = []
    usable = max(counts.joined, 1)
    for name, number, words in (
        ("contradicting labels", counts.contradicting, "contradict each other at the same time, and do not count"),
        (_UNKNOWN, counts.unknown, "have the id of no request that the bundle answered in that time"),
        ("invalid labels", counts.invalid, "have no id, or a value that the model cannot predict"),
        ("ambiguous requests", counts.ambiguous, "share their id, or have several rows, and get no label"),
    ):
        if number:
            found.append(
                MonitorFinding(
                    check="accuracy",
                    subject=name,
                    verdict="watch" if number > usable / 100 and (name != _UNKNOWN or not counts.joined) else "ok",
                    figure=float(number),
                    unit="rows",
                    rows=counts.read,
                    reason=f"{number:,} {words}",
                )
            )
    return found


def judge_estimate(estimate: AccuracyEstimate | None, settings: ModelMonitoring, why_not: str) -> MonitorFinding:
    """Judge the estimated accuracy of a window against the accuracy on the holdout."""
    facts: dict[str, Any] = {"check": "estimated-accuracy", "subject": "accuracy"}
    if estimate is None:
        return MonitorFinding(**facts, verdict="unknown", reason=why_not)
    limit = estimate.holdout * (1 - settings.maximum_loss)
    if estimate.rows < settings.minimum_rows:
        verdict: MonitorVerdict = "unknown"
    elif estimate.high < limit:
        verdict = "alarm"
    else:
        verdict = "watch" if estimate.value < limit else "ok"
    return MonitorFinding(
        **facts,
        verdict=verdict,
        figure=estimate.value,
        threshold=limit,
        rows=estimate.rows,
        reason=f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%}) without labels; {BLIND}",
    )


def calibration_bins(labelled: Labelled) -> tuple[CalibrationBin, ...]:
    """Return predicted and observed shares of the positive class, or of the label with more than two classes."""
    if labelled.predicted.ndim < 2 or not len(labelled.truth):
        return ()
    score, outcome = _scores(labelled.predicted, labelled.truth)
    at = np.minimum((score * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    found = []
    for each in range(CALIBRATION_BINS):
        of_it = at == each
        if of_it.any():
            found.append(
                CalibrationBin(
                    predicted=float(np.clip(score[of_it].mean(), 0, 1)), observed=float(outcome[of_it].mean()),
                    rows=int(of_it.sum()),
                )
            )  # fmt: skip
    return tuple(found)


def _scores(predicted: Numbers, truth: Numbers) -> tuple[Numbers, Numbers]:
    if predicted.shape[1] == 2:
        return predicted[:, 1], (truth == 1).astype(np.float64)
    return predicted.max(axis=1), (predicted.argmax(axis=1) == truth).astype(np.float64)


def _calibration_error(bins: Sequence[CalibrationBin]) -> float:
    rows = sum(one.rows for one in bins)
    return sum(one.rows * abs(one.predicted - one.observed) for one in bins) / rows


def judge_calibration(task: Task, labelled: Labelled, evaluation: Evaluation, minimum_rows: int) -> MonitorFinding:
    """Judge if predictions are systematically too high or too low, against the holdout.

    Two keys: the difference is significant, and the calibration error is larger than on the holdout by
    `CALIBRATION_DIFFERENCE`.
    """
    rows = len(labelled.truth)
    if rows < minimum_rows:
        reason = f"{rows:,} of at least {minimum_rows:,} labelled rows"
        return MonitorFinding(check="calibration", verdict="unknown", rows=rows, reason=reason)
    sample = evaluation.sample
    truth, predicted = np.array(sample.truth), np.array(sample.predicted, dtype=np.float64)
    if task == "regression":
        return _judge_bias(labelled, truth, predicted)
    before = Labelled(np.zeros(len(truth), dtype=np.int64), truth, predicted, {})
    holdout = calibration_bins(before)
    return _judge_bins(calibration_bins(labelled), _calibration_error(holdout) if holdout else 0.0, rows)


def _judge_bins(bins: Sequence[CalibrationBin], reference: float, rows: int) -> MonitorFinding:
    from scipy.special import chdtrc

    # Hosmer and Lemeshow (1980); without a fitted model, each bin has one degree of freedom.
    statistic = sum(
        (one.observed - one.predicted) ** 2 * one.rows / max(one.predicted * (1 - one.predicted), 1e-6) for one in bins
    )
    p_value = float(chdtrc(len(bins), statistic))
    error = _calibration_error(bins)
    return MonitorFinding(
        check="calibration",
        verdict=_two_keys(p_value, error - reference, CALIBRATION_DIFFERENCE),
        figure=error,
        threshold=reference + CALIBRATION_DIFFERENCE,
        p_value=p_value,
        rows=rows,
        reason=f"predicted and observed shares differ by {error:.1%} on average; on the holdout, by {reference:.1%}",
    )


def _judge_bias(labelled: Labelled, truth: Numbers, predicted: Numbers) -> MonitorFinding:
    from scipy.special import ndtr

    errors, before = labelled.predicted - labelled.truth, predicted - truth
    spread = float(np.sqrt(np.mean(before**2))) if len(before) else 0.0
    bias, was = float(errors.mean()), float(before.mean()) if len(before) else 0.0
    noise = np.sqrt(errors.var() / len(errors) + (before.var() / len(before) if len(before) else 0.0))
    p_value = float(2 * ndtr(-abs(bias - was) / noise)) if noise > 0 else float(bias == was)
    effect = abs(bias - was) / spread if spread > 0 else 0.0
    return MonitorFinding(
        check="calibration",
        verdict=_two_keys(p_value, effect, 4 * CALIBRATION_DIFFERENCE),
        figure=effect,
        threshold=4 * CALIBRATION_DIFFERENCE,
        p_value=p_value,
        rows=len(errors),
        reason=f"predictions are {abs(bias):.4g} too {'high' if bias > 0 else 'low'} on average; on the holdout, "
        f"{abs(was):.4g} too {'high' if was > 0 else 'low'}",
    )


def _two_keys(p_value: float, effect: float, floor: float) -> MonitorVerdict:
    if p_value <= 0.05 and effect >= floor:
        return "alarm"
    return "watch" if p_value <= 0.05 and effect >= floor / 2 else "ok"


def group_figures(task: Task, rows: Labelled, attribute: str, metric: str) -> tuple[GroupFigure, ...]:
    """Measure a metric for each group of a protected attribute, with its 95 % interval."""
    groups = rows.groups[attribute]
    found = []
    for group in sorted(set(groups.tolist())):
        part = rows.where(groups == group)
        value, low, high = with_interval(task, part, [metric])[metric]
        found.append(
            GroupFigure(
                attribute=attribute, group=group, metric=metric, rows=len(part.truth), value=value, low=low, high=high
            )
        )
    return tuple(found)


def judge_fairness(bound: Fairness, figures: Sequence[GroupFigure], why_not: str = "") -> MonitorFinding:
    """Judge a bound on the difference of groups, by the definitions of the gate.

    An alarm needs two groups that are large enough and whose difference is beyond the bound even at the near end of its
    interval, after allowance for the number of pairs. A group that is too small makes the verdict unknown, unless the
    others break the bound; it is not named.
    """
    ratio = bound.maximum_ratio is not None
    limit = bound.maximum_ratio if bound.maximum_ratio is not None else bound.maximum_difference
    assert limit is not None
    facts: dict[str, Any] = {
        "check": "fairness",
        "subject": f"{'ratio' if ratio else 'difference'} of {bound.metric} by {bound.attribute}",
        "threshold": limit,
        "unit": "times" if ratio else bound.metric,
        "rows": sum(one.rows for one in figures),
    }
    if not figures:
        return MonitorFinding(**facts, verdict="unknown", reason=why_not or "no rows")
    small = sum(1 for one in figures if one.rows < bound.minimum_group_size)
    large = [one for one in figures if one.rows >= bound.minimum_group_size]
    undefined = [one.group for one in large if one.value is None or (ratio and one.value <= 0)]
    unnamed = f"{counted(small, 'group')} of fewer than {bound.minimum_group_size} rows"
    left = [*([unnamed] if small else []), *(f"{bound.metric} of {group} is not defined" for group in undefined)]
    usable = [one for one in large if one.group not in undefined]
    pairs = [_apart(a, b, ratio, len(usable)) for a, b in itertools.combinations(usable, 2)]
    if not pairs:
        reason = f"expected two groups of at least {bound.minimum_group_size} rows with a value, found {len(usable)}"
        return MonitorFinding(**facts, verdict="unknown", reason=reason, groups=", ".join(left))
    apart, nearest = max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
    verdict: MonitorVerdict = "alarm" if nearest > limit else "watch" if apart > limit else "ok"
    named = ", ".join(f"{one.group}: {one.value:.4g}" for one in usable)
    reason = f"{apart:.3g}, at least {nearest:.3g}"
    if verdict != "alarm" and left:
        verdict, reason = (
            "unknown",
            f"{reason}; too little is known of {counted(small + len(undefined), 'other group')}",
        )
        named = f"{named}; {', '.join(left)}"
    return MonitorFinding(**facts, verdict=verdict, figure=apart, reason=reason, groups=named)


def _apart(one: GroupFigure, other: GroupFigure, ratio: bool, groups: int) -> tuple[float, float]:
    """Return the difference or ratio of two groups, and the near end of its interval over all pairs."""
    from scipy.special import ndtri

    values = []
    for each in (one, other):
        assert each.value is not None and each.low is not None and each.high is not None
        error = (each.high - each.low) / (2 * 1.96)
        values.append((np.log(each.value), error / each.value) if ratio else (each.value, error))
    (a, error_a), (b, error_b) = values
    pairs = max(groups * (groups - 1) / 2, 1)
    near = max(0.0, abs(a - b) + float(ndtri(0.025 / pairs)) * float(np.hypot(error_a, error_b)))
    return (float(np.exp(abs(a - b))), float(np.exp(near))) if ratio else (float(abs(a - b)), near)


def unlabelled_metric(metric: str) -> bool:
    """Return True if a metric needs no labels."""
    return metric == "selection_rate"
