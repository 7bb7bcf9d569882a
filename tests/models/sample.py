"""Make a bundle of any model of the repository from the sample of its dataset, as the jobs would."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from pipelines.data.digest import digest_of_rows
from pipelines.data.reading import read_batch
from pipelines.data.validate import validate
from pipelines.declarations.bundle import Bundle, DatasetVersion
from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.training.job import make_bundle


def good_rows(project: Project, dataset: str, scratch: Path) -> pa.Table:
    """The rows of a dataset's sample that its contract accepts.

    Raises:
        MlopsError: there is not one sample.
    """
    contract = project.contract(dataset)
    samples = sorted((project.contracts_folder / "samples").glob(f"{dataset}.*"))
    if len(samples) != 1:
        found = ", ".join(path.name for path in samples) or "none"
        raise MlopsError(
            f"the tests train on one sample of {dataset}; found {found} in data-contracts/samples",
            fix=f"put a batch as it arrives at data-contracts/samples/{dataset}.csv, without personal data",
        )
    (sample,) = samples
    with validate(read_batch(sample, contract, scratch), contract, scratch) as validation:
        return validation.good_rows().read_all()


def bundle_of_sample(project: Project, model: str, scratch: Path) -> tuple[Bundle, dict[str, bytes]]:
    """The bundle that training would make of the sample."""
    declared = project.model(model)
    contract = project.contract(declared.contract)
    rows = good_rows(project, declared.contract, scratch)
    content = digest_of_rows(rows, contract.primary_key)
    version = DatasetVersion(
        dataset=declared.contract, table="sample.rows", snapshot="1", content=content, rows=rows.num_rows
    )
    return make_bundle(project, declared, contract, rows, version, digest_of_bytes(b"image"), lambda line: None)
