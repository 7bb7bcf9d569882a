"""The copy of a run in MLflow: complete, once, and never a reason for a training to fail."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from pipelines.training import mlflow_mirror
from pipelines.training.mlflow_mirror import mirror_run
from tests.dripping_server import dripping_server
from tests.http_responder import Answer, http_server, served_by
from tests.pipelines.training.mlflow_server import FakeMlflow
from tests.pipelines.training_runs.recorded import digest, make_facts
from tests.signing_environments import COMMIT, MODEL

SECRET = "s3cr3t-t0ken"


@pytest.fixture
def mlflow() -> FakeMlflow:
    return FakeMlflow()


@pytest.fixture
def url(mlflow: FakeMlflow) -> Iterator[str]:
    with http_server(mlflow.answer) as address:
        yield address


def mirror(url: str, run: str = "run-1", facts: object = None, **environ: str) -> list[str]:
    said: list[str] = []
    variables = {"MLFLOW_TRACKING_URI": url, **environ}
    mirror_run(variables, "dev", run, digest("bundle"), facts or make_facts(), said.append)  # type: ignore[arg-type]
    return said


def test_nothing_is_sent_without_the_variable() -> None:
    assert mirror("") == []


def test_a_run_is_copied_with_its_parameters_metrics_and_tags(mlflow: FakeMlflow, url: str) -> None:
    parameters = {"alpha": 0.5, "tree": {"depth": 3}, "names": ["a"], "a b#ü": "x" * 900, "on": True}
    assert mirror(url, facts=make_facts(parameters=parameters)) == [f"copied to MLflow as run {1:032x}"]
    (run,) = mlflow.runs.values()
    assert mlflow.experiments == {MODEL: "1"}
    assert run["params"] == {
        "seed": "7", "alpha": "0.5", "tree.depth": "3", "names": '["a"]', "a b__": "x" * 500, "on": "true"
    }  # fmt: skip
    assert run["metrics"] == {
        "rmse": 50.0,
        "rmse/low": 48.0,
        "rmse/high": 52.0,
        "r2": 0.5,
        "r2/low": 0.4,
        "r2/high": 0.6,
        "slice/young/rmse": 60.0,
    }
    assert (run["run_name"], run["status"], run["end_time"] - run["start_time"]) == ("run-1", "FINISHED", 60_000)
    assert run["tags"]["mlflow.source.git.commit"] == COMMIT
    assert run["tags"]["mlops.bundle"] == digest("bundle")
    assert (run["tags"]["mlops.dataset"], run["tags"]["mlops.snapshot"]) == ("houses", "77")


def test_a_repeated_job_adds_no_second_run(mlflow: FakeMlflow, url: str) -> None:
    assert mirror(url) == mirror(url)
    mirror(url, "run-2")
    assert [run["run_name"] for run in mlflow.runs.values()] == ["run-1", "run-2"]


def test_many_parameters_are_sent_in_parts(mlflow: FakeMlflow, url: str) -> None:
    mirror(url, facts=make_facts(parameters={f"p{n}": n for n in range(250)}))
    (run,) = mlflow.runs.values()
    assert len(run["params"]) == 251


def test_an_experiment_that_another_job_has_just_created_is_used(
    mlflow: FakeMlflow, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(name: str) -> tuple[int, Any]:
        mlflow.experiments[name] = "7"
        return 400, {"error_code": "RESOURCE_ALREADY_EXISTS"}

    monkeypatch.setattr(mlflow, "experiments_create", create)
    assert mirror(url, MLFLOW_EXPERIMENT_NAME="prices") == [f"copied to MLflow as run {1:032x}"]
    assert mlflow.runs[f"{1:032x}"]["experiment_id"] == "7"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((500, b"no"), "runs/create: expected the status 200, found 500"),
        ((403, b'{"error_code": "PERMISSION_DENIED"}'), "found 403 PERMISSION_DENIED"),
        ((401, SECRET.encode()), "found 401"),
        ((400, b'{"error_code": "\\u001b[2J s3cr3t"}'), "found 400"),
        ((200, b"[1]"), "expected a JSON object"),
        ((200, b"{"), "expected a JSON object"),
        ((200, b"{}"), "KeyError"),
        ((200, b"x" * (mlflow_mirror.LARGEST_ANSWER + 1)), "expected a JSON object"),
    ],
)
def test_a_failure_is_one_line_without_the_words_of_the_server(
    mlflow: FakeMlflow, url: str, answer: tuple[int, bytes], reason: str
) -> None:
    mlflow.answers["runs/create"] = answer
    (line,) = mirror(url, MLFLOW_TRACKING_TOKEN=SECRET)
    assert line.startswith("MLflow has no copy of this run: ") and reason in line
    assert "s3cr3t" not in line and "\x1b" not in line


@pytest.mark.parametrize(
    "address",
    [
        "http://mlflow.example.com",
        "https://user:s3cr3t@mlflow.example.com",
        "http://s3cr3t@127.0.0.1:1",
        "https://mlflow.example.com?token=s3cr3t",
        "file:///etc/passwd",
        "databricks",
        "https://[s3cr3t",
        "http://127.0.0.1.example.com",
    ],
)
def test_an_address_that_is_not_https_or_has_credentials_is_not_asked(address: str) -> None:
    (line,) = mirror(address)
    refused = ("MLFLOW_TRACKING_URI: expected ", "ValueError")  # the second: it is not a URL
    assert line.removeprefix("MLflow has no copy of this run: ").startswith(refused)
    assert "s3cr3t" not in line


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not answer (ConnectionRefusedError)" in mirror("http://127.0.0.1:1")[0]

    def close(_method: str, _path: str, _body: bytes) -> Answer:
        return None

    with http_server(close) as address:
        assert "does not answer" in mirror(address)[0]
    monkeypatch.setattr(mlflow_mirror, "ALL_SECONDS", -1.0)
    assert "expected an end within" in mirror("http://127.0.0.1:1")[0]


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_takes_no_token_elsewhere(status: int) -> None:
    asked: list[str] = []

    def steal(_method: str, path: str, _body: bytes) -> Answer:
        asked.append(path)
        return 200, b"{}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("location", f"{other}/stolen")
            self.send_header("content-length", "0")
            self.end_headers()

    with http_server(steal) as other, served_by(Handler) as address:
        (line,) = mirror(address, MLFLOW_TRACKING_TOKEN=SECRET)
    assert asked == []
    assert f"found {status}" in line


def test_the_token_is_sent_and_a_broken_one_is_not(mlflow: FakeMlflow) -> None:
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("authorization"))
            self.send_error(403)

    with served_by(Handler) as address:
        mirror(address, MLFLOW_TRACKING_TOKEN=f"{SECRET}\n")
        mirror(address, MLFLOW_TRACKING_USERNAME="me", MLFLOW_TRACKING_PASSWORD="word")
        mirror(address)
        (line,) = mirror(address, MLFLOW_TRACKING_TOKEN=f"{SECRET}\r\nx: y")
    assert seen == [f"Bearer {SECRET}", "Basic bWU6d29yZA==", None]
    assert "MLFLOW_TRACKING_TOKEN" in line and SECRET not in line


def test_a_server_that_never_ends_its_answer_does_not_hold_the_training_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is in time for the timeout of the socket."""
    monkeypatch.setattr(mlflow_mirror, "LONGEST_COPY", 0.2)
    with dripping_server() as url:
        assert mirror(url) == ["MLflow has no complete copy of this run: the server does not end its answer"]
