"""Lineage events: where they go, what they say of a sample, and that they never hold a job up."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pipelines.data import lineage as module
from pipelines.data.lineage import Data, lineage
from tests.dripping_server import dripping_server
from tests.http_responder import http_server
from tests.pipelines.registry.chains import offline_environment


def test_a_server_that_never_ends_its_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each byte is in time for the timeout of the socket."""
    monkeypatch.setattr(module, "LONGEST_EMIT", 0.2)
    monkeypatch.setattr("pipelines.data.lineage.store.put", lambda *_, **__: None)
    monkeypatch.setattr(module, "s3", lambda _: None)
    with dripping_server() as url, caplog.at_level(logging.WARNING):
        monkeypatch.setenv("OPENLINEAGE_URL", url)
        with lineage(offline_environment(), "ingest-visits", [], []):
            pass
        said = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert said == ["the lineage event START of ingest-visits was not recorded: no end of the answer"]


def sent_to(answers: list[dict[str, Any]], url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the kinds of the events that a job sends if the home folder has OpenLineage's configuration."""
    (folder / ".openlineage").mkdir()
    (folder / ".openlineage" / "openlineage.yml").write_text(f"transport: {{type: http, url: '{url}'}}\n")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setattr("pipelines.data.lineage.store.put", lambda *_, **__: None)
    monkeypatch.setattr(module, "s3", lambda _: None)
    with lineage(offline_environment(), "train-churn", [Data("arn", "table", sample=0.25)], []):
        pass
    return [str(event["eventType"]) for event in answers]


def test_a_configuration_in_the_home_folder_counts_and_a_sample_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[dict[str, Any]] = []

    def answer(_: str, path: str, body: bytes) -> tuple[int, bytes]:
        assert path == "/api/v1/lineage"
        received.append(json.loads(body))
        return 201, b""

    with http_server(answer) as url:
        assert sent_to(received, url, tmp_path, monkeypatch) == ["START", "COMPLETE"]
    condition = received[-1]["inputs"][0]["inputFacets"]["subset"]["inputCondition"]
    assert (condition["comparison"], condition["right"]["value"]) == ("LESS_THAN", "0.25")
