"""Make bundles of the repository's models from the samples of their datasets."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from pipelines.data.reading import read_batch
from pipelines.data.row_digest import digest_of_rows
from pipelines.data.validate import validate
from pipelines.declarations.bundle import Bundle, DatasetVersion
from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.training.training_run import make_bundle


def good_rows(project: Project, dataset: str, scratch: Path) -> pa.Table:
    """Return the rows of a dataset's sample that its contract accepts.

    Raises:
        MlopsError: the dataset does not have exactly one sample.
    """
    contract = project.contract(dataset)
    samples = sorted((project.contracts_folder / "samples").glob(f"{dataset}.*"))
    if len(samples) != 1:
        found = ", ".join(path.name for path in samples) or "none"
        raise MlopsError(
            f"samples of {dataset} in data-contracts/samples: expected one, found {found}",
            fix=f"add a landing file without personal data as data-contracts/samples/{dataset}.csv",
        )
    (sample,) = samples
    with validate(read_batch(sample, contract, scratch), contract, scratch) as validation:
        return validation.good_rows().read_all()


def bundle_of_sample(project: Project, model: str, scratch: Path) -> tuple[Bundle, dict[str, bytes]]:
    """Make the bundle that training on the sample makes."""
    declared = project.model(model)
    contract = project.contract(declared.contract)
    rows = good_rows(project, declared.contract, scratch)
    content = digest_of_rows(rows, contract.primary_key)
    version = DatasetVersion(
        dataset=declared.contract, table="sample.rows", snapshot="1", content=content, rows=rows.num_rows
    )
    return make_bundle(project, declared, contract, rows, version, digest_of_bytes(b"image"), lambda line: None)
