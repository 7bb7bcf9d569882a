"""Make bundles of the repository's models from the samples of their datasets."""

from __future__ import annotations

import pytest

from pipelines.data.local_rows import find_sample, read_good_rows
from pipelines.data.row_digest import digest_of_rows
from pipelines.declarations.bundle import Bundle, DatasetVersion
from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.training.training_run import make_bundle
from pipelines.training.training_set import in_memory


def bundle_of_sample(project: Project, model: str) -> tuple[Bundle, dict[str, bytes]]:
    """Make the bundle that training on the sample makes."""
    declared = project.model(model)
    contract = project.contract(declared.contract)
    try:
        path = find_sample(project, declared.contract)
        rows, _ = read_good_rows(contract, path, name=str(path.relative_to(project.root)))
    except MlopsError as error:
        pytest.fail(str(error), pytrace=False)
    content = digest_of_rows(rows, contract.primary_key)
    version = DatasetVersion(
        dataset=declared.contract, table="sample.rows", snapshot="1", content=content, rows=rows.num_rows
    )
    ordered = in_memory(rows, declared, contract)
    return make_bundle(project, declared, contract, ordered, version, digest_of_bytes(b"image"), lambda line: None)
