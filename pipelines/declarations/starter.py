"""Files that a new model starts with: declarations, training code, a contract and sample data."""

from __future__ import annotations

import random
from pathlib import Path

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.classification import is_personal
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import checked_name
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release

ROWS = 240

MODEL = """\
# yaml-language-server: $schema=../../pipelines/declarations/schemas/model.schema.json
name: {name}
objective: Describe what the model should achieve.
intended_use: Describe what its predictions may and may not be used for.
owner: {owner}
task: {task}
contract: {dataset}
target: {target}
features: [{features}]
{groups}training:
  entrypoint: train:train
  seed: 1
  holdout: 0.3
  parameters: {{}}
  retrain_on: [new-data]
  resources: {{cpu: "1", memory: 2Gi}}
gates:
  thresholds:
    - {threshold}
  champion: {{metric: {metric}, maximum_regression: 0.05}}{fairness}
  # leakage: {{maximum_share: 0.01}} # if rows are equal by chance; otherwise, no row of the holdout may be in training
  latency: {{p99_ms: 20.0}}
  soak: {{requests: 100, seconds: 1800}} # in each environment, before the next
serving:
  resources: {{cpu: 500m, memory: 256Mi}}
  rollout: # the canary is checked as long as each step lasts; a load balancer needs up to a minute to apply a weight
    - {{weight: 10, pause_seconds: 300}}
    - {{weight: 50, pause_seconds: 300}}
"""

GROUPS = """\
protected: [region]
slices:
  - {name: under-30, column: age, below: 30}
"""

FAIRNESS = """
  fairness:
    - {{attribute: region, metric: {metric}, maximum_ratio: 2.0, minimum_group_size: 10}}"""

TRAIN = '''\
"""Train {name}. Any framework that can export ONNX works: see docs/data-scientist.md."""

from __future__ import annotations

from sklearn.linear_model import {estimator}
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipelines.training import TrainedModel, TrainingData, from_sklearn


def train(data: TrainingData) -> TrainedModel:
    """Fit the model to `data`, using its parameters and seed."""
    pipeline = make_pipeline(StandardScaler(), {estimator}({arguments}))
    pipeline.fit(data.features, data.target)
    return from_sklearn(pipeline, data.features)
'''

TRAIN_ON = '''\
"""Train {name}. Any framework that can export ONNX works: see docs/data-scientist.md."""

from __future__ import annotations

from sklearn.compose import make_column_transformer
{imports}from sklearn.linear_model import {estimator}
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import {prepares}

from pipelines.training import TrainedModel, TrainingData, from_sklearn


def train(data: TrainingData) -> TrainedModel:
    """Fit the model to `data`, using its parameters and seed."""
    columns = make_column_transformer(
        {steps},
    )
    pipeline = make_pipeline(columns, {estimator}({arguments}))
    pipeline.fit(data.features, data.target)
    return from_sklearn(pipeline, data.features)
'''

CONTRACT = """\
# yaml-language-server: $schema=../pipelines/declarations/schemas/contract.schema.json
apiVersion: v3.1.0
kind: DataContract
id: urn:mlops:contract:{dataset}
name: {dataset}
version: 1.0.0
status: draft
description:
  purpose: Describe what the data is for. The sample in data-contracts/samples is made up; replace it.
schema:
  - name: {dataset}
    physicalType: table
    dataGranularityDescription: One row per customer.
    properties:
      - name: customer_id
        logicalType: integer
        description: Customer number.
        required: true
        primaryKey: true
      - name: income
        logicalType: number
        description: Yearly income in thousands.
        required: true
        logicalTypeOptions: {{minimum: 0, maximum: 1000}}
      - name: debt
        logicalType: number
        description: Debt in thousands.
        required: true
        logicalTypeOptions: {{minimum: 0, maximum: 1000}}
      - name: age
        logicalType: integer
        description: Age in years.
        required: true
        logicalTypeOptions: {{minimum: 18, maximum: 120}}
      - name: region
        logicalType: string
        description: Region in which the customer lives.
        required: true
        classification: protected
        quality:
          - {{metric: invalidValues, arguments: {{validValues: [north, south]}}, mustBe: 0}}
      - name: {target}
        logicalType: {target_type}
        description: What the model predicts.
        required: true
        logicalTypeOptions: {{minimum: 0, maximum: {target_maximum}}}
    quality:
      - {{metric: rowCount, mustBeGreaterThan: 0}}
slaProperties:
  - {{property: frequency, value: 1, unit: d}}
"""

VARIANTS = {
    "regression": {
        "target": "spending",
        "target_type": "number",
        "target_maximum": "1000",
        "threshold": "{metric: r2, minimum: 0.5}",
        "least": "{metric: r2, minimum: 0} # what the model must reach",
        "metric": "rmse",
        "estimator": "Ridge",
        "arguments": "",
    },
    "classification": {
        "target": "defaulted",
        "target_type": "integer",
        "target_maximum": "1",
        "threshold": "{metric: accuracy, minimum: 0.7}",
        "least": "{metric: accuracy, minimum: 0.5} # what the model must reach",
        "metric": "log_loss",
        "estimator": "LogisticRegression",
        "arguments": "random_state=data.seed",
    },
}


def sample(task: str) -> str:
    """Return made-up rows as CSV that the contract accepts and the model can learn from."""
    chance = random.Random(1)  # noqa: S311 - sample data, not a secret
    rows = [f"customer_id,income,debt,age,region,{VARIANTS[task]['target']}"]
    for number in range(1, ROWS + 1):
        income, debt, age = chance.uniform(20, 150), chance.uniform(0, 100), chance.randint(18, 80)
        region = chance.choice(["north", "south"])
        score = 0.6 * income - 0.5 * debt + 0.1 * age + chance.gauss(0, 8)
        outcome = f"{min(max(score + 60, 0), 1000):.2f}" if task == "regression" else str(int(score < 25))
        rows.append(f"{number},{income:.2f},{debt:.2f},{age},{region},{outcome}")
    return "\n".join(rows) + "\n"


def starting_point(project: Project, name: str, task: str, owner: str) -> dict[Path, str]:
    """Return the files that a new model starts with, by path.

    Args:
        project: the repository.
        name: the model's name.
        task: a key of `VARIANTS`.
        owner: the team that owns the model.

    Raises:
        MlopsError: the name is invalid.
    """
    checked_name(name)
    dataset = f"{name[:35].rstrip('-')}-data"
    words = {
        "name": name,
        "task": task,
        "owner": owner,
        "dataset": dataset,
        **VARIANTS[task],
        "features": "income, debt, age",
        "groups": GROUPS,
        "fairness": FAIRNESS.format(metric=VARIANTS[task]["metric"]),
    }
    folder = project.models_folder / name
    files = {
        folder / "model.yaml": MODEL.format(**words),
        folder / "train.py": TRAIN.format(**words),
        project.contract_file(dataset): CONTRACT.format(**words),
        project.contracts_folder / "samples" / f"{dataset}.csv": sample(task),
    }
    return {**files, **_releases(project, name)}


def _releases(project: Project, name: str) -> dict[Path, str]:
    return {
        project.release_file(name, environment): render_release(
            Release(model=name, environment=environment, bundle=None, replaces=None)
        )
        for environment in project.environments
    }


def start_model(project: Project, name: str, task: str, owner: str) -> list[Path]:
    """Write the files that a new model starts with, and return their paths. Existing files are never overwritten.

    Raises:
        MlopsError: the name is invalid, or one of the files exists.
    """
    return _write_new(project, starting_point(project, name, task, owner))


def _write_new(project: Project, files: dict[Path, str]) -> list[Path]:
    if existing := [path for path in files if path.exists()]:
        raise MlopsError(f"{existing[0].relative_to(project.root)} already exists; nothing was written")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def start_model_on(project: Project, name: str, task: str, owner: str, dataset: str, target: str) -> list[Path]:
    """Write the files of a model that predicts a column of an existing contract, and return their paths.

    Its features are the numbers, booleans and texts with listed values that are neither personal nor a key.

    Raises:
        MlopsError: the name is invalid, the contract has no such column, no other column can be a feature, or one of
            the files exists.
    """
    checked_name(name)
    contract = project.contract(dataset)
    if target not in contract.columns:
        raise MlopsError(f"target: expected a column of {dataset} ({', '.join(contract.columns)}), found {target!r}")
    usable = [
        column
        for column in contract.columns.values()
        if column.name != target and not column.primary_key and not is_personal(column)
    ]
    text = [column.name for column in usable if column.logical_type == "string" and column.valid_values is not None]
    numbers = [column.name for column in usable if column.logical_type in ("number", "integer", "boolean")]
    if not text and not numbers:
        raise MlopsError(
            f"{dataset} has no column to predict {target} from: expected a number, a boolean or a text with listed "
            f"values that is neither personal nor a key, found none",
            fix="add one to the contract, or list the values of a text",
        )
    features = [column.name for column in usable if column.name in (*text, *numbers)]
    variant = VARIANTS[task]
    words = {
        "name": name,
        "task": task,
        "owner": owner,
        "dataset": dataset,
        **variant,
        "target": target,
        "features": ", ".join(features),
        "groups": "protected: [] # attributes to report fairness for\n",
        "fairness": "",
        "threshold": variant["least"],
    }
    encode = f'(OneHotEncoder(handle_unknown="ignore", sparse_output=False), {_listed(text)})'
    scale = f'(make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), {_listed(numbers)})'
    steps = ",\n        ".join([*([encode] if text else []), *([scale] if numbers else [])])
    folder = project.models_folder / name
    files = {
        folder / "model.yaml": MODEL.format(**words),
        folder / "train.py": TRAIN_ON.format(**words, steps=steps, **_imports(text, numbers)),
    }
    return _write_new(project, {**files, **_releases(project, name)})


def _listed(names: list[str]) -> str:
    """Return names as the source of a list that the formatter leaves as it is."""
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _imports(text: list[str], numbers: list[str]) -> dict[str, str]:
    return {
        "imports": "from sklearn.impute import SimpleImputer\n" if numbers else "",
        "prepares": ", ".join([*(["OneHotEncoder"] if text else []), *(["StandardScaler"] if numbers else [])]),
    }


def write_withdrawal(project: Project, model: str, environment: str) -> tuple[Path, str]:
    """Write a release that withdraws the bundle which the release file names.

    Returns:
        The release file, and the bundle that it withdraws.

    Raises:
        MlopsError: the model or the environment does not exist, or the release names no bundle.
    """
    project.model(model)
    project.stack(environment)
    named = project.release(model, environment)
    path = project.release_file(model, environment)
    if named.bundle is None:
        already = "is withdrawn already" if named.replaces else "was never released"
        raise MlopsError(
            f"{model} {already} in {environment}: {path.relative_to(project.root)} names no bundle",
            fix="nothing to do; its files may be removed in a pull request",
        )
    write_atomically(
        path, render_release(Release(model=model, environment=environment, bundle=None, replaces=named.bundle))
    )
    return path, named.bundle
