"""Read a data file of this machine as rows of a dataset."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.batch import LandingFileError
from pipelines.data.landing import check_name
from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    import pyarrow as pa


def find_sample(project: Project, dataset: str) -> Path:
    """Return the sample file of a dataset: `data-contracts/samples/<dataset>.csv`, `.jsonl` or `.parquet`.

    Raises:
        MlopsError: there is none, or more than one.
    """
    samples = project.samples(dataset)
    if len(samples) != 1:
        found = ", ".join(path.name for path in samples) or "none"
        raise MlopsError(
            f"samples of {dataset} in data-contracts/samples: expected one, found {found}",
            fix=f"add a landing file without personal data as data-contracts/samples/{dataset}.csv",
        )
    return samples[0]


def check_samples(project: Project) -> None:
    """Check that each sample can be read as its dataset: a new column of a contract is missing in the old sample.

    Raises:
        MlopsError: the contract has other columns, or the file is damaged; each such sample is named.
    """
    from pipelines.data.reading import SUFFIXES, read_batch

    problems = []
    for dataset in project.dataset_names:
        for path in project.samples(dataset):
            if path.suffix.lower() not in SUFFIXES:
                continue
            with tempfile.TemporaryDirectory(prefix="sample-") as folder:
                try:
                    name = str(path.relative_to(project.root))
                    read_batch(path, project.contract(dataset), Path(folder), name=name)
                except LandingFileError as error:
                    problems.append(str(error))
    if problems:
        raise MlopsError("\n".join(problems))


def read_good_rows(contract: Contract, file: Path, *, name: str | None = None) -> tuple[pa.Table, int]:
    """Read a file as ingestion does; return the rows that keep the contract, by key, and the number of the others.

    Args:
        contract: the contract of the dataset.
        file: the data file.
        name: what errors call the file; by default, its name without its folder.

    Raises:
        LandingFileError: the file is rejected as a whole.
        MlopsError: the file does not exist, has a name that ingestion does not read, or has no good rows.
    """
    from pipelines.data.reading import read_batch
    from pipelines.data.row_digest import in_key_order
    from pipelines.data.validate import validate

    check_name(file)
    with tempfile.TemporaryDirectory(prefix="rows-") as folder:
        scratch = Path(folder)
        with validate(read_batch(file, contract, scratch, name=name), contract, scratch) as checked:
            rows = in_key_order(checked.good_rows().read_all(), contract.primary_key).combine_chunks()
            bad = checked.summary.quarantined
    if rows.num_rows == 0:
        raise MlopsError(f"{file}: expected rows that keep the contract, found none", fix="correct the file")
    return rows, bad
