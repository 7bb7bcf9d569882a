"""A sample project with a classifier of loans, and rows of its dataset."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from pipelines.declarations.bundle import DatasetVersion
from pipelines.declarations.contract import Contract
from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.project import Project

MODEL = "loan-default"
DATASET = "loans"
IMAGE = digest_of_bytes(b"image")

COLUMNS: list[dict[str, Any]] = [
    {"name": "loan_id", "logicalType": "integer", "required": True, "primaryKey": True},
    {
        "name": "income",
        "logicalType": "number",
        "required": True,
        "logicalTypeOptions": {"minimum": 0, "exclusiveMaximum": 1000},
    },
    {"name": "age", "logicalType": "integer", "required": True},
    {"name": "member", "logicalType": "boolean"},
    {
        "name": "region",
        "logicalType": "string",
        "required": True,
        "quality": [{"metric": "invalidValues", "arguments": {"validValues": ["north", "south"]}, "mustBe": 0}],
    },
    {"name": "defaulted", "logicalType": "string"},
]

DECLARATION: dict[str, Any] = {
    "name": MODEL,
    "objective": "Say which loans will not be paid back.",
    "intended_use": "Tests.",
    "owner": "tests",
    "task": "classification",
    "contract": DATASET,
    "target": "defaulted",
    "features": ["income", "age", "member", "region"],
    "protected": ["region"],
    "slices": [
        {"name": "young", "column": "age", "below": 30},
        {"name": "north", "column": "region", "equals": "north"},
    ],
    "training": {
        "entrypoint": "train:train",
        "seed": 3,
        "holdout": 0.3,
        "parameters": {"strength": 1.0},
        "resources": {"cpu": "1", "memory": "1Gi"},
    },
    "gates": {
        "thresholds": [{"metric": "roc_auc", "minimum": 0.6}],
        "champion": {"metric": "roc_auc", "maximum_regression": 0.02},
        "latency": {"p99_ms": 20.0},
        "soak": {"requests": 1, "seconds": 0},
    },
    "serving": {"resources": {"cpu": "1", "memory": "1Gi"}},
}

TRAIN = """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from pipelines.training import TrainedModel, TrainingData, from_sklearn


    def train(data: TrainingData) -> TrainedModel:
        numbers = make_pipeline(SimpleImputer(), StandardScaler())
        columns = ColumnTransformer(
            [
                ("numbers", numbers, ["income", "age", "member"]),
                ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["region"]),
            ]
        )
        estimator = make_pipeline(columns, LogisticRegression(C=data.parameters["strength"]))
        estimator.fit(data.features, data.target)
        return from_sklearn(estimator, data.features)
"""


def make_project(root: Path, train: str = TRAIN, **changes: Any) -> Project:
    """Write a project. `changes` replace top-level keys of the model's declaration."""
    model = root / "models" / MODEL
    model.mkdir(parents=True)
    (root / "data-contracts").mkdir()
    (root / "requirements").mkdir()
    (root / "requirements" / "pipelines.txt").write_text("numpy==1\n")
    (root / "Pulumi.yaml").write_text("name: test\nruntime: python\n")
    (model / "train.py").write_text(textwrap.dedent(train))
    (model / "model.yaml").write_text(yaml.safe_dump({**DECLARATION, **changes}))
    (root / "data-contracts" / f"{DATASET}.odcs.yaml").write_text(yaml.safe_dump(contract_document()))
    return Project(root)


def contract_document(columns: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return the contract as its file contains it."""
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "urn:test:loans",
        "name": DATASET,
        "version": "1.0.0",
        "status": "active",
        "schema": [{"name": DATASET, "properties": COLUMNS if columns is None else columns}],
    }


def make_rows(count: int = 240) -> pa.Table:
    """Make loans: low incomes default more often, every seventh `member` is null, the last loan has no outcome."""
    rng = np.random.default_rng(0)
    income = rng.gamma(4.0, 20.0, count).round(2)
    default = rng.random(count) < 1 / (1 + np.exp((income - 80) / 15))
    member: list[bool | None] = (rng.random(count) < 0.5).tolist()
    member[::7] = [None] * len(member[::7])
    outcome: list[str | None] = ["yes" if each else "no" for each in default]
    outcome[-1] = None
    return pa.table(
        {
            "loan_id": pa.array(range(count), pa.int64()),
            "income": pa.array(income),
            "age": pa.array(rng.integers(18, 80, count), pa.int64()),
            "member": pa.array(member, pa.bool_()),
            "region": pa.array(rng.choice(["north", "south"], count).tolist(), pa.string()),
            "defaulted": pa.array(outcome, pa.string()),
        }
    )


def version_of(rows: pa.Table) -> DatasetVersion:
    """Return a dataset version for rows that no table holds."""
    content = digest_of_bytes(str(rows.to_pydict()).encode())
    return DatasetVersion(dataset=DATASET, table="lake.loans", snapshot="1", content=content, rows=rows.num_rows)


def store_rows(descriptor: EnvironmentDescriptor, contract: Contract, rows: pa.Table) -> str:
    """Append rows to the dataset's Iceberg table; return the id of the snapshot."""
    from pipelines.data.catalog import PRIMARY_KEY, append, open_table

    table = open_table(descriptor, contract.name)
    batch = digest_of_bytes(str(rows.to_pydict()).encode())
    return append(descriptor, table, rows.to_reader(), batch, {PRIMARY_KEY: ",".join(contract.primary_key)})
