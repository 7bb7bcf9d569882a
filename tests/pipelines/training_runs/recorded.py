"""Runs for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.declarations.bundle import DatasetVersion, Source
from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.evaluation import Estimate
from pipelines.declarations.run_facts import RunFacts
from pipelines.training_runs.recorded_runs import RecordedRun
from tests.signing_environments import COMMIT, MODEL

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def digest(text: str) -> str:
    return digest_of_bytes(text.encode())


def make_facts(rmse: float | None = 50.0, **changes: Any) -> RunFacts:
    """Return facts of a regression, whose interval is 2 on either side."""
    estimate = Estimate(value=rmse, low=None if rmse is None else rmse - 2, high=None if rmse is None else rmse + 2)
    values: dict[str, Any] = {
        "model": MODEL,
        "task": "regression",
        "started": f"{BEGIN:%Y-%m-%dT%H:%M:%SZ}",
        "finished": f"{BEGIN + timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}",
        "commit": COMMIT,
        "image": digest("image"),
        "source": Source(**dict.fromkeys(("model", "pipelines", "requirements"), digest("source"))),
        "contract": digest("contract"),
        "dataset": DatasetVersion(dataset="houses", table="lake.houses", snapshot="77", content=digest("rows"), rows=9),
        "parameters": {"alpha": 1.0},
        "seed": 7,
        "training_rows": 300,
        "holdout_rows": 100,
        "holdout": digest("keys"),
        "metrics": {
            "rmse": estimate,
            "r2": Estimate(value=0.5, low=0.4, high=0.6),
            "slice/young/rmse": Estimate(value=60.0, low=None, high=None),
        },
    }
    return RunFacts(**{**values, **changes})


def make_run(name: str, facts: RunFacts | None = None, *, minutes: int = 1, **changes: Any) -> RecordedRun:
    """Return a run that dev has registered."""
    values: dict[str, Any] = {
        "id": name,
        "environment": "dev",
        "ended": BEGIN + timedelta(minutes=minutes),
        "bundle": digest(name),
        "facts": make_facts() if facts is None else facts,
    }
    return RecordedRun(**{**values, **changes})
