"""Start a model: `mlops new model NAME`."""

from __future__ import annotations

import random
from pathlib import Path

import click
from pydantic import TypeAdapter, ValidationError

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import Name
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release

ROWS = 240

MODEL = """\
# yaml-language-server: $schema=../../pipelines/declarations/schemas/model.schema.json
name: {name}
objective: Say what the model is to achieve.
intended_use: Say what its predictions may, and may not, be used for.
owner: {owner}
task: {task}
contract: {dataset}
target: {target}
features: [income, debt, age]
protected: [region]
slices:
  - {{name: under-30, column: age, below: 30}}
training:
  entrypoint: train:train
  seed: 1
  holdout: 0.3
  parameters: {{}}
  resources: {{cpu: "1", memory: 2Gi}}
gates:
  thresholds:
    - {threshold}
  champion: {{metric: {metric}, maximum_regression: 0.05}}
  fairness:
    - {{attribute: region, metric: {metric}, maximum_ratio: 2.0, minimum_group_size: 10}}
  latency: {{p99_ms: 20.0}}
  soak: {{requests: 20, seconds: 1}}
serving:
  resources: {{cpu: 500m, memory: 256Mi}}
  rollout:
    - {{weight: 10, pause_seconds: 1}}
    - {{weight: 50, pause_seconds: 1}}
"""

TRAIN = '''\
"""Trains {name}. Any framework will do, if it can export ONNX: see docs/data-scientist.md."""

from __future__ import annotations

from sklearn.linear_model import {estimator}
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipelines.training import TrainedModel, TrainingData, from_sklearn


def train(data: TrainingData) -> TrainedModel:
    """Fit the model on `data`, with its parameters and its seed."""
    pipeline = make_pipeline(StandardScaler(), {estimator}({arguments}))
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
  purpose: Say what the data is for. The sample beside this file is made up; put your own in its place.
schema:
  - name: {dataset}
    physicalType: table
    dataGranularityDescription: One row a customer.
    properties:
      - name: customer_id
        logicalType: integer
        description: Number of the customer.
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
        description: Where the customer lives.
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
"""

VARIANTS = {
    "regression": {
        "target": "spending",
        "target_type": "number",
        "target_maximum": "1000",
        "threshold": "{metric: r2, minimum: 0.5}",
        "metric": "rmse",
        "estimator": "Ridge",
        "arguments": "",
    },
    "classification": {
        "target": "defaulted",
        "target_type": "integer",
        "target_maximum": "1",
        "threshold": "{metric: accuracy, minimum: 0.7}",
        "metric": "log_loss",
        "estimator": "LogisticRegression",
        "arguments": "random_state=data.seed",
    },
}


def sample(task: str) -> str:
    """A made-up batch that the starting contract accepts and the starting model can learn from, as CSV."""
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
    """The files that a new model starts with, by path.

    Raises:
        MlopsError: the name is not one that a model can have.
    """
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise MlopsError(
            f"{name!r} cannot be a model's name",
            fix="use 2 to 40 lower-case letters, digits and hyphens, beginning with a letter",
        ) from None
    dataset = f"{name[:35].rstrip('-')}-data"
    words = {"name": name, "task": task, "owner": owner, "dataset": dataset, **VARIANTS[task]}
    folder = project.models_folder / name
    files = {
        folder / "model.yaml": MODEL.format(**words),
        folder / "train.py": TRAIN.format(**words),
        project.contract_file(dataset): CONTRACT.format(**words),
        project.contracts_folder / "samples" / f"{dataset}.csv": sample(task),
    }
    for environment in project.environments:
        release = Release(model=name, environment=environment, bundle=None, replaces=None)
        files[project.release_file(name, environment)] = render_release(release)
    return files


@click.group()
def new() -> None:
    """Start something new."""


@new.command()
@click.argument("name")
@click.option("--task", type=click.Choice(sorted(VARIANTS)), default="classification", show_default=True)
@click.option("--owner", default="ml-platform", show_default=True, help="The team that answers for it.")
def model(name: str, task: str, owner: str) -> None:
    """Write a starting point for the model NAME, with a contract and made-up data; it passes the tests as it is."""
    project = Project.find()
    files = starting_point(project, name, task, owner)
    if existing := [path for path in files if path.exists()]:
        raise MlopsError(f"{existing[0].relative_to(project.root)} already exists; nothing was written")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(f"wrote {path.relative_to(project.root)}")
    click.echo(
        f"Next: put your data's columns into the contract, then write {name}/train.py; `mlops check` and `make test`."
    )
