"""Lineage events never hold a job up."""

from __future__ import annotations

import logging

import pytest

from pipelines.data import lineage as module
from pipelines.data.lineage import lineage
from tests.dripping_server import dripping_server
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
