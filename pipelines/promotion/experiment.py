"""Experiment: train the working tree on this machine, and judge the model by its own gates. Nothing is registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipelines.declarations.bundle import DatasetVersion
from pipelines.declarations.digests import digest_of_bytes, digest_of_value
from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.model import Model, Threshold
from pipelines.declarations.project import Project
from pipelines.declarations.release import Release
from pipelines.declarations.run_facts import RunFacts, facts_of_run
from pipelines.promotion.facts import Facts, Policy, TrialResult
from pipelines.promotion.verdict import Verdict

if TYPE_CHECKING:
    import pyarrow as pa

GATES = ("thresholds", "fairness", "leakage", "runtime")
"""The gates that judge a model by itself. The others compare it with what is live, signed and committed."""


@dataclass(frozen=True)
class Experiment:
    """Result of an experiment.

    Attributes:
        model: the declaration.
        facts: what it was made from, and how its model did.
        evaluation: metrics on the holdout.
        verdicts: verdicts of `GATES`, in this order.
        leaked: a line for each of the first rows of the holdout that equal a training row.
    """

    model: Model
    facts: RunFacts
    evaluation: Evaluation
    verdicts: tuple[Verdict, ...]
    leaked: tuple[str, ...] = ()


def run_experiment(
    project: Project, model_name: str, rows: pa.Table, version: DatasetVersion | None, say: Callable[[str], None]
) -> Experiment:
    """Train a model of the working tree in this process, and judge it. Registers and signs nothing.

    Args:
        project: the working tree.
        model_name: the model's name.
        rows: the rows to split into training data and holdout.
        version: the dataset version that they are; None for rows of a local file.
        say: receives a line for each step.

    Raises:
        MlopsError: a declaration, the data or the model is not valid.
    """
    from pipelines.data.row_digest import digest_of_rows
    from pipelines.promotion.trial import try_bundle
    from pipelines.training.training_run import make_bundle, utc_timestamp
    from pipelines.training.training_set import in_memory
    from pipelines.training.unconfined import train_unconfined

    started = utc_timestamp()
    model = project.model(model_name)
    contract = project.contract(model.contract)
    known = version or DatasetVersion(
        dataset=model.contract,
        table="local",
        snapshot="0",
        content=digest_of_rows(rows, contract.primary_key),
        rows=rows.num_rows,
    )
    no_image = digest_of_bytes(b"")  # the manifest is not kept
    ordered = in_memory(rows, model, contract)
    manifest, files = make_bundle(
        project, model, contract, ordered, known, no_image, say, train_unconfined, must_confine=False
    )
    evaluation = Evaluation.model_validate_json(files["evaluation.json"])
    facts = facts_of_run(manifest, evaluation, started, utc_timestamp())
    verdicts = judge_experiment(model, evaluation, try_bundle(project, manifest, files))
    leaked: list[str] = []
    if evaluation.holdout.leaked_rows:
        from pipelines.training.leaked_rows import describe_leaked

        leaked = describe_leaked(model, contract, rows)
    return Experiment(model, facts, evaluation, verdicts, tuple(leaked))


def judge_experiment(model: Model, evaluation: Evaluation, trial: TrialResult) -> tuple[Verdict, ...]:
    """Judge a model by its own gates, as they are in the working tree.

    Args:
        model: the declaration.
        evaluation: metrics on the holdout.
        trial: result of loading the model as the server does.
    """
    from pipelines.promotion.gates import GATES as ALL

    bounds = digest_of_value(model.gates.model_dump(mode="json"))
    known: dict[str, Any] = {
        "now": datetime.now(UTC),
        "release": Release(model=model.name, environment="none", bundle=None, replaces=None),
        "policy": Policy(gates=model.gates, digest=bounds, evaluated=bounds),
        "evaluation": evaluation,
        "runtime": trial,
        **dict.fromkeys(("changed_files", "files", "signatures"), ()),
        "unknown": {},
    }
    facts = Facts(**{**dict.fromkeys(Facts.model_fields), **known})
    return tuple(ALL[name](facts) for name in GATES)


def describe_experiment(found: Experiment) -> list[str]:
    """Return the metrics, slices and verdicts as lines of text."""
    bounds = {bound.metric: _bound(bound) for bound in found.model.gates.thresholds}
    lines = [f"{'metric':<20} {'holdout':>10}  {'95% interval':<24} threshold"]
    for metric, estimate in found.evaluation.metrics.items():
        interval = f"{_figure(estimate.low)} to {_figure(estimate.high)}"
        lines.append(f"{metric:<20} {_figure(estimate.value):>10}  {interval:<24} {bounds.get(metric, '')}".rstrip())
    for name, part in found.evaluation.slices.items():
        figures = ", ".join(f"{metric} {_figure(part.metrics.get(metric))}" for metric in bounds)
        lines.append(f"slice {name}: {part.rows} rows, {figures}")
    lines.append("")
    for verdict in found.verdicts:
        lines.append(f"{verdict.gate:<12} {verdict.outcome:<13} {verdict.figure} ({verdict.threshold})")
        if verdict.fix:
            lines.append(f"{'':<12} {verdict.why}")
            if verdict.gate == "leakage":
                lines += [f"{'':<12}   {row}" for row in found.leaked]
            lines.append(f"{'':<12} fix: {verdict.fix}")
    return lines


def _bound(bound: Threshold) -> str:
    sides = ((bound.minimum, "≥"), (bound.maximum, "≤"))
    return ", ".join(f"{sign} {value:g}" for value, sign in sides if value is not None)


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
