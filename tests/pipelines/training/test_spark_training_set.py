"""A model of a dataset whose contract says `engine: spark` is the one that one process makes, byte by byte."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.data.catalog import read_version
from pipelines.data.spark_session import open_spark, run_sail
from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.training.spark_training_set import read_training_rows
from pipelines.training.training_run import make_bundle
from pipelines.training.training_set import TrainingSet, in_memory
from pipelines.training.unconfined import train_unconfined
from tests.aws import EmulatedAccount, make_environment
from tests.pipelines.training.project import DATASET, IMAGE, MODEL, contract_document, make_project, make_rows
from tests.pipelines.training.project import store_rows as store

pytestmark = pytest.mark.slow

pytest.importorskip("pysail", reason="requirements/spark.txt is not installed")

CONTRACT = Contract.model_validate_json(json.dumps(contract_document()))


@pytest.fixture(scope="module")
def dev(account: EmulatedAccount) -> EnvironmentDescriptor:
    """An environment whose table has its rows in three files, in no order; numbers of all kinds among them."""
    descriptor = make_environment("dev", CONTRACT)
    rows = make_rows(900)
    income = rows.column("income").to_numpy().copy()
    income[:4] = [0.0, -0.0, 1e-40, 1e30]
    rows = rows.set_column(1, "income", pa.array(income))
    order = np.random.default_rng(4).permutation(rows.num_rows)
    for part in np.array_split(order, 3):
        store(descriptor, CONTRACT, rows.take(pa.array(part)))
    return descriptor


@pytest.mark.parametrize("mode", ["local", "local-cluster"])
def test_the_bundle_is_the_same_on_one_process_and_on_several_workers(
    dev: EnvironmentDescriptor, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project")
    model = project.model(MODEL)
    rows, version = read_version(dev, DATASET)
    here = in_memory(rows, model, CONTRACT)
    with run_sail(SAIL_MODE=mode) as address:
        monkeypatch.setenv("SPARK_REMOTE", address)
        with open_spark() as spark:
            there, known = read_training_rows(spark, dev, model, CONTRACT, None, tmp_path / "rows.parquet")
    assert known == version
    for name in here.schema.names:
        one, other = ([each for block in found.blocks([name]) for each in block[name]] for found in (here, there))
        assert [repr(each.as_py()) for each in one] == [repr(each.as_py()) for each in other], name
    made = [
        make_bundle(project, model, CONTRACT, found, version, IMAGE, lambda line: None, train_unconfined)
        for found in (here, there)
    ]
    assert made[0] == made[1]
    assert TrainingSet(model, CONTRACT, there).holdout.unlabelled_rows == 1


def test_a_version_without_a_column_of_the_model_is_refused(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_project(tmp_path / "project").model(MODEL).model_copy(update={"features": ("income", "height")})
    with run_sail() as address:
        monkeypatch.setenv("SPARK_REMOTE", address)
        with open_spark() as spark, pytest.raises(MlopsError, match="lack height, which loan-default needs"):
            read_training_rows(spark, dev, model, CONTRACT, None, tmp_path / "rows.parquet")
