"""The logs bucket fails while a server answers: S3 is down, throttles, is slow, or ends connections."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipelines.serving.request_counts import count_of
from tests.http_responder import Answer, http_server
from tests.pipelines.serving.bundles import NAME
from tests.pipelines.serving.conftest import features
from tests.pipelines.serving.server_process import PATIENCE, ServerProcess, client, get

pytestmark = pytest.mark.slow

ERROR = "<Error><Code>{}</Code><Message>Please reduce your request rate.</Message></Error>"
FAULTS: dict[str, Answer] = {
    "down": (500, ERROR.format("InternalError").encode()),
    "throttled": (503, ERROR.format("SlowDown").encode()),
    "disconnected": None,
}


@dataclass
class FailingBucket:
    """Stand-in for S3 that keeps what is put.

    Attributes:
        fault: what it does instead, one of `FAULTS`; "" for nothing.
        taken: set unless S3 is slow; an answer waits for it.
        objects: path and content of each object.
        failed: set once an object was not taken.
    """

    fault: str = ""
    taken: threading.Event = field(default_factory=threading.Event)
    objects: dict[str, bytes] = field(default_factory=dict)
    failed: threading.Event = field(default_factory=threading.Event)

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        if self.fault:
            self.failed.set()
            return FAULTS[self.fault]
        assert self.taken.wait(PATIENCE)
        self.objects[path] = body
        return 200, b""

    def logged(self) -> list[str]:
        """Return the ids of all records."""
        lines = [line for path, body in self.objects.items() if count_of(path) is None for line in body.splitlines()]
        return [json.loads(line)["id"] for line in lines]

    def lost(self) -> int:
        """Return the number of lost records that the counts state."""
        return sum(json.loads(body)["lost"] for path, body in self.objects.items() if count_of(path) is not None)


@dataclass
class ServerWithBucket:
    """A server whose log goes to a bucket that can fail.

    Attributes:
        bucket: the bucket.
        process: the server.
        url: its URL.
        answered: ids of the requests that it answered.
    """

    bucket: FailingBucket
    process: ServerProcess
    url: str
    answered: list[str] = field(default_factory=list)

    def predict(self) -> None:
        """Send a request, and expect its answer."""
        name = f"request-{len(self.answered)}"
        body = json.dumps(features() | {"id": name})
        response = client.post(
            f"{self.url}/v2/models/{NAME}/infer", content=body, headers={"content-type": "application/json"}
        )
        assert (response.status_code, response.json()["id"]) == (200, name)
        self.answered.append(name)

    def predict_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            self.predict()

    def dropped(self, reason: str) -> float:
        """Return how many records the server has lost, by its metrics."""
        text = get(f"{self.url}/metrics").text
        found = re.search(rf'^inference_log_dropped_records_total{{reason="{reason}"}} (.+)$', text, re.MULTILINE)
        assert found is not None
        return float(found[1])

    def stop(self) -> None:
        """End the server as Kubernetes does."""
        self.process.terminate()
        assert self.process.status() == 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerWithBucket]:
    bucket = FailingBucket()
    bucket.taken.set()
    with http_server(bucket.answer) as endpoint:
        environ = {
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }
        command = ["tests.pipelines.serving.in_memory_server", str(tmp_path), "bucket"]
        with ServerProcess(command, environ) as process:
            url = process.url()
            process.wait_for("ready")
            try:
                yield ServerWithBucket(bucket, process, url)
            finally:
                bucket.taken.set()


@pytest.mark.parametrize("fault", FAULTS)
def test_requests_are_answered_while_s3_fails_and_each_is_logged_or_counted_as_lost(
    server: ServerWithBucket, fault: str
) -> None:
    server.predict_until(lambda: bool(server.bucket.logged()))
    server.bucket.fault = fault
    server.predict_until(lambda: server.dropped("write failed") > 0)
    server.bucket.fault = ""
    server.predict()
    server.stop()
    logged, lost = server.bucket.logged(), server.bucket.lost()
    assert server.answered[-1] in logged
    assert len(logged) == len(set(logged))
    assert lost > 0
    assert len(logged) + lost == len(server.answered)


def test_a_short_failure_of_s3_loses_nothing(server: ServerWithBucket) -> None:
    server.bucket.fault = "throttled"
    server.predict()
    assert server.bucket.failed.wait(PATIENCE)
    server.bucket.fault = ""
    server.predict()
    server.stop()
    assert sorted(server.bucket.logged()) == sorted(server.answered)
    assert server.bucket.lost() == 0


def test_no_request_waits_for_a_slow_s3_and_what_has_no_room_is_counted(server: ServerWithBucket) -> None:
    server.bucket.taken.clear()
    server.predict_until(lambda: server.dropped("buffer full") > 0)
    server.bucket.taken.set()
    server.stop()
    logged, lost = server.bucket.logged(), server.bucket.lost()
    assert lost > 0
    assert len(logged) + lost == len(server.answered)
