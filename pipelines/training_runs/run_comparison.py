"""Comparison of runs: what differs between them, and how their models did. Decisions only, without effects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.evaluation import Estimate
from pipelines.declarations.printable import printable, shorten
from pipelines.declarations.run_facts import RunFacts, flatten, is_lower_better
from pipelines.training_runs.recorded_runs import RecordedRun

NO_VALUE = "none"
"""Text of a parameter that a run does not have."""

DATA, HOLDOUT = "data", "holdout"
"""Facts that say on which dataset version a run was trained, and on which rows it was evaluated."""

DIGESTS = ("rows", HOLDOUT, "commit", "model code", "pipelines code", "requirements", "contract", "image")
"""Facts whose texts are digests. They show only whether runs differ."""

LONGEST_TEXT = 200
"""Characters of a parameter's text."""


@dataclass(frozen=True)
class ComparedRun:
    """A run in a comparison.

    Attributes:
        run: the run.
        facts: its facts.
        texts: name of a fact → its value as text.
    """

    run: RecordedRun
    facts: RunFacts
    texts: Mapping[str, str]

    def metric(self, name: str) -> Estimate | None:
        """Return a metric, if it is defined for this run."""
        found = self.facts.metrics.get(name)
        return found if found is not None and found.value is not None else None


@dataclass(frozen=True)
class RunComparison:
    """Runs of one model, compared.

    Attributes:
        model: the model's name.
        runs: the runs: the best first, and those without the metric last; or the newest first.
        sort: metric by which runs are better or worse; "" if they have no metric.
        by_time: True if the newest run is first.
        lower_is_better: True if a lower value of `sort` is better.
        differing: names of the facts that differ, parameters first.
        same: name → value of the facts that are the same in all runs.
        metrics: names of the metrics to show, the one that sorts first.
        left_out: runs without facts, which cannot be compared.
    """

    model: str
    runs: tuple[ComparedRun, ...]
    sort: str
    by_time: bool
    lower_is_better: bool
    differing: tuple[str, ...]
    same: Mapping[str, str]
    metrics: tuple[str, ...]
    left_out: tuple[RecordedRun, ...]

    @cached_property
    def ranked(self) -> tuple[ComparedRun, ...]:
        """The runs, the best first; those without the metric are last, and equal ones keep their order."""
        return tuple(sorted(self.runs, key=lambda each: _place(each.metric(self.sort), self.lower_is_better)))

    @property
    def best(self) -> Estimate | None:
        """The best value of the metric, with its interval."""
        return self.ranked[0].metric(self.sort) if self.runs and self.sort else None

    @property
    def has_one_holdout(self) -> bool:
        """True if all runs were evaluated on the same rows."""
        return HOLDOUT not in self.differing

    def mark(self, run: ComparedRun, metric: str) -> str:
        """Return the mark of a figure: " ~" if the difference from the best run may be chance."""
        is_other = metric == self.sort and run is not self.ranked[0]
        return " ~" if is_other and self.may_be_chance(run) else ""

    def may_be_chance(self, run: ComparedRun) -> bool:
        """Return True if the interval of a run includes the best value, so the difference may be chance."""
        best, own = self.best, run.metric(self.sort)
        if best is None or own is None or own.low is None or own.high is None or best.value is None:
            return False
        return own.low <= best.value <= own.high


def compare_runs(
    model: str, runs: Sequence[RecordedRun], sort: str, metrics: Sequence[str] = (), *, by_time: bool = False
) -> RunComparison:
    """Compare runs of a model.

    Args:
        model: the model's name.
        runs: the runs, the newest first.
        sort: metric by which runs are better or worse; "" for the first one that they have.
        metrics: names of the metrics to show; those of the whole holdout by default.
        by_time: True to keep the order of `runs`.

    Raises:
        MlopsError: no run has one of the metrics.
    """
    compared = [ComparedRun(run, run.facts, describe_facts(run.facts)) for run in runs if run.facts is not None]
    known = dict.fromkeys(name for each in compared for name in each.facts.metrics)
    for name in (*metrics, *([sort] if sort else ())):
        if compared and name not in known:
            raise MlopsError(
                f"metric {name!r} of {model}: expected one of {', '.join(known)}, found none of that name",
                fix="name one of them",
            )
    order = sort or next(iter(known), "")
    lower = bool(order) and bool(compared) and is_lower_better(order, compared[0].facts.task)
    if not by_time:
        compared.sort(key=lambda each: _place(each.metric(order), lower))  # stable: equal ones stay in order of time
    names = dict.fromkeys(name for each in compared for name in each.texts)
    differing = [name for name in names if len({each.texts.get(name, NO_VALUE) for each in compared}) > 1]
    shown = list(metrics) or [name for name in known if "/" not in name]
    return RunComparison(
        model=model,
        runs=tuple(compared),
        sort=order,
        by_time=by_time,
        lower_is_better=lower,
        differing=tuple(differing),
        same={name: compared[0].texts[name] for name in names if name not in differing},
        metrics=tuple(dict.fromkeys(([order] if order else []) + shown)),
        left_out=tuple(run for run in runs if run.facts is None),
    )


def _place(estimate: Estimate | None, lower: bool) -> tuple[bool, float]:
    if estimate is None or estimate.value is None:
        return (True, 0.0)
    return (False, estimate.value if lower else -estimate.value)


def describe_facts(facts: RunFacts) -> dict[str, str]:
    """Return name → text of what a run was made from: parameters, seed, data and code, in this order."""
    described = {
        "seed": str(facts.seed),
        DATA: f"{facts.dataset.dataset} {facts.dataset.snapshot}" if facts.dataset.snapshot != "0" else "a file",
        "rows": _short(facts.dataset.content),
        "training rows": str(facts.training_rows),
        HOLDOUT: f"{facts.holdout_rows} rows {_short(facts.holdout)}",
        "commit": facts.commit[:12] if facts.commit is not None else NO_VALUE,
        "model code": _short(facts.source.model),
        "pipelines code": _short(facts.source.pipelines),
        "requirements": _short(facts.source.requirements),
        "contract": _short(facts.contract),
        "image": _short(facts.image) if facts.image is not None else NO_VALUE,
    }
    parameters = {
        f"parameters.{name}" if name in described else name: _text(value)
        for name, value in flatten(facts.parameters).items()
    }
    return {printable(name): printable(text) for name, text in (parameters | described).items()}


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return shorten(text, LONGEST_TEXT)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def comparison_json(comparison: RunComparison) -> dict[str, Any]:
    """Return a comparison as a JSON value."""
    return {
        "model": comparison.model,
        "sort": comparison.sort,
        "lower_is_better": comparison.lower_is_better,
        "one_holdout": comparison.has_one_holdout,
        "differing": list(comparison.differing),
        "same": dict(comparison.same),
        "runs": [{**run_json(each.run), "may_be_chance": comparison.may_be_chance(each)} for each in comparison.runs],
        "left_out": [run_json(run) for run in comparison.left_out],
    }


def run_json(run: RecordedRun) -> dict[str, Any]:
    """Return a run as a JSON value."""
    return {
        "run": run.id,
        "environment": run.environment,
        "ended": run.ended.isoformat(),
        "bundle": run.bundle,
        "problem": run.problem,
        "facts": run.facts.model_dump(mode="json") if run.facts is not None else None,
    }
