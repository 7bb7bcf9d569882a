"""Model card of a bundle, in Markdown. It does not depend on the time or place of training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.declarations.bundle import DatasetVersion
from pipelines.declarations.contract import Contract
from pipelines.declarations.evaluation import Evaluation, Holdout
from pipelines.declarations.markdown import number, table
from pipelines.declarations.model import METRICS, Model


def write_card(model: Model, contract: Contract, dataset: DatasetVersion, evaluation: Evaluation) -> str:
    """Write `card.md`. Its sections follow Mitchell et al., Model Cards for Model Reporting (2019)."""
    holdout = evaluation.holdout
    limitations = (contract.description or {}).get("limitations")
    parts = [
        f"# {model.name}",
        model.objective.strip(),
        f"**Intended use.** {' '.join(model.intended_use.split())}",
        f"**Owner.** {model.owner}",
        "## Data",
        f"{contract.name} {contract.version}, snapshot {dataset.snapshot}, {dataset.rows} rows "
        f"(content `{dataset.content}`). Training used {holdout.training_rows} rows{_sampled(holdout)}; {holdout.rows} "
        "rows, chosen by their keys, are the holdout"
        + (f". {holdout.unlabelled_rows} rows had no target yet." if holdout.unlabelled_rows else "."),
        f"Predicts `{model.target}` from {', '.join(f'`{name}`' for name in model.features)}.",
        "## Metrics on the holdout",
        _table(
            ("metric", "value", "95 % interval", "better"),
            (
                (metric, _number(e.value), f"{_number(e.low)} to {_number(e.high)}", METRICS[model.task][metric])
                for metric, e in evaluation.metrics.items()
            ),
        ),
    ]
    metrics = list(evaluation.metrics)
    if evaluation.slices:
        parts += [
            "## Slices",
            _table(
                ("slice", "rows", *metrics),
                (
                    (name, str(part.rows), *(_number(part.metrics.get(metric)) for metric in metrics))
                    for name, part in evaluation.slices.items()
                ),
            ),
        ]
    for attribute, groups in evaluation.groups.items():
        parts += [
            f"## Fairness: {attribute}",
            _table(
                (attribute, "rows", *metrics),
                (
                    *(
                        (name, str(part.rows), *(_number(part.metrics.get(metric)) for metric in metrics))
                        for name, part in groups.groups.items()
                    ),
                    ("difference", "", *(_number(groups.difference[metric]) for metric in metrics)),
                    ("ratio", "", *(_number(groups.ratio[metric]) for metric in metrics)),
                ),
            ),
        ]
    parts += ["## Limitations", *_limitations(evaluation, limitations)]
    return "\n\n".join(parts) + "\n"


def _sampled(holdout: Holdout) -> str:
    """Say that not all rows were used for training."""
    if holdout.sample is None:
        return ""
    return f", a sample of {holdout.sample:g} by their keys, and left {holdout.left_out_rows} out"


def _limitations(evaluation: Evaluation, of_the_data: object) -> list[str]:
    lines = [f"- {of_the_data}"] if of_the_data else []
    lines.append(f"- Evaluated on {evaluation.holdout.rows} rows of the same dataset. Other populations may differ.")
    small = [
        f"{attribute} {name} ({part.rows})"
        for attribute, groups in evaluation.groups.items()
        for name, part in groups.groups.items()
        if part.rows < 30
    ]
    if small:
        lines.append(f"- These groups have too few rows for reliable metrics: {', '.join(small)}.")
    if evaluation.holdout.leaked_rows:
        lines.append(f"- {evaluation.holdout.leaked_rows} rows of the holdout equal rows used for training.")
    return ["\n".join(lines)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(table(head, rows))


def _number(value: float | None) -> str:
    return number(value, missing="–")
