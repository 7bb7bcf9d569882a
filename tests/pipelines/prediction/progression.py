"""A tiny bundle of the sample model, which adds age and bmi, and rows to predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.declarations.digests import canonical_json, digest_of_bytes
from pipelines.declarations.evaluation import Evaluation, Holdout, Sample
from tests.pipelines.serving.bundles import ROW, MadeBundle, linear_bundle, with_file

MODEL = "diabetes-progression"
FEATURES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


def progression_bundle(seed: int = 7) -> MadeBundle:
    """Make a bundle of the sample model; another seed makes another bundle."""
    holdout = Holdout(
        share=0.25, seed=1, rows=1, training_rows=1, unlabelled_rows=0, keys=digest_of_bytes(b""), leaked_rows=0
    )
    evaluation = Evaluation(
        model=MODEL,
        task="regression",
        holdout=holdout,
        metrics={},
        slices={},
        groups={},
        sample=Sample(keys=(), truth=(), predicted=()),
    )
    made = with_file(linear_bundle(), "evaluation.json", canonical_json(evaluation.model_dump(mode="json")))
    manifest = made.manifest.model_copy(update={"model": MODEL, "seed": seed})
    return MadeBundle(manifest, made.files)


def patients(number: int, first: int = 1, **columns: Any) -> pa.Table:
    """Make rows that the request schema allows; `columns` replace some of their columns."""
    rows: dict[str, Any] = {"patient_id": range(first, first + number)}
    rows |= {name: [value] * number for name, value in zip(FEATURES, ROW, strict=True)}
    rows["age"] = [20 + index % 60 for index in range(number)]
    return pa.table({name: pa.array(list(values)) for name, values in {**rows, **columns}.items()})


def save(folder: Path, table: pa.Table, name: str = "patients.parquet") -> Path:
    """Save rows as a Parquet file."""
    path = folder / name
    pq.write_table(table, path)
    return path
