"""A dataset whose contract says `engine: spark` is profiled as by one process, digit by digit."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.data.catalog import open_table
from pipelines.data.spark_check import check_on_spark
from pipelines.data.spark_session import open_spark
from pipelines.data.version_files import read_version_on_spark
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.monitoring.data_monitor import examine
from tests.aws import EmulatedAccount, make_environment
from tests.pipelines.data.contracts import column, contract
from tests.pipelines.monitoring.test_data_monitor import Source

pytestmark = pytest.mark.slow

pytest.importorskip("pysail", reason="requirements/spark.txt is not installed")

COLUMNS = (
    column("age", "integer", minimum=0),
    column("city", "string"),
    column("email", "string", classification="personal"),
    column("score", "number"),
)
ONE_PROCESS = contract(*COLUMNS)
ON_SPARK = contract(*COLUMNS, customProperties=[{"property": "engine", "value": "spark"}])
NOW = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture
def dev(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_environment("dev", ONE_PROCESS)


@pytest.fixture(params=["local", "local-cluster"])
def sail(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    mode: str = request.param
    monkeypatch.setenv("SAIL_MODE", mode)
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    return mode


def test_the_report_is_the_same_on_one_process_and_on_several_workers(
    dev: EnvironmentDescriptor, sail: str, tmp_path: Path
) -> None:
    source = Source(dev, tmp_path, ONE_PROCESS)
    for mean in (40, 41, 48):
        source.deliver(700, mean, score=source.rng.normal(1e6, 1e-3, 700))
    here = examine(dev, ONE_PROCESS, NOW)
    there = examine(dev, ON_SPARK, NOW)
    assert {each.column for each in here.columns} == {"age", "city", "email", "score"}
    assert there.model_dump_json() == here.model_dump_json()
    version = read_version_on_spark(dev, "visits")
    with open_spark() as spark:
        checked = check_on_spark(spark, ON_SPARK, version.rows, "visits", version.rows_of)
    assert (checked.rows, checked.keeps, checked.rejected) == (2_100, True, "")
    assert open_table(dev, "visits").current_snapshot() is not None
    assert os.environ["SAIL_MODE"] == sail
