"""The job that compacts an inference log: when it runs, and that its role deletes nothing but lines of one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.infra.recording import ACCOUNT, Recording
from tests.infra.test_model_monitors import CRON_JOB, MODEL, MODEL_FILE, recorded

pytestmark = pytest.mark.slow

COMPACT = f"compact-{MODEL}"


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_the_log_of_each_released_model_is_compacted_an_hour_before_its_monitor_runs(
    graphs: dict[str, Recording], environment: str
) -> None:
    job = graphs[environment].one(CRON_JOB, COMPACT)
    assert str(job.at("spec", "schedule")).endswith(" 4 * * *")
    assert job.at("spec", "concurrencyPolicy") == "Forbid"


def test_the_role_deletes_lines_of_one_model_and_adds_parquet_files(graphs: dict[str, Recording]) -> None:
    log = f"arn:aws:s3:::mlops-prod-logs-{ACCOUNT}/inference/{MODEL}/"
    allowed: dict[str, list[dict[str, Any]]] = {}
    for statement in graphs["prod"].policy(COMPACT):
        for action in statement["Action"]:
            allowed.setdefault(action, []).append(statement)
    assert set(allowed) == {
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:PutObject",
    }
    (deleted,), (added, events) = allowed["s3:DeleteObject"], allowed["s3:PutObject"]
    assert deleted["Resource"] == [f"{log}*.jsonl"]
    assert added["Resource"] == [f"{log}*.parquet"]
    assert added["Condition"] == {"Null": {"s3:if-none-match": "false"}}
    assert events["Resource"] == [f"arn:aws:s3:::mlops-prod-logs-{ACCOUNT}/lineage/{COMPACT}/*"]


def test_a_model_without_a_release_has_no_such_job_and_an_hourly_monitor_an_hourly_one(tmp_path: Path) -> None:
    release = (f"models/{MODEL}/releases/dev.yaml", ("bundle",), None)
    graph = recorded(tmp_path / "none", "dev", release)
    assert COMPACT not in {*graph.of_type(CRON_JOB), *graph.of_type("aws:iam/role:Role")}
    hourly = recorded(tmp_path / "hourly", "dev", (MODEL_FILE, ("monitoring",), {"window_hours": 6}))
    assert str(hourly.one(CRON_JOB, COMPACT).at("spec", "schedule")).endswith(" * * * *")


def test_a_sample_and_the_contract_reach_the_pods(tmp_path: Path) -> None:
    from pipelines.declarations.inference_logging import LogPolicy

    graph = recorded(tmp_path, "dev", (MODEL_FILE, ("serving", "inference_log"), {"sample": 0.25}))
    rollout = graph.one("kubernetes:argoproj.io/v1alpha1:Rollout", MODEL)
    variables = rollout.at("spec", "template", "spec", "containers", 0, "env")
    (text,) = [each["value"] for each in variables if each["name"] == "LOG_POLICY"]
    assert LogPolicy.model_validate_json(text) == LogPolicy(sample=0.25, withheld=("sex",), groups=("sex",))
