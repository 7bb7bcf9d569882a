"""The part of MLflow's REST API that a copy of a run uses, in memory.

Statuses, error codes and limits are those that MLflow 3.17 answered.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

MOST_PARAMETERS = 100


@dataclass
class FakeMlflow:
    """State of the server.

    Attributes:
        experiments: name → id.
        runs: id → the run, with its parameters and metrics.
        answers: path → what to answer instead.
    """

    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def answer(self, _method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Answer a request."""
        parts = urlsplit(path)
        name = parts.path.removeprefix("/api/2.0/mlflow/")
        if name in self.answers:
            return self.answers[name]
        given = json.loads(body) if body else {key: values[0] for key, values in parse_qs(parts.query).items()}
        status, content = getattr(self, name.replace("/", "_").replace("-", "_"))(**given)
        return status, json.dumps(content).encode()

    def experiments_get_by_name(self, experiment_name: str) -> tuple[int, Any]:
        if experiment_name not in self.experiments:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No such experiment"}
        return 200, {"experiment": {"experiment_id": self.experiments[experiment_name], "name": experiment_name}}

    def experiments_create(self, name: str) -> tuple[int, Any]:
        if name in self.experiments:
            return 400, {"error_code": "RESOURCE_ALREADY_EXISTS", "message": "It exists"}
        self.experiments[name] = str(len(self.experiments) + 1)
        return 200, {"experiment_id": self.experiments[name]}

    def runs_search(self, experiment_ids: list[str], max_results: int, **given: str) -> tuple[int, Any]:
        fitting = [
            run
            for run in self.runs.values()
            if run["experiment_id"] in experiment_ids
            and all(
                f"tags.`{key}` = '{run['tags'][key]}'" in given["filter"] for key in ("mlops.run", "mlops.environment")
            )
        ]
        return 200, {"runs": [{"info": {"run_id": run["id"]}} for run in fitting[:max_results]]} if fitting else {}

    def runs_create(self, tags: list[dict[str, str]], **values: Any) -> tuple[int, Any]:
        name = f"{len(self.runs) + 1:032x}"
        self.runs[name] = {
            **values, "id": name, "tags": {tag["key"]: tag["value"] for tag in tags}, "params": {}, "metrics": {}
        }  # fmt: skip
        return 200, {"run": {"info": {"run_id": name}}}

    def runs_log_batch(
        self, run_id: str, params: list[dict[str, str]] | None = None, metrics: list[dict[str, Any]] | None = None
    ) -> tuple[int, Any]:
        if len(params or ()) > MOST_PARAMETERS:
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "too many"}
        self.runs[run_id]["params"] |= {each["key"]: each["value"] for each in params or ()}
        self.runs[run_id]["metrics"] |= {each["key"]: each["value"] for each in metrics or ()}
        return 200, {}

    def runs_update(self, run_id: str, **values: Any) -> tuple[int, Any]:
        self.runs[run_id] |= values
        return 200, {"run_info": {}}
