"""Facts of a training run: data, code, parameters, and the metrics of its model on the holdout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from pipelines.declarations.bundle import Bundle, DatasetVersion, Source
from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration
from pipelines.declarations.evaluation import Estimate, Evaluation
from pipelines.declarations.model import METRICS, Task
from pipelines.declarations.names import Commit, Instant, Name

MetricName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(/[a-z][a-z0-9_-]*){0,2}$", max_length=128)]
"""Name of a metric: `rmse`, `slice/young/rmse`, `difference/region/rmse` or `ratio/region/rmse`."""


class RunFacts(Declaration):
    """Facts of a run, for comparisons. What decides about a release is in the signed bundle.

    Attributes:
        model, task: the model and its task.
        started, finished: when the run began and ended; None if only the bundle is known.
        commit: git commit of the source; None for an experiment, or if only the bundle is known.
        image: digest of the training image; None for an experiment.
        source: digests of the code.
        contract: digest of the contract file.
        dataset: the dataset version that it trained on.
        parameters, seed: parameters and random seed of the training function.
        training_rows, holdout_rows: rows of the two parts.
        holdout: digest of the keys of the holdout rows.
        metrics: metric → value on the holdout, with its interval if it is of the whole holdout.
    """

    format: Literal["mlops/run/v1"] = "mlops/run/v1"
    model: Name
    task: Task
    started: Instant | None
    finished: Instant | None
    commit: Commit | None
    image: Digest | None
    source: Source
    contract: Digest
    dataset: DatasetVersion
    parameters: dict[str, Any]
    seed: int
    training_rows: Annotated[int, Field(ge=1)]
    holdout_rows: Annotated[int, Field(ge=1)]
    holdout: Digest
    metrics: dict[MetricName, Estimate]


def facts_of_run(
    manifest: Bundle,
    evaluation: Evaluation,
    started: str | None = None,
    finished: str | None = None,
    commit: str | None = None,
    *,
    image: str | None = None,
) -> RunFacts:
    """Return the facts of a run.

    Args:
        manifest, evaluation: the bundle that it made, or would have made.
        started, finished: ISO 8601 timestamps in UTC with a trailing Z; None if unknown.
        commit: git commit of the source; None if unknown.
        image: digest of the training image; None for an experiment.
    """
    return RunFacts(
        model=manifest.model,
        task=manifest.task,
        started=started,
        finished=finished,
        commit=commit,
        image=image,
        source=manifest.source,
        contract=manifest.contract,
        dataset=manifest.dataset,
        parameters=manifest.parameters,
        seed=manifest.seed,
        training_rows=evaluation.holdout.training_rows,
        holdout_rows=evaluation.holdout.rows,
        holdout=evaluation.holdout.keys,
        metrics=metrics_of(evaluation),
    )


def metrics_of(evaluation: Evaluation) -> dict[str, Estimate]:
    """Return every metric of an evaluation: of the holdout and its slices, and differences between groups."""
    found = dict(evaluation.metrics)
    for name, part in evaluation.slices.items():
        found |= {f"slice/{name}/{metric}": _plain(value) for metric, value in part.metrics.items()}
    for name, groups in evaluation.groups.items():
        for kind, figures in (("difference", groups.difference), ("ratio", groups.ratio)):
            found |= {f"{kind}/{name}/{metric}": _plain(value) for metric, value in figures.items()}
    return found


def _plain(value: float | None) -> Estimate:
    return Estimate(value=value, low=None, high=None)


def is_lower_better(metric: str, task: Task) -> bool:
    """Return True if a lower value of a metric is better. A metric that is not known counts as better if higher."""
    kind, _, _ = metric.partition("/")
    if kind in ("difference", "ratio"):
        return kind == "difference"
    return METRICS[task].get(metric.rpartition("/")[2]) == "lower"


def flatten(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters by dotted names: `{"tree": {"depth": 3}}` is `{"tree.depth": 3}`."""
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, dict) and value:
            found |= {f"{name}.{below}": inner for below, inner in flatten(value).items()}
        else:
            found[str(name)] = value
    return found
