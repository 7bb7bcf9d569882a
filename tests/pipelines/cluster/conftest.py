"""Fake Kubernetes API that returns scripted responses."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from pipelines.cluster import connection, jobs, rollouts
from tests.http_responder import Answer, http_server


class Api:
    """Fake API and the requests it received.

    Attributes:
        asked: method, path and body of every request.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self._answers: dict[tuple[str, str], list[Any]] = defaultdict(list)

    def on(self, method: str, path: str, *answers: Any) -> None:
        """Script the responses of a path: objects, texts, statuses or functions of the body. The last one repeats."""
        self._answers[method, path] += answers

    def bodies(self, method: str) -> list[Any]:
        """Return the bodies of all requests with a method."""
        return [body for verb, _, body in self.asked if verb == method]

    def __call__(self, method: str, path: str, body: bytes) -> Answer:
        where = urlsplit(path)
        sent = json.loads(body) if body else parse_qs(where.query)
        self.asked.append((method, where.path, sent))
        waiting = self._answers.get((method, where.path))
        if not waiting:
            return self._error(404, f"{method} {where.path} not found")
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(answer, Callable):  # type: ignore[arg-type]
            answer = answer(sent)
        if answer is None or isinstance(answer, tuple):
            return answer
        if isinstance(answer, int):
            return self._error(answer, f"it is {answer}")
        if isinstance(answer, str):
            return 200, answer.encode()
        return 200, json.dumps(answer).encode()

    @staticmethod
    def _error(code: int, message: str) -> Answer:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
        return code, json.dumps(status).encode()


def write_kubeconfig(path: Path, server: str, *, token: str | None = None) -> None:
    """Write a KUBECONFIG for an API, with a bearer token if it needs one."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": token} if token else {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(config))


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    made = Api()
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(connection, "RENEWAL_SECONDS", 0.0)
    monkeypatch.setattr(jobs, "RERUN_SECONDS", 0.001)
    for module in (jobs, rollouts):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    with http_server(made) as url:
        write_kubeconfig(tmp_path / "kubeconfig", url)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield made
